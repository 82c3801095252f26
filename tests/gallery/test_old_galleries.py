"""Galleries of every format that can be read open, rank as they did, verify, and are migrated by the first write.

`fixtures/format2.gallery` was made by commit 8b87311 (version 0.1), `fixtures/format3.gallery` by 3ae8dd5, the first that wrote format 3,
`fixtures/format3-chosen.gallery` by 57d8e9f, with a field of titles and a vocabulary. `record_gallery.py` made the last two, and makes the
next. The JSON file beside each gallery holds what that commit answered. `fixtures/format1.gallery` is of a day before version 0.1 (0b741ff):
it is refused, with what to do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError
from mmretrieve.gallery.store.ledger import FORMAT, Ledger
from mmretrieve.vectors import unit

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(params=["format2", "format3", "format3-chosen"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(FIXTURES / f"{name}.gallery", tmp_path / f"{name}.gallery"))


@pytest.fixture
def answers(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    return recorded


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rankings(gallery: mm.Gallery, answers: dict[str, Any]) -> list[dict[str, Any]]:
    """What the gallery answers to the recorded queries, in the recorded form."""
    results = []
    for one in answers["rankings"]:
        composition = Composition(("image", "text", "composed"), unit(one["terms"]), (0.0, 0.0, 1.0)).with_pdv(
            gallery.setting or mm.PDV()
        )
        hits = {
            where: [[hit.id, hit.score, dict(hit.contributions)] for hit in gallery.search(composition, 5, where=where or None)]
            for where in one["hits"]
        }
        results.append({"terms": one["terms"], "hits": hits})
    return results


def test_an_old_gallery_gives_the_same_rankings(old: Path, answers: dict[str, Any]) -> None:
    before = contents(old)
    gallery = mm.Gallery.open(old)
    assert gallery.verify() == []
    assert gallery.ids == tuple(answers["ids"])
    for id_, recorded in answers["items"].items():
        item = gallery.item(id_)
        assert {"path": item.path, "hash": item.hash, "fields": item.fields} == recorded
        assert gallery.thumbnail(id_).startswith(b"\xff\xd8")
    assert {name: gallery.info()[name] for name in answers["info"]} == answers["info"]
    assert rankings(gallery, answers) == answers["rankings"]
    assert contents(old) == before


def test_an_old_gallery_can_be_written_and_verified(old: Path, answers: dict[str, Any]) -> None:
    gallery = mm.Gallery.open(old)
    gallery.add_vectors(["new"], -gallery.vectors()[:1], fields=[{"price": 1_000}])
    assert gallery.verify() == []
    again = mm.Gallery.open(old)
    assert again.verify() == []
    assert again.ids == (*answers["ids"], "new")
    again.delete(["new"])
    assert rankings(again, answers) == answers["rankings"]
    assert again.compact() == 3
    assert (again.verify(), again.ids) == ([], tuple(answers["ids"]))
    again.build_index("Flat")
    assert rankings(mm.Gallery.open(old), answers) == answers["rankings"]


def test_the_current_format_has_a_fixture() -> None:
    formats = {Ledger(path / "gallery.sqlite").meta()["format"] for path in FIXTURES.glob("*.gallery")}
    assert formats == set(range(1, FORMAT + 1)), "record one with record_gallery.py before the format changes"


def test_a_gallery_from_before_version_0_1_is_refused_with_what_to_do(tmp_path: Path) -> None:
    oldest = Path(shutil.copytree(FIXTURES / "format1.gallery", tmp_path / "format1.gallery"))
    before = contents(oldest)
    with pytest.raises(GalleryError, match=r"gallery format 1, this version reads formats 2 and 3; index again$"):
        mm.Gallery.open(oldest)
    assert contents(oldest) == before
