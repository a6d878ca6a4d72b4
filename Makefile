# Few, same-named commands. On a fresh machine with Python 3.11+ each sets up what it needs.
PYTHON ?= python3
# The CPU build, pinned: a plain requirement would pull gigabytes of CUDA libraries on Linux.
# Where pip does not find it, point pip at PyTorch's CPU packages, or accept another build: make serve TORCH=torch
TORCH  ?= $(shell $(PYTHON) -c 'import platform; print("torch==2.13.0" + ("+cpu" if platform.system() == "Linux" else ""))')
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
COMPILED := build/compiled
DEV    := $(VENV)/.ready-dev
# Processes that run tests, each whole files: most of a test's time is waiting for a process to start.
TESTERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# What is started from here takes gateway and runtimes out of the wheel, not from beside it.
AS_COMPILED = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR)
# Tests that patch nothing of what they test, which compiled code would not let them.
COMPILED_TESTS = tests/codec tests/routing tests/serving/test_queue.py tests/serving/test_batcher.py \
  tests/serving/test_handle.py tests/serving/test_inline_engine.py tests/test_dataplane.py \
  tests/live/test_compiled.py tests/live/test_death.py tests/live/test_decisions.py tests/live/test_guard.py \
  tests/live/test_large_bodies.py tests/live/test_telling.py tests/live/test_traces.py \
  tests/web/test_suspension.py

.PHONY: serve test test-compiled demo lint wheel bench dashboards clean

serve: $(READY)            ## three real versions of a digits model on 127.0.0.1:8000
	$(BIN)/python -m gateway.cli.quickstart
	$(BIN)/turnout serve --config config/examples/digits.yaml

test: $(DEV)               ## all tests; one that failed is run again, at once and then alone, and each outcome stays in sight
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --reruns 2 --max-suite-reruns 20 --rerun-show-tracebacks || { test $$? -eq 1 && echo "== once more, what failed ==" && $(BIN)/python -m pytest --last-failed; }

test-compiled: $(DEV) $(COMPILED)  ## a gateway from the compiled wheel, by the tests that can tell
	$(AS_COMPILED) $(BIN)/python -m pytest --import-mode=importlib -n $(TESTERS) --dist loadfile --reruns 2 $(COMPILED_TESTS)

demo: $(READY)             ## canary, bad version, automatic rollback, live in the terminal
	$(BIN)/turnout demo

lint: $(DEV)               ## format, rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: $(COMPILED)         ## dist/turnout-*.whl with the way of a request compiled; takes a C compiler and two minutes

bench: $(DEV) $(COMPILED)  ## the figures of docs/benchmarks.md; more options in BENCH="--sweep"
	$(AS_COMPILED) $(BIN)/python -m loadtests.bench $(BENCH)

dashboards: $(DEV)         ## config/grafana anew, from dashboards/
	$(BIN)/python -m dashboards

$(COMPILED): pyproject.toml hatch_build.py $(shell find gateway runtimes -name '*.py') | $(READY)
	@echo "Compiling the wheel: two minutes."
	@rm -rf $(COMPILED) $(COMPILED).new dist/turnout-*.whl
	@mkdir -p $(COMPILED).new && touch $(COMPILED).begun
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@$(BIN)/python -m zipfile -e dist/turnout-*.whl $(COMPILED).new
	@# As old as what it was made from: a module that changed meanwhile is newer.
	@touch -r $(COMPILED).begun $(COMPILED).new && mv $(COMPILED).new $(COMPILED)

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
