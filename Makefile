# `make demo` serves the page, `make test` runs all checks, `make docs` builds the documentation. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONSTRAINTS ?=
MILVUS := .milvus
MILVUS_CONSTRAINTS ?=

.PHONY: demo test lint types check format docs bench results clean

demo: $(READY)
	$(BIN)/python -m demo $(GALLERY)

test: $(READY) $(MILVUS)/.ready lint types
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'The documentation is in site/index.html.'

results: $(READY)
	$(BIN)/python -m eval table --out results
	$(BIN)/python -m eval weights --out results
	$(BIN)/python -m eval avoid --out results
	$(BIN)/python -m eval answerable --out results

bench: $(READY)
	$(BIN)/python benchmarks/first.py --out results

clean:
	rm -rf $(VENV) $(MILVUS) .mypy_cache .ruff_cache .pytest_cache .hypothesis build site *.egg-info

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mmretrieve needs Python 3.11 or later; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[demo,dev]'
	@touch $(READY)

# the server that stands in for Milvus brings a FAISS of its own, so it lives by itself
$(MILVUS)/.ready: Makefile
	$(PYTHON) -m venv $(MILVUS)
	$(MILVUS)/bin/python -m pip install --quiet --upgrade pip
	$(MILVUS)/bin/python -m pip install --quiet $(if $(MILVUS_CONSTRAINTS),--constraint $(MILVUS_CONSTRAINTS)) 'milvus-lite>=3.2,<4' pymilvus
	@touch $(MILVUS)/.ready
