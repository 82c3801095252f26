"""The documentation is complete and true: every public thing is in the reference, links resolve, the site builds without warnings."""

from __future__ import annotations

import argparse
import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel

import mmretrieve as mm
from docs import docstrings
from docs.generate.__main__ import main, pages
from docs.generate.commands import command_blocks
from docs.generate.markdown import UndocumentedError, anchor
from docs.generate.schemas import api_blocks, tool_blocks

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
TEXTS = [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELIABILITY.md")
]
TEXTS += sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("name", ["cli.md", "eval.md", "api.md", "mcp.md"])
def test_reference_is_what_the_programs_say(name: str, generated: dict[str, str]) -> None:
    committed = (REFERENCE / name).read_text(encoding="utf-8")
    assert committed == generated[name], f"docs/reference/{name} is out of date; run: python -m docs.generate"


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMRETRIEVE_DATA", "elsewhere")  # pages do not depend on the machine
        return pages()


def test_check_names_the_page_that_is_out_of_date(
    generated: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("docs.generate.__main__.FOLDER", tmp_path)
    monkeypatch.setattr("docs.generate.__main__.pages", lambda: generated)
    assert main([]) == 0
    assert {file.name for file in tmp_path.iterdir()} == set(generated)
    assert main(["--check"]) == 0
    (tmp_path / "cli.md").write_text("# Command line\n", encoding="utf-8")
    assert main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/reference/cli.md is out of date; run: python -m docs.generate\n"


def test_an_option_without_help_is_refused() -> None:
    parser = argparse.ArgumentParser(prog="shop", description="Sells.")
    command = parser.add_subparsers().add_parser("buy", description="Buys.")
    command.add_argument("--price", help="the price | in euros (default: %(default)s)", default=3)
    assert "| `--price PRICE` | the price \\| in euros (default: 3). |" in "\n".join(command_blocks(parser))
    command.add_argument("item")
    with pytest.raises(UndocumentedError, match="shop buy: ITEM has no help"):
        list(command_blocks(parser))


def test_a_command_without_a_description_is_refused() -> None:
    parser = argparse.ArgumentParser(prog="shop", description="Sells.")
    parser.add_subparsers().add_parser("buy")
    with pytest.raises(UndocumentedError, match="shop buy has no description"):
        list(command_blocks(parser))


def test_a_parameter_without_a_description_is_refused() -> None:
    app = FastAPI()

    @app.get("/items", summary="List items")
    def items(limit: Annotated[int, Query(description="how many", ge=1, le=9)] = 3) -> None:
        """Listed."""

    assert "| `limit` | integer (1 to 9) | how many. Default: `3`. |" in "\n".join(api_blocks(app.openapi()))

    @app.get("/item", summary="One item")
    def item(id: str) -> None:
        """One."""

    app.openapi_schema = None
    with pytest.raises(UndocumentedError, match="GET /item: id has no description"):
        list(api_blocks(app.openapi()))


class PriceResponse(BaseModel):
    """A price."""

    euros: int


def test_a_field_of_a_response_without_a_description_is_refused() -> None:
    app = FastAPI()

    @app.get("/price", summary="The price")
    def price() -> PriceResponse:
        return PriceResponse(euros=3)

    with pytest.raises(UndocumentedError, match="PriceResponse: euros has no description"):
        list(api_blocks(app.openapi()))


@pytest.mark.parametrize("field", [{"type": "integer"}, {"type": "integer", "description": " "}])
def test_an_argument_of_a_tool_without_a_description_is_refused(field: dict[str, object]) -> None:
    schema = {"type": "object", "properties": {"k": field}, "additionalProperties": False}
    with pytest.raises(UndocumentedError, match="similar: k has no description"):
        list(tool_blocks([{"name": "similar", "description": "Finds.", "inputSchema": schema}]))


@pytest.mark.parametrize("name", mm.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = (REFERENCE / "python.md").read_text(encoding="utf-8")
    assert re.search(rf"^::: mmretrieve\.{name}$", page, re.MULTILINE)
    if name == "PUBLISHED":  # a dict; the docstring below it is read from the source
        return
    thing = getattr(mm, name)
    assert inspect.getdoc(thing), f"mmretrieve.{name} has no docstring"
    for member, value in vars(thing).items() if inspect.isclass(thing) else ():
        value = getattr(value, "__func__", value)
        if not member.startswith("_") and inspect.isfunction(value):
            assert inspect.getdoc(value), f"mmretrieve.{name}.{member} has no docstring"


def links(text: Path) -> Iterator[str]:
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from re.findall(r"\]\((?!https?:)([^)\s]+)\)", plain)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.relative_to(ROOT).as_posix())
def test_links_resolve(text: Path) -> None:
    for link in links(text):
        path, _, heading = link.partition("#")
        target = (text.parent / path).resolve() if path else text
        assert target.is_file(), f"{text.name}: {link}"
        assert target.is_relative_to(ROOT), f"{text.name}: {link}"
        if heading and not heading.startswith("mmretrieve."):
            assert heading in headings(target), f"{text.name}: {link}"


def headings(text: Path) -> set[str]:
    """The ids of a page's headings: their own, or made of their words."""
    return {
        given or anchor(words)
        for words, given in re.findall(r"^#+ (.*?)(?: \{ #([\w-]+) \})?$", text.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    for name in mm.__all__:
        assert f'id="mmretrieve.{name}"' in page, name
    for file in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', file.read_text(encoding="utf-8"))
        assert not fetched, f"{file.name} fetches {fetched}"


def test_short_sections_of_docstrings_become_long_ones() -> None:
    assert doctest.testmod(docstrings).failed == 0
    long = "Sums.\n\nParameters\n----------\na, b : float\n    The numbers.\n\nReturns\n-------\nfloat\n    a + b."
    assert docstrings.long_form(long) == long
    short = "Sums.\n\nParameters\n----------\na, b : the numbers: two,\n    or more.\nc : another one.\n\nReturns\n-------\nTheir sum."
    assert docstrings.long_form(short) == (
        "Sums.\n\n**Returns:** Their sum.\n\nParameters\n----------\na, b\n    the numbers: two, or more.\nc\n    another one."
    )
