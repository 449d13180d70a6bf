# Every target makes the virtual environment it needs; nothing but make and Python >= 3.11 is
# assumed. Another interpreter: `make PYTHON=/path/to/python3.12 test`, after `make clean`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARALLEL := --numprocesses auto --dist worksteal  # begins with halves: a file's tests share programs

# Most of a test's time is XLA's: compiled in haste it takes a third. XLA ends a process that sets
# a flag it does not know, so that is tried first.
FLAGS := --xla_cpu_use_fusion_emitters=false
HASTY = env JAX_DISABLE_MOST_OPTIMIZATIONS=1 $$(XLA_FLAGS=$(FLAGS) $(BIN)/python \
	-c 'import jax; jax.devices()' >/dev/null 2>&1 && echo XLA_FLAGS=$(FLAGS))

.DEFAULT_GOAL := test
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: demo test test-all notebooks notebooks-write lint format clean

demo: $(VENV)/.demo  ## fit Old Faithful from the command line: demo/model.npz and demo/fit.png
	mkdir -p demo
	$(BIN)/jaxem fit old_faithful --model gaussian-mixture --components 2 --restarts 20 --seed 0 \
		--out demo/model.npz --plot demo/fit.png

test: $(VENV)/.test  ## all but slow tests and notebooks; numbers as users compile them, the rest in haste
	$(BIN)/python -m pytest $(PARALLEL) -m "numerics and not slow"
	$(HASTY) $(BIN)/python -m pytest $(PARALLEL) -m "not (numerics or slow or notebook)"

test-all: $(VENV)/.test  ## slow tests too, and everything as users compile it
	$(BIN)/python -m pytest $(PARALLEL) -m "not notebook"

notebooks: $(VENV)/.notebooks  ## run every notebook, and compare with what is committed
	$(HASTY) $(BIN)/python -m pytest $(PARALLEL) tests/test_notebooks.py

notebooks-write: $(VENV)/.notebooks  ## run every script in notebooks/, and write its notebook
	$(BIN)/python notebooks/execute.py

lint: $(VENV)/.lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove whatever the other targets made
	rm -rf $(VENV) demo build dist .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: the environment, and in it each set of extras, anew when pyproject.toml changes.
$(VENV)/.demo: EXTRAS := cli,plots
$(VENV)/.test: EXTRAS := test
$(VENV)/.notebooks: EXTRAS := test,notebooks
$(VENV)/.lint: EXTRAS := lint,test,notebooks  # pyright reads the types of what is imported

$(VENV)/.demo $(VENV)/.test $(VENV)/.notebooks $(VENV)/.lint: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install -q -e '.[$(strip $(EXTRAS))]'
	touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "jaxem needs Python 3.11 or newer, which '$(PYTHON)' is not;" \
			"name one that is: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@
