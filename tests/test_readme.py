"""The README tells the truth: its Python runs, its commands parse, its files exist."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from benchmarks import growth, million
from eval.cli.main import make_parser as make_eval_parser
from mmretrieve.cli.main import make_parser
from mmretrieve.composer_input import ComposerInput
from mmretrieve.vectors import unit

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(ROOT.glob("*.md"))  # those in docs/ are checked by `make docs`
PAGES = [TEXT, *(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").rglob("*.md")))]
RUN = [
    TEXT,
    *(
        (ROOT / "docs" / name).read_text(encoding="utf-8")
        for name in ("index.md", "getting-started.md", "guides/searching.md", "guides/gallery.md")
    ),
]
BLOCKS = [block for text in RUN for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
COMMANDS = [command for text in PAGES for command in re.findall(r"^    (mmretrieve .*)$", text, re.MULTILINE)]
TOPS = ("mmretrieve", "eval", "demo", "benchmarks", "deploy", "examples", "docs", "tests")
EVALUATIONS = [command for text in PAGES for command in re.findall(r"^    (python -m eval .*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    if "ranking" in names:
        printed = capsys.readouterr().out.splitlines()
        assert [line.lstrip("(").split()[0].rstrip(",") for line in printed[-5:]] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("benchmark", [million, growth], ids=["million", "growth"])
def test_the_tables_of_galleries_are_what_was_measured(benchmark: Any) -> None:
    name = benchmark.__name__.rpartition(".")[2]
    result = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert benchmark.table(result) in (ROOT / "docs" / "guides" / "gallery.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", EVALUATIONS)
def test_evaluation_commands_parse(command: str) -> None:
    assert callable(make_eval_parser().parse_args(shlex.split(command)[3:]).command)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    assert callable(make_parser().parse_args(shlex.split(command)[1:]).run)


def test_the_composer_of_the_contributors_guide_works(
    encoder: mm.Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CONTRIBUTING shows is a whole composer, of the size it says."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "paraphrased.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    composer = importlib.import_module("paraphrased").Paraphrased(encoder)
    assert len(block.splitlines()) <= 60
    rows = encoder.encode_texts(["in red", "a photo of it in red", "the same, in red"])
    one = composer.compose([ComposerInput(np.eye(128, dtype=np.float32)[0], "in red")])[0]
    np.testing.assert_allclose(one["prompt"], unit([rows.mean(axis=0)])[0], atol=1e-5)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    """A link in a document leads to a file, and to a heading of it where it names one."""
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        target = document.parent / name if name else document
        assert target.is_file(), link
        assert not heading or heading in headings(target), link


def headings(document: Path) -> set[str]:
    """The headings of a document as links name them: lower case, hyphens for spaces, no other signs."""
    lines = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_named_files_exist(name: str) -> None:
    """Every Python file and every folder of the repository that a document names in backticks exists."""
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`([\w./-]+(?:\.py|/))`", text)
    assert len(paths) >= 20
    files = [path.relative_to(ROOT).as_posix() for top in TOPS for path in (ROOT / top).rglob("*")]
    folders = [f"{path}/" for path in (*TOPS, *files) if (ROOT / path).is_dir()]
    for path in paths:
        assert any(f"/{existing}".endswith(f"/{path}") for existing in (*files, *folders)), f"{name} names {path}"


def test_there_is_something_to_check() -> None:
    """The patterns of this module still fit the documents: a test without cases would be skipped, and pass."""
    assert len(BLOCKS) >= 5
    assert len(COMMANDS) >= 30
    assert len(EVALUATIONS) >= 9


def test_make_has_the_targets_that_are_named() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^    |`)make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert len(TEXT.splitlines()) <= 200


def test_the_first_search_of_own_photographs_is_four_commands_away() -> None:
    block = re.search(r"## Search your own photographs\n\n((?:    .*\n)+)", TEXT)
    assert block is not None
    commands = block[1].split("\n    ")
    first = next(i for i, command in enumerate(commands, start=1) if "mmretrieve search" in command)
    assert first <= 4


def test_the_glossary_is_short() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    glossary = text[text.index("## Glossary") : text.index("## Decisions")]
    assert len(glossary.strip().splitlines()) <= 40
