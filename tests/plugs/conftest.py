"""Tests against other people's packages, which are in the environment of `make test-plugs` alone."""

from importlib.util import find_spec

PACKAGES = ("mteb", "datasets", "langchain_core", "llama_index", "ranx", "ir_measures", "polars")
collect_ignore_glob = ["test_*.py"] if any(find_spec(package) is None for package in PACKAGES) else []
