"""JSON that is nested too deeply, in every file that a stranger may have made: one line, which names the file."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import mmretrieve as mm
from eval.files import read_json
from eval.lists.files import read_lists
from eval.runs.records import read_record
from mmretrieve.gallery import transfer
from mmretrieve.gallery.store.files import LEDGER, SEAL
from mmretrieve.language.files import FileCaptioner
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests" / "gallery" / "fixtures" / "format3.gallery"
DEEP = "[" * 100_000


def rows(path: Path) -> list[str]:
    """The reasons of the rows of a source that were not read."""
    return [item.reason for item in mm.read_source(path) if not hasattr(item, "location")]


def archive(path: Path) -> object:
    with tarfile.open(path, "w") as tar:
        for name, data in (("a.png", b"an image"), ("a.json", DEEP.encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return rows(path)


def answers(path: Path) -> object:
    AnswerCache(path).put("task", "model", {"key": 1}, "an answer")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE answers SET answer = ?", (DEEP,))
    return list(AnswerCache(path).answers("task"))


def ledger(path: Path) -> object:
    shutil.copytree(FIXTURE, path)
    (path / SEAL).unlink()
    with closing(sqlite3.connect(path / LEDGER)) as db, db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('encoder', ?)", (DEEP,))
    return mm.Gallery.open(path)


def export(path: Path) -> object:
    path.mkdir()
    (path / transfer.MANIFEST).write_text(DEEP)
    return transfer.read_manifest(path)


def written(read: Callable[[Path], object], text: str = DEEP) -> Callable[[Path], object]:
    def run(path: Path) -> object:
        path.write_text(text)
        return read(path)

    return run


READERS: dict[str, Callable[[Path], object]] = {
    "items.jsonl": written(rows, f'{{"id": "a", "image": "a.png", "f": {DEEP}}}\n'),
    "items.json": written(rows),
    "images.tar": archive,
    "exported": export,
    "some.gallery": ledger,
    "captions.json": written(FileCaptioner.read),
    "captions.jsonl": written(FileCaptioner.read),
    "vocabulary.json": written(Vocabulary.read),
    "answers.jsonl": written(AnswerCache, '{"task": "caption", "model": "m", "asked": {}, "said": ' + DEEP + "}\n"),
    "answers.sqlite": answers,
    "annotations.json": written(read_json),
    "lists.json": written(read_lists),
    "record.json": written(read_record),
}


@pytest.mark.parametrize("name", READERS)
def test_json_that_is_nested_too_deeply_names_its_file(name: str, tmp_path: Path) -> None:
    try:
        lines = READERS[name](tmp_path / name)
    except mm.MMRetrieveError as error:
        lines = [str(error)]
    assert isinstance(lines, list)
    assert lines
    for line in lines:
        assert name in line or (name == "images.tar" and line.startswith("a.json: "))  # a member of the source that is read
        assert "\n" not in line


def test_json_is_parsed_in_one_place() -> None:
    """`json.loads` raises a RecursionError, which no reader expects."""
    allowed = {
        "mmretrieve/options.py",
        "mmretrieve/language/tokens.py",
        "eval/report/published.py",
    }  # the last read our own files
    for path in (*(ROOT / "mmretrieve").rglob("*.py"), *(ROOT / "eval").rglob("*.py")):
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"json.loads", "json.load"} or str(path.relative_to(ROOT)) in allowed, path


def test_other_errors_keep_their_position() -> None:
    with pytest.raises(json.JSONDecodeError, match="line 2 column 1"):
        mm.options.load_json("[1,\nx]")
