# `make demo` serves the page, `make test` runs all checks, `make docs` builds the documentation. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MILVUS := .milvus
LOWEST := .lowest
TOOLS := .tools
PEERS := .peers
PLUGS := .plugs

# files of exact versions with hashes, as CI uses them; without one, pip takes what pyproject.toml allows
LOCK ?=
MILVUS_LOCK ?=

# how many processes run the tests; each file of tests runs whole in one of them
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest
PARALLEL = -n $(JOBS) --dist loadfile
QUICK = tests/test_core.py tests/test_rules.py tests/test_rooms.py tests/test_readme.py tests/test_life.py

.PHONY: demo test quick soak fuzz mutants test-lowest test-plugs test-slow lock licenses audit lint types format docs bench peers results clean

demo: $(READY)
	$(BIN)/python -m demo $(GALLERY)

test: $(READY) $(MILVUS)/.ready lint types
	$(PYTEST) $(PARALLEL)

# for a working hour: laws of the core, one gallery from a folder to its answers through shell and API, rooms, documents.
# Last run: 39 s of processor time on a busy machine
quick: $(READY) lint
	$(PYTEST) $(PARALLEL) $(QUICK)

# What may take longer than `make test`, each with what the last run showed.

# soak: faults again and again, MMRETRIEVE_SOAK_MINUTES in all; RELIABILITY.md shows what was tried and lost
soak: $(READY)
	MMRETRIEVE_SOAK_MINUTES=$${MMRETRIEVE_SOAK_MINUTES:-60} MMRETRIEVE_SOAK_REPORT=results/reliability.json \
		$(PYTEST) -m soak --timeout 7200 tests/soak
	$(BIN)/python -m docs.reliability

# fuzz: MMRETRIEVE_FUZZ times as many random examples, other ones each time, then mutated inputs, guided by coverage, for
# MMRETRIEVE_FUZZ_MINUTES. Last run: SECURITY.md
fuzz: $(READY) $(MILVUS)/.ready $(TOOLS)/.ready
	MMRETRIEVE_FUZZ=$${MMRETRIEVE_FUZZ:-10} $(PYTEST) $(PARALLEL) --timeout 3600 -m property
	PYTHONPATH=$(TOOLS) $(BIN)/python -m tests.fuzz.run $${MMRETRIEVE_FUZZ_MINUTES:-30}

# mutants: the source broken in one place at a time must turn the tests of its room red, or is explained in tests/mutants.txt.
# About 45 minutes of processor time, an estimate: the room of candidates alone took 23; CONTRIBUTING.md, Mutants
mutants: $(READY) $(TOOLS)/.ready
	PYTHONPATH=$(TOOLS) $(BIN)/python tests/mutants.py

# test-lowest: the oldest versions that pyproject.toml allows, in an environment of its own (7 GB). torchvision is named because each of its
# versions requires one of torch, and uv would take the newest. Last run: CONTRIBUTING.md, Dependencies
test-lowest: $(MILVUS)/.ready
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip uv
	$(LOWEST)/bin/python -m uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[demo,dev]' torchvision
	$(LOWEST)/bin/python -m pytest $(PARALLEL)

# test-slow: the installed wheel, the examples, a restarted server, whole sweeps and submissions. CI runs it after `test`.
# Last run: 18 passed in 100 s
test-slow: $(READY)
	$(PYTEST) $(PARALLEL) -m slow

# test-plugs: the adapters to packages of other people, against these, in an environment that stands on .venv (700 MB).
# Last run: 16 passed in 37 s, mteb 2.26.24, langchain-core 1.8.3, llama-index-core 0.14.25
test-plugs: $(PLUGS)/.ready
	HF_HUB_OFFLINE=1 $(PLUGS)/bin/python -m pytest tests/plugs

# lock: the versions and hashes that CI installs. What is in the files already stays; add UPGRADE=--upgrade for newer versions
COMPILE = PYTHONPATH=$(TOOLS) $(BIN)/python -m uv pip compile --quiet --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --python-version 3.11 $(UPGRADE)
lock: $(READY) $(TOOLS)/.ready
	echo 'setuptools>=77' | $(COMPILE) --extra demo --extra dev pyproject.toml - --output-file .ci/requirements.txt
	printf 'milvus-lite>=3.2,<4\npymilvus\n' | $(COMPILE) - --output-file .ci/milvus.txt

# licenses: what the locked packages are under. audit: known vulnerabilities of these versions; it asks a public database
licenses: $(READY)
	$(BIN)/python -m docs.licenses

audit: $(READY) $(TOOLS)/.ready
	PYTHONPATH=$(TOOLS) $(BIN)/python -m pip_audit --disable-pip --require-hashes --requirement .ci/requirements.txt

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
	$(BIN)/python -m eval judges --out results
	$(BIN)/python -m eval answerable --out results

# bench: the short set of benchmarks, about five minutes: JSON, plots and a table, in BENCH
BENCH ?= build/bench
bench: $(READY)
	$(BIN)/python -m benchmarks --out $(BENCH)

# peers: an environment with the systems that benchmarks.peers compares with mmretrieve (600 MB). Other packages are those of .venv
peers: $(PEERS)/.ready
	@echo 'Now run $(PEERS)/bin/python -m benchmarks.peers --out results'

clean:
	rm -rf $(VENV) $(MILVUS) $(LOWEST) $(TOOLS) $(PEERS) $(PLUGS) .mypy_cache .ruff_cache .pytest_cache .hypothesis build site *.egg-info

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mmretrieve needs Python 3.11 or later; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
else
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endif
	@touch $(READY)

# tools that no test needs: mutmut, uv, pip-audit, and atheris where it can be installed
$(TOOLS)/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --target $(TOOLS) 'mutmut>=3.8,<4' uv pip-audit
	$(BIN)/python -m pip install --quiet --target $(TOOLS) --no-deps atheris || echo 'no atheris for this Python: inputs are mutated blindly'
	@touch $(TOOLS)/.ready

# the server that stands in for Milvus brings a FAISS of its own, so it lives by itself
$(MILVUS)/.ready: Makefile
	$(PYTHON) -m venv $(MILVUS)
ifeq ($(MILVUS_LOCK),)
	$(MILVUS)/bin/python -m pip install --quiet --upgrade pip
	$(MILVUS)/bin/python -m pip install --quiet 'milvus-lite>=3.2,<4' pymilvus
else
	$(MILVUS)/bin/python -m pip install --quiet --require-hashes --requirement $(MILVUS_LOCK)
endif
	@touch $(MILVUS)/.ready

# what they require is taken from .venv where it is there; nothing of .venv may be replaced
$(PLUGS)/.ready: tests/plugs/packages.txt $(READY)
	$(PYTHON) -m venv $(PLUGS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(PLUGS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mmretrieve.pth"
	$(BIN)/python -m pip freeze --quiet --exclude-editable > $(PLUGS)/installed.txt
	$(PLUGS)/bin/python -m pip install --quiet --requirement tests/plugs/packages.txt --constraint $(PLUGS)/installed.txt
	@touch $(PLUGS)/.ready

# the packages are installed without what they require, so that they run on the NumPy and the FAISS of mmretrieve
$(PEERS)/.ready: benchmarks/peers.txt $(READY)
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mmretrieve.pth"
	$(PEERS)/bin/python -m pip install --quiet --no-deps --requirement benchmarks/peers.txt
	@touch $(PEERS)/.ready
