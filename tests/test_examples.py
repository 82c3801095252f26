"""The examples run: scripts print what their last lines say, and the notebook shows what is stored in it."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mmretrieve as mm

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
pytestmark = pytest.mark.slow
PRINTS = "\n# prints:\n"
NUMBER = re.compile(r"[+-]?\d+\.\d+")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path)])
    _, _, expected = path.read_text(encoding="utf-8").partition(PRINTS)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out.rstrip("\n").splitlines()
    said = [line.removeprefix("#") for line in expected.rstrip("\n").splitlines()]
    assert said
    assert list(map(words, printed)) == [words(line) for line in said]


def test_the_notebook_shows_what_is_stored_in_it() -> None:
    mm.wardrobe.gallery_folder()  # drawn before the kernel runs, whose cells have a limit of time
    notebook = nbformat.read(FOLDER / "notebook.ipynb", as_version=4)
    stored = results(notebook)
    assert len(stored) >= 6
    assert all("text/html" in data for data in stored)
    NotebookClient(notebook, timeout=120).execute()
    computed = results(notebook)
    assert [plain_words(data) for data in computed] == [plain_words(data) for data in stored]
    assert [data["text/html"].count("<img") for data in computed] == [data["text/html"].count("<img") for data in stored]


def results(notebook: nbformat.NotebookNode) -> list[dict[str, str]]:
    """What the cells of a notebook show, by media type."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output["data"] for output in outputs if output.output_type == "execute_result"]


def plain_words(data: dict[str, str]) -> list[object]:
    """The words of a result as text, without the folder of a gallery."""
    return [word for word in words(data["text/plain"]) if not str(word).startswith("/")]


def words(line: str) -> list[object]:
    """The words of a line. Its numbers may differ a little, because processors round differently: percentages, which have one
    decimal, by a query of 50; scores by a hundredth.
    """
    return [number(word) if NUMBER.fullmatch(word) else word for word in re.split(r"[\s():]+", line.strip())]


def number(word: str) -> object:
    is_share = len(word.partition(".")[2]) == 1
    return pytest.approx(float(word), abs=2.1 if is_share else 0.0101)
