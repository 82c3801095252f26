# `make demo` serves the page, `make test` runs all checks, `make docs` builds the documentation. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONSTRAINTS ?=
MILVUS := .milvus
LOWEST := .lowest
MILVUS_CONSTRAINTS ?=

# how many processes run the tests; each file of tests runs whole in one of them
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest
PARALLEL = -n $(JOBS) --dist loadfile
QUICK = tests/test_core.py tests/test_rules.py tests/test_rooms.py tests/test_readme.py tests/test_life.py

.PHONY: demo test quick soak fuzz mutants test-lowest lint types format docs bench results clean

demo: $(READY)
	$(BIN)/python -m demo $(GALLERY)

test: $(READY) $(MILVUS)/.ready lint types
	$(PYTEST) $(PARALLEL)

# for a working hour: laws of the core, one gallery from a folder to its answers through shell and API, rooms, documents.
# Last run: 39 s of processor time on a busy machine
quick: $(READY) lint
	$(PYTEST) $(PARALLEL) $(QUICK)

# What may take longer than `make test`, each with what the last run showed.

# soak: a gallery is killed MMRETRIEVE_KILLS times (42 in `make test`). Last run: 1,000 times, green, 10 minutes of one core
soak: $(READY)
	MMRETRIEVE_KILLS=$${MMRETRIEVE_KILLS:-1000} $(PYTEST) tests/gallery/test_kill.py --timeout 3600

# fuzz: MMRETRIEVE_FUZZ times as many random examples, other ones each time. Last run: the laws of the core with 3 times as many
fuzz: $(READY) $(MILVUS)/.ready
	MMRETRIEVE_FUZZ=$${MMRETRIEVE_FUZZ:-10} $(PYTEST) $(PARALLEL) --timeout 3600 -m property

# mutants: the source broken in one place at a time must turn the tests red. Last run: 10 of 10 faults, 2 minutes of one core
mutants: $(READY)
	$(BIN)/python tests/mutants.py

# test-lowest: the oldest versions that pyproject.toml allows, in an environment of its own. Not run yet: it downloads several GB
test-lowest: $(MILVUS)/.ready
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip uv
	$(LOWEST)/bin/python -m uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[demo,dev]'
	$(LOWEST)/bin/python -m pytest $(PARALLEL)

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
	$(BIN)/python -m benchmarks.first --out results

clean:
	rm -rf $(VENV) $(MILVUS) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis build site *.egg-info

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
