# Two commands on a fresh machine: `make demo` and `make test`. Both need Python 3.11 or newer and a package index.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# each process that a test starts would compile the package anew, where the environment forbids to keep what is compiled
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-faults test-mutants check bench bench-gpu clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $(READY)

demo: setup
	$(BIN)/subfuse demo --out subfuse-demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses auto --dist loadscope --no-loadscope-reorder

# ROUNDS: how many damages of each kind of file
test-faults: ROUNDS ?= 1000
test-faults: setup
	OMP_NUM_THREADS=1 SUBFUSE_FAULT_POINTS=25 SUBFUSE_FUZZ_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest --quiet -m faults

# hours; MODULES="evaluation/delong training/coordination" for some
test-mutants: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'cosmic-ray>=8.4'
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python benchmarks/mutants.py $(MODULES)

check: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/deptry src
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/model_speed.py
	$(BIN)/python benchmarks/baseline_speed.py

# on a machine with a GPU
bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf $(VENV) subfuse-demo build
