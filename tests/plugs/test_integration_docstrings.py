"""The examples in the docstrings of integrations."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["langchain", "llama_index", "mteb"])
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(f"mmretrieve.integrations.{name}"))
    assert (result.failed, result.attempted > 0) == (0, True)
