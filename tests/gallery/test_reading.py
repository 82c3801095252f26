"""Reading never writes: whatever is asked of a gallery, no file of its folder appears, vanishes or changes."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_old_galleries import FIXTURES

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.vectors import unit


def contents(folder: Path) -> dict[str, str]:
    """File → digest of its bytes."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(params=["without an index", "with an index", "format 2"])
def folder(request: pytest.FixtureRequest, gallery: mm.Gallery, tmp_path: Path) -> Iterator[Path]:
    """The folder of a gallery, which may only be read."""
    gallery.delete(gallery.ids[:3])
    if request.param == "with an index":
        gallery.build_index("IVF4,SQ8")
    folder = gallery.path
    if request.param == "format 2":
        folder = Path(shutil.copytree(FIXTURES / "format2.gallery", tmp_path / "format2.gallery"))
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    folder.chmod(0o755)


def test_reading_changes_no_byte(folder: Path, encoder: mm.Encoder, tmp_path: Path) -> None:
    before = contents(folder)
    gallery = mm.Gallery.open(folder)
    query = Composition(("query",), unit(gallery.vectors()[:1] + 0.1), (1.0,))
    ranking = gallery.search(query, 5)
    assert len(ranking) == 5
    assert gallery.search(query, 5, where="width > 0", exclude=ranking.ids[:1]).ids[0] == ranking.ids[1]
    gallery.rank(query, gallery.term_scores(query))
    assert gallery.spread.mean.shape == (gallery.dim,)
    assert len(gallery.list_items(limit=4).items) == 4
    assert gallery.verify() == []
    assert gallery.info()["items"] == len(gallery) == len(gallery.ids)
    _ = gallery.vocabulary, gallery.duplicates(), gallery.duplicates(0.99), gallery.copies("nothing")
    gallery.thumbnail(gallery.ids[0])
    gallery.refresh()
    gallery.export(tmp_path / "exported")
    mm.Retriever.open(folder, encoder=encoder).search(prompt="a red coat", k=3)
    assert contents(folder) == before


def test_concurrent_readers_change_nothing(folder: Path) -> None:
    before = contents(folder)
    query = Composition(("query",), unit(mm.Gallery.open(folder).vectors()[:1]), (1.0,))
    shared, rankings = mm.Gallery.open(folder), []

    def search(gallery: mm.Gallery) -> None:
        rankings.append(gallery.search(query, 8))

    threads = [threading.Thread(target=search, args=(gallery,)) for gallery in (shared, shared, mm.Gallery.open(folder))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rankings[0] == rankings[1] == rankings[2]
    assert contents(folder) == before


def test_ids_after_writes_are_those_of_a_new_object(gallery: mm.Gallery) -> None:
    """An open gallery derives its ids from those of the version before."""
    expected = list(gallery.ids)
    rng = np.random.default_rng(3)
    for number in range(12):
        if number % 3:
            deleted = [expected[i] for i in sorted({0, int(rng.integers(len(expected))), len(expected) - 1})]
            gallery.delete(deleted)
            expected = [id_ for id_ in expected if id_ not in deleted]
        else:
            gallery.add_vectors([f"new {number}"], rng.normal(size=(1, gallery.dim)))
            expected.append(f"new {number}")
        if number % 4:
            assert gallery.ids == tuple(expected)
        assert len(gallery) == len(expected)
    assert mm.Gallery.open(gallery.path).ids == gallery.ids == tuple(expected)
    assert gallery.compact() > 0
    assert gallery.ids == tuple(expected)


def test_a_search_after_many_additions_covers_them(gallery: mm.Gallery) -> None:
    """The index in memory is made again once it lacks many rows; a few it lacks are scored beside it."""
    query = Composition(("query",), unit(gallery.vectors()[:1]), (1.0,))
    gallery.search(query, 3)
    first = gallery._view.index
    gallery.add_vectors(["few"], np.asarray(query.terms))
    assert "few" in gallery.search(query, 3).ids
    assert gallery._view.index is first
    gallery.add_vectors([f"many {i}" for i in range(90)], np.random.default_rng(5).normal(size=(90, gallery.dim)))
    gallery.search(query, 3)
    assert len(gallery._view.index) == len(gallery)
