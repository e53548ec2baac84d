# make demo | test | test-slow | check | docs | format | bench | lineage | faults | wheel: each sets up .venv first, unless that is done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2

.PHONY: demo test test-slow check docs format bench lineage faults wheel clean

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "striate needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/striate fit --config quickstart

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow'

# Property tests run here too, with other examples than in `make test`, which always has the same.
test-slow: $(READY)
	$(BIN)/python -m pytest -m 'slow or hypothesis' --hypothesis-profile random

# The checkout may have any name; a link lets the type checker see it as the package striate.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p $(VENV)/typing && ln -sfn "$(CURDIR)" $(VENV)/typing/striate
	cd $(VENV)/typing && ../bin/mypy --config-file "$(CURDIR)/setup.cfg" -p striate.models -p striate.datamodules \
	  -p striate.tasks -p striate.callbacks -p striate.experiments -p striate.benchmarks

# The site of the documentation; a warning, such as a broken link or an unknown argument in a docstring, is an error.
docs: $(READY)
	PATH="$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "documentation: $(CURDIR)/build/site/index.html; to search it: python -m http.server --directory build/site"

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m benchmarks

lineage: $(READY)
	$(BIN)/python -m benchmarks region_lineage --picture build/region_lineage.png

faults: $(READY)
	$(BIN)/python -m striate.tests.campaign

wheel: $(READY)
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
