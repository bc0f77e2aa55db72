# make demo   a small night of raw files, made here, goes into a store and is reduced; what is in it, how to open it
# make test   the tests
# Both install into .venv first. PYTHON=python3.13 VENV=.venv313 for another Python.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test slow lint types docs benchmark clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ztfzarr needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/ztfzarr simulate $(DEMO)
	$(BIN)/ztfzarr ingest $(DEMO)/night.zarr $(DEMO)/raw
	$(BIN)/ztfzarr run $(DEMO)/night.zarr
	$(BIN)/ztfzarr ls $(DEMO)/night.zarr
	$(BIN)/ztfzarr info $(DEMO)/night.zarr
	$(BIN)/ztfzarr show $(DEMO)/night.zarr science --ccd 2 -o $(DEMO)/science.png
	$(BIN)/ztfzarr report $(DEMO)/night.zarr -o $(DEMO)/report.html

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(TESTS)

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow -n auto --maxprocesses 2 --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

# The site, offline but for installing what makes it; the tutorial is run. Open build/docs/index.html.
docs: $(VENV)/docs-installed
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet docs build/docs
	$(BIN)/python docs/check_site.py build/docs

$(VENV)/docs-installed: $(VENV)/installed
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/raw.py
	$(BIN)/python benchmarks/million.py
	$(BIN)/python benchmarks/reduce.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/pocket.py
	$(BIN)/python benchmarks/starflat.py --errors
	$(BIN)/python benchmarks/scale.py

clean:
	rm -rf $(VENV) $(DEMO)
