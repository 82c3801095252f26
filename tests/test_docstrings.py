"""The docstrings of the library: their examples run, and those of public names are complete."""

from __future__ import annotations

import doctest
import enum
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import mmretrieve as mm
from mmretrieve.registry import CAPTIONERS, COMPOSERS, ENCODERS, JUDGES, REWRITERS, RULES
from mmretrieve.request import SearchRequest

ROOT = Path(__file__).parents[1]
DATA = {"PUBLISHED"}  # constants have no docstring at run time
PUBLIC = {name: getattr(mm, name) for name in mm.__all__ if name not in DATA}
PUBLIC |= {f"wardrobe.{name}": getattr(mm.wardrobe, name) for name in mm.wardrobe.__all__}
PUBLIC |= {f"testing.{name}": getattr(mm.testing, name) for name in mm.testing.__all__}
PUBLIC |= {"SearchRequest": SearchRequest, "SearchRequest.parse": SearchRequest.parse}
METHODS = {
    f"{target.__name__}.{name}": getattr(value, "__func__", value)
    for target in (mm.Retriever, mm.Vocabulary)
    for name, value in vars(target).items()
    if not name.startswith("_") and inspect.isfunction(getattr(value, "__func__", value))
}
DOCUMENTED = PUBLIC | METHODS


def with_examples() -> list[str]:
    """The modules that contain doctests. Those of frameworks run in tests/plugs."""
    paths = [path for path in (ROOT / "mmretrieve").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    paths = [path for path in paths if path.parent.name != "integrations" or path.stem == "tools"]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)


@pytest.mark.parametrize("name", with_examples())
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (COMPOSERS, RULES, JUDGES, REWRITERS, CAPTIONERS, ENCODERS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))  # examples register names
    result = doctest.testmod(import_module(name))
    assert result.attempted
    assert not result.failed


def sections(docstring: str) -> set[str]:
    """The titles of the numpydoc sections of a docstring."""
    return set(re.findall(r"^(\w+)\n-{3,}$", docstring, re.MULTILINE))


def parameters(target: Any) -> list[str]:
    """The parameters that callers pass. Modules, protocols, enumerations and exceptions have none."""
    if inspect.ismodule(target):
        return []
    if inspect.isclass(target) and (issubclass(target, enum.Enum | Exception) or getattr(target, "_is_protocol", False)):
        return []
    return [name for name in inspect.signature(target).parameters if name not in ("self", "cls")]


def sources(target: Any) -> Iterator[str]:
    """The code that runs in a call of the function, or when an object of the class is created."""
    if inspect.isfunction(target):
        yield inspect.getsource(target)
        return
    for name in () if inspect.ismodule(target) else ("__init__", "__post_init__", "__new__"):
        if inspect.isfunction(method := vars(target).get(name)) and method.__code__.co_filename == inspect.getfile(target):
            yield inspect.getsource(method)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_public_name_is_documented(name: str) -> None:
    target = DOCUMENTED[name]
    docstring = inspect.getdoc(target) or ""
    required = {"Examples"}
    if parameters(target):
        required.add("Parameters")
    if inspect.isfunction(target) and inspect.signature(target).return_annotation != "None":
        required.add("Returns")
    if any("raise " in source for source in sources(target)):
        required.add("Raises")
    assert required <= sections(docstring), f"{name} lacks {sorted(required - sections(docstring))}"
    assert ">>> " in docstring
    for parameter in parameters(target):
        assert re.search(rf"^(\w+, )*(\*\*)?{parameter}(, \w+)* : ", docstring, re.MULTILINE), (
            f"{name} does not document {parameter}"
        )


def test_the_published_settings_are_documented() -> None:
    text = (ROOT / "mmretrieve/directions.py").read_text(encoding="utf-8")
    assert re.search(r'^PUBLISHED: .*?^}\n""".*?Source: arXiv', text, re.MULTILINE | re.DOTALL)
