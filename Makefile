# Everything sets itself up in .venv/ from requirements.lock; only Python, git and make come before.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.8
EXTRAS := --extra sklearn --extra xgboost --extra lightgbm --extra azureml --extra postgresql \
	--extra oidc --extra telemetry --extra triton --extra docker --extra provenance --extra quantum \
	--extra fleet --extra oracles --extra kubernetes --extra batch --extra bento
export UV_NO_PROGRESS := 1
export UV_PYTHON_DOWNLOADS := never

.PHONY: help demo test check lint types imports unit services lock install bench bench-images \
	bench-quantum bench-edge bench-kubernetes bench-batch stress faults-edge clean

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Fieldpost needs Python 3.11 or newer; set PYTHON=/path/to/one" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(BIN)/uv requirements.lock pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes \
	  -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q serve edge scoring
	@touch $@

install: $(STAMP)  ## the development environment in .venv

lock: $(BIN)/uv  ## resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command 'make lock' $(EXTRAS) --group dev --group torch-cpu \
	  pyproject.toml -o requirements.lock

demo: $(STAMP)   ## the main job, from a trained model to answers over HTTP
	@$(BIN)/python examples/demo.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	@# One by one: the examples' folders are no packages, and their scripts share names.
	@for script in examples/*/train.py; do $(BIN)/mypy --no-error-summary $$script || exit 1; done

imports: $(STAMP)
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/pytest -q tests/unit

check: lint types imports unit  ## the quick part: lint, types, imports, unit tests

services: $(STAMP)
	@tests/install-services.sh $(BIN)/python

# Quick checks first, so that a slip is told at once; then every test, in random order. Three at a time
# on two cores: many wait for engines, brokers and limits of time.
test: lint types imports services  ## everything that is checked before a change lands
	$(BIN)/pytest -q -n 3 --dist loadfile --tb short --durations 30 tests

bench: $(STAMP)  ## the benchmarks, beside our peers where there are any
	PYTHONPATH=. $(BIN)/python -m benchmarks.main_job
	PYTHONPATH=. $(BIN)/python -m benchmarks.server

bench-images: $(STAMP)  ## building and pushing images, beside docker and buildah
	PYTHONPATH=. $(BIN)/python -m benchmarks.images

bench-quantum: $(STAMP)  ## circuits: training, compiling and scoring, beside PennyLane
	PYTHONPATH=. $(BIN)/python -m benchmarks.quantum

bench-edge: $(STAMP)  ## rollouts, telemetry and updates of a fleet, through a real broker
	PYTHONPATH=. $(BIN)/python -m benchmarks.edge

bench-kubernetes: $(STAMP)  ## objects for a thousand deployments, made and compared
	PYTHONPATH=. $(BIN)/python -m benchmarks.kubernetes

bench-batch: $(STAMP)  ## datasets, beside a loop of pandas and scikit-learn
	PYTHONPATH=. $(BIN)/python -m benchmarks.batch

stress: $(STAMP)  ## 200 connections for ten minutes: no error, no growth of memory
	PYTHONPATH=. $(BIN)/python -m benchmarks.stress

faults-edge: services  ## what a fleet has to survive, in full; counts at the end
	FIELDPOST_TEST_LONG=1 $(BIN)/pytest -q -rs tests/faults tests/property tests/e2e -k "edge or fleet or powercut"

clean:           ## remove the environment and all caches
	rm -rf $(VENV) .build .mypy_cache .ruff_cache .pytest_cache .hypothesis
