"""A ledger that somebody else has edited: SQLite stores any type in any column. Everything that reads it says in one line that it is damaged."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live_server import served

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.files import LEDGER, SEAL
from mmretrieve.server.app import create_app
from mmretrieve.vectors import unit

TEXT, BYTES, HALF, NEGATIVE, HUGE = "'x'", "x'41ff'", "1.5", "-1", "9223372036854775807"
VALUES = {
    **dict.fromkeys(("id", "path", "part", "hash", "source", "stamp"), (BYTES, "x''")),
    **dict.fromkeys(("width", "height", "vector", "thumbnail", "thumbnail_at"), (TEXT, "''", BYTES, HALF, NEGATIVE, "9e999")),
    "thumbnail_size": (TEXT, BYTES, HALF, NEGATIVE, HUGE),
}
INDEX = {"epoch": 0, "rows": 6, "digest": "", "factory": "Flat", "reason": "", "trained": 6, "effort": {}}
WRONG_META = {
    **dict.fromkeys(("rows", "generation", "epoch", "thumbnail_bytes"), ("x", 1.5, -1, [], True, 10**30, float("inf"))),
    "dim": ("x", 1.5, -1, 0, 10**12, [], True),
    "fields": ([], "x", {"number": 3}, {"number": "no type"}),
    "title_field": (3, {"a": "b"}, True),
    "encoder": ([], {"model": "x"}, {"model": "x", "weights": 3, "preprocessing": "x"}),
    "index": ([], {}, INDEX | {"rows": "x"}, INDEX | {"digest": 3}, INDEX | {"rows": -1}, INDEX | {"effort": []}),
}
READS: dict[str, Callable[[mm.Gallery], object]] = {
    "items": lambda gallery: gallery.list_items().items,
    "item": lambda gallery: gallery.item(gallery.ids[2]),
    "info": lambda gallery: gallery.info(),
    "search": lambda gallery: gallery.search(gallery.vectors()[2], 6),
    "search with a filter": lambda gallery: gallery.search(gallery.vectors()[2], 6, where="number < 9"),
    "thumbnail": lambda gallery: [gallery.thumbnail(id_) for id_ in gallery.ids],
    "copies": lambda gallery: [gallery.copies(item.hash) for item in gallery.list_items().items],
    "duplicates": lambda gallery: [gallery.duplicates(), gallery.duplicates(0.5)],
    "vocabulary": lambda gallery: gallery.vocabulary,
    "verify": lambda gallery: gallery.verify(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder) -> Path:
    """A gallery with fields, not to be written to."""
    path = tmp_path_factory.mktemp("wrong") / "g"
    vectors = unit(np.random.default_rng(0).normal(size=(6, encoder.dim)))
    fields = [{"number": i, "name": f"the name {i}"} for i in range(6)]
    mm.Gallery.create(path, encoder=encoder).add_vectors([f"item {i}" for i in range(6)], vectors, fields=fields)
    return path


def edited(whole: Path, tmp_path: Path, statement: str, *values: object) -> Path:
    """A copy after a statement of SQL. It has no seal, which would tell that it was edited."""
    path = Path(shutil.copytree(whole, tmp_path / "edited"))
    (path / SEAL).unlink()
    with closing(sqlite3.connect(path / LEDGER)) as db, db:
        db.execute(statement, values)
    return path


def refusals(path: Path) -> list[str]:
    """The lines with which reads refuse the gallery. Raises what is not of the family of errors."""
    lines = []
    try:
        gallery = mm.Gallery.open(path, device="cpu")
    except GalleryError as error:
        return [str(error)]
    for read in READS.values():
        try:
            read(gallery)
        except GalleryError as error:
            lines.append(str(error))
        except mm.MMRetrieveError:
            continue
    return lines


@pytest.mark.parametrize(("column", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_a_column_of_another_type_is_damage(whole: Path, tmp_path: Path, column: str, value: str) -> None:
    path = edited(whole, tmp_path, f"UPDATE items SET {column} = {value} WHERE row = 2")
    lines = refusals(path)
    assert any("the gallery is damaged" in line for line in lines), lines
    assert not [line for line in lines if "\n" in line]
    assert mm.Gallery.open(path, device="cpu").list_items(limit=2).items[1].id == "item 1"  # the others are read


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fields SET number = x'41ff' WHERE _row = 2", "UPDATE fields SET name = x'' WHERE _row = 2",
        "UPDATE items SET row = -1 WHERE row = 2", "UPDATE items SET row = 100 WHERE row = 2",
        "UPDATE items SET row = 100, died = 1 WHERE row = 2", "UPDATE items SET row = -1, died = 1 WHERE row = 2",
        "UPDATE items SET died = -1 WHERE row = 2", "DELETE FROM items", "DROP TABLE fields", "DELETE FROM meta WHERE key = 'rows'",
        "UPDATE items SET seal = 9e999 WHERE row = 2", "UPDATE meta SET value = x'41ff' WHERE key = 'encoder'",
    ],
)  # fmt: skip
def test_rows_that_were_not_committed_are_damage(whole: Path, tmp_path: Path, statement: str) -> None:
    lines = [
        *refusals(path := edited(whole, tmp_path, statement)),
        *(mm.Gallery.open(path).verify() if "meta" not in statement and "died = 1" not in statement else ()),
    ]
    assert lines
    assert not [line for line in lines if "\n" in line]


FORMAT_1 = {
    **{f"items.{name}": values for name, values in VALUES.items() if name in ("id", "path", "hash", "width", "height")},
    "items.checksum": VALUES["vector"],
    "items.row": ("-1", "100", "9223372036854775806"),
    **{f"meta.{name}": map(json.dumps, values) for name, values in WRONG_META.items() if name in ("rows", "generation", "dim", "encoder")},
    "meta.rows, fewer": ("3",),
    "meta.rows, more": ("16", "100000"),
}  # fmt: skip


@pytest.mark.parametrize(("what", "value"), [(what, value) for what, values in FORMAT_1.items() for value in values])
def test_a_wrong_value_in_format_1_is_damage(tmp_path: Path, what: str, value: str) -> None:
    path = Path(shutil.copytree(Path(__file__).parent / "fixtures" / "format1.gallery", tmp_path / "edited"))
    table, name = what.split(",")[0].split(".")
    with closing(sqlite3.connect(path / LEDGER)) as db, db:
        if table == "items":
            db.execute(f"UPDATE items SET {name} = {value} WHERE row = 2")
        else:
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, name))
    lines = refusals(path)
    assert any("the gallery is damaged" in line for line in lines), lines
    assert not [line for line in lines if "\n" in line]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_META.items() for value in values])
def test_metadata_of_another_type_are_damage(whole: Path, tmp_path: Path, key: str, value: Any) -> None:
    statement = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
    lines = refusals(edited(whole, tmp_path, statement, key, json.dumps(value)))
    assert any("damaged" in line or "cannot be read" in line for line in lines), lines
    assert not [line for line in lines if "\n" in line]


def test_a_server_and_a_shell_say_that_the_gallery_is_damaged(
    whole: Path, tmp_path: Path, encoder: mm.Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = edited(whole, tmp_path, "UPDATE items SET width = 'x', path = x'41ff' WHERE row = 2")
    with served(create_app(mm.Retriever.open(path, encoder=encoder))) as link:
        for answer in (
            httpx.get(f"{link}/api/items"),
            httpx.get(f"{link}/api/item", params={"id": "item 2"}),
            httpx.get(f"{link}/api/image", params={"id": "item 2"}),
            httpx.post(f"{link}/api/search", json={"prompt": "in red", "k": 6}),
        ):
            assert answer.status_code == 500
            assert "the gallery is damaged" in answer.json()["error"]
        assert httpx.get(f"{link}/api/item", params={"id": "item 1"}).status_code == 200
        assert len(httpx.get(f"{link}/api/items", params={"limit": 2}).json()["items"]) == 2
    assert main(["search", str(path), "--prompt", "in red", "-k", "6"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the gallery is damaged" in line


def test_a_dimension_that_is_not_the_encoders_is_damage(whole: Path, tmp_path: Path, encoder: mm.Encoder) -> None:
    path = edited(whole, tmp_path, "UPDATE meta SET value = '64' WHERE key = 'dim'")
    with pytest.raises(GalleryError, match=r"its vectors have 64 numbers, those of its encoder 128: the gallery is damaged"):
        mm.Retriever.open(path, encoder=encoder)
