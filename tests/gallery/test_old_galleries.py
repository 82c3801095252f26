"""A gallery written by version 0.1 (format 2) opens, ranks as it did, verifies, and is migrated by the first write.

`fixtures/format2.gallery` was made by commit 8b87311: twelve drawings of the wardrobe with fields and an `IVF2,SQ8` index, one
item deleted, one replaced. `fixtures/format2.json` holds what that commit answered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.vectors import unit

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "format2.gallery", tmp_path / "format2.gallery"))


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((FIXTURES / "format2.json").read_text(encoding="utf-8"))
    return recorded


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
    gallery = mm.Gallery.open(old)
    assert gallery.verify() == []
    assert gallery.ids == tuple(answers["ids"])
    for id_, recorded in answers["items"].items():
        item = gallery.item(id_)
        assert {"path": item.path, "hash": item.hash, "fields": item.fields} == recorded
        assert gallery.thumbnail(id_).startswith(b"\xff\xd8")
    assert {name: gallery.info()[name] for name in answers["info"]} == answers["info"]
    assert rankings(gallery, answers) == answers["rankings"]


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
