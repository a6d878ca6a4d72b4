# Few, same-named commands. On a fresh machine with Python 3.11+ each sets up what it needs.
PYTHON ?= python3
# The CPU build, pinned: a plain requirement would pull gigabytes of CUDA libraries on Linux.
# Where pip does not find it, point pip at PyTorch's CPU packages, or accept another build: make serve TORCH=torch
TORCH  ?= $(shell $(PYTHON) -c 'import platform; print("torch==2.13.0" + ("+cpu" if platform.system() == "Linux" else ""))')
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
# Processes that run tests, each whole files: most of a test's time is waiting for a process to start.
TESTERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: serve test demo lint bench dashboards clean

serve: $(READY)            ## three real versions of a digits model on 127.0.0.1:8000
	$(BIN)/python -m gateway.cli.quickstart
	$(BIN)/turnout serve --config config/examples/digits.yaml

test: $(DEV)               ## all tests; one that failed is run again, at once and then alone, and each outcome stays in sight
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --reruns 2 --max-suite-reruns 20 --rerun-show-tracebacks || { test $$? -eq 1 && echo "== once more, what failed ==" && $(BIN)/python -m pytest --last-failed; }

demo: $(READY)             ## canary, bad version, automatic rollback, live in the terminal
	$(BIN)/turnout demo

lint: $(DEV)               ## format, rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(DEV)              ## the figures of docs/benchmarks.md; more options in BENCH="--sweep"
	$(BIN)/python -m loadtests.bench $(BENCH)

dashboards: $(DEV)         ## config/grafana anew, from dashboards/
	$(BIN)/python -m dashboards

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a few minutes the first time."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --constraint constraints.txt "$(TORCH)" || { \
	  echo "pip found no $(TORCH). Point pip at PyTorch's CPU packages, or name another build: make $(MAKECMDGOALS) TORCH=torch==2.13.0"; exit 1; }
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[decisions,examples,otlp,plot]'
	@touch $(READY)

$(DEV): $(READY)
	@echo "Setting up what tests and benchmarks need: some minutes more."
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(DEV)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
