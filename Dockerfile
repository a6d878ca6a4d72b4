# CPU:  docker build -t turnout .
# GPU:  docker build -t turnout:gpu --build-arg BASE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 \
#         --build-arg EXTRAS=onnx-gpu,torch,sklearn --build-arg TORCH=torch==2.13.0 .
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG EXTRAS=onnx,torch,sklearn
ARG TORCH=torch==2.13.0+cpu
# The CPU build of torch has an index of its own: --build-arg PIP_EXTRA_INDEX_URL=... names it.
ARG PIP_EXTRA_INDEX_URL
# The GPU bases are plain Ubuntu: there Python comes from the system's packages.
RUN command -v python3 >/dev/null && python3 -m venv --help >/dev/null 2>&1 && python3 -m ensurepip --version >/dev/null 2>&1 \
    || (apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*)
# The wheel is compiled (see hatch_build.py). python:* images bring their headers, Ubuntu's Python has them in a package.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
      $(test "$(command -v python3)" = /usr/bin/python3 && echo python3-dev) && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/turnout
WORKDIR /src
COPY constraints.txt ./
RUN /opt/turnout/bin/pip install --no-cache-dir --constraint constraints.txt "${TORCH}"
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY gateway gateway
COPY runtimes runtimes
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 /opt/turnout/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM ${BASE}
RUN command -v python3 >/dev/null \
    || (apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*)
RUN useradd --system --create-home --uid 10001 turnout && mkdir /var/lib/turnout && chown turnout /var/lib/turnout
COPY --from=build /opt/turnout /opt/turnout
COPY config /etc/turnout
ENV PATH=/opt/turnout/bin:$PATH TURNOUT_HOME=/var/lib/turnout PYTHONUNBUFFERED=1
USER turnout
VOLUME /var/lib/turnout
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["turnout"]
CMD ["serve", "--config", "/etc/turnout/gateway.yaml", "--host", "0.0.0.0"]
