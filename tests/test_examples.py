"""The examples run, and print what their last lines say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
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


def words(line: str) -> list[object]:
    """The words of a line. Its numbers may differ a little, because processors round differently: percentages, which have one
    decimal, by a query of 50; scores by a hundredth.
    """
    return [number(word) if NUMBER.fullmatch(word) else word for word in re.split(r"[\s():]+", line.strip())]


def number(word: str) -> object:
    is_share = len(word.partition(".")[2]) == 1
    return pytest.approx(float(word), abs=2.1 if is_share else 0.0101)
