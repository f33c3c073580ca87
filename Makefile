# make test   everything that is checked, on a machine with nothing but Python 3.11 or later
# make test-oldest   the tests again with the lowest supported version of every dependency
# make demo   a synthetic infrared-visible pair, fused, in outputs/demo
# make help   the other targets
#
# Settings: PYTHON (interpreter of the environments), VENV and OLDEST (their folders), JOBS (test processes).

PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
JOBS ?= 2

BIN := $(VENV)/bin
# One thread a process: on a few cores, processes that each start all threads only wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install lint format type doctest docs test test-cpu test-kernels test-oldest demo gpu picture clean

help: ## Show the targets.
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fusionblocks needs Python 3.11 or later, $(PYTHON) is older; try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps: the base package, and the package with all that development needs.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(addprefix --constraint ,$(CONSTRAINTS))
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed-dev ## Make the environment with everything that development needs.

lint: $(VENV)/.installed-dev ## Check style and format; changes nothing.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev ## Apply the format and the safe fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(VENV)/.installed-dev ## Check types.
	$(BIN)/mypy

doctest: $(VENV)/.installed-dev ## Run the examples of the docstrings.
	$(ONE_THREAD) $(BIN)/pytest --doctest-modules fusionblocks --quiet -n $(JOBS)

docs: $(VENV)/.installed-dev ## Build the documentation into docs/_build/html; a warning is an error.
	rm -rf docs/_build docs/api
	$(ONE_THREAD) $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# pytest exits with 5 when nothing is collected: true as long as no operator has a kernel.
test-kernels: $(VENV)/.installed-dev ## Run the kernel tests in Triton's interpreter.
	@status=0; $(ONE_THREAD) TRITON_INTERPRET=1 $(BIN)/pytest tests/ops -m kernel --quiet || status=$$?; \
	  if [ $$status -eq 5 ]; then echo "test-kernels: there are no kernel tests yet"; else exit $$status; fi

test-cpu: $(VENV)/.installed-dev ## Run the tests that need no GPU.
	$(ONE_THREAD) $(BIN)/pytest -m "not kernel and not gpu" --quiet -n $(JOBS)

test: lint type docs doctest test-kernels test-cpu ## Run everything above; the last line is pytest's summary.

test-oldest: ## Run kernel and CPU tests with the lowest supported versions, in an environment of their own.
	@$(MAKE) --no-print-directory test-kernels test-cpu VENV=$(OLDEST) CONSTRAINTS=tests/constraints-oldest.txt

demo: $(VENV)/.installed ## Fuse a synthetic pair and say where the pictures are.
	$(BIN)/fusionblocks demo --output outputs/demo

# With the Python that has torch and triton: it installs nothing. On a machine with a CUDA device it takes nine minutes.
gpu: ## Test and measure on a GPU; without one, a dry run.
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu

picture: $(VENV)/.installed-dev ## Draw the tracked pictures again: the README's and the degradations'.
	$(BIN)/python docs/pictures.py

clean: ## Remove what was built; the environment stays.
	rm -rf docs/_build docs/api build dist outputs .mypy_cache .pytest_cache .ruff_cache
