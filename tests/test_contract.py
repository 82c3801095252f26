"""One contract for every home of a gallery: plain numpy, a folder with FAISS, a Milvus server, and that server after a kill −9."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ColourEncoder
from milvus_server import LiteServer

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError, VectorError
from mmretrieve.filters import Expression, read_filter
from mmretrieve.filters.sqlite import to_text
from mmretrieve.gallery import search
from mmretrieve.gallery.store.records import Item
from mmretrieve.gallery.view import CandidateFilter, Rows, SearchOptions
from mmretrieve.milvus.transfer import push
from mmretrieve.rules import make_rule
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.sources.location import Location
from mmretrieve.vectors import unit

ITEMS, DIM = 1_200, ColourEncoder.dim
COLOURS = ("red", "blue", "dark green", None)


def vectors() -> np.ndarray:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(20, DIM))[rng.integers(20, size=ITEMS)] + 0.4 * rng.normal(size=(ITEMS, DIM))
    rows[300:360] = rows[299]  # sixty-one that are equal
    return unit(rows).astype(np.float16)


def fields(i: int) -> dict[str, Any]:
    colour = COLOURS[i % len(COLOURS)]
    return {"n": i, "tenth": i % 10, "hundredth": i % 100, "price": i / 4} | ({} if colour is None else {"colour": colour})


DELETED = range(0, ITEMS, 9)
IDS = [f"item {i:04}" for i in range(ITEMS)]


class Numpy:
    """The specification: everything in memory, every score worked out, SQLite over a table of the fields."""

    name = "numpy"

    def __init__(self) -> None:
        self.dim = DIM
        self.rows: Rows = np.setdiff1d(np.arange(ITEMS), DELETED)
        self._unit = unit(vectors())
        self._table = sqlite3.connect(":memory:")
        self._table.execute(
            "CREATE TABLE items (row INTEGER, id TEXT, n INTEGER, price REAL, colour TEXT, tenth INTEGER, hundredth INTEGER)"
        )
        for i in self.rows.tolist():
            values = fields(i)
            self._table.execute(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)",
                (i, IDS[i], i, values["price"], values.get("colour"), i % 10, i % 100),
            )

    def __len__(self) -> int:
        return len(self.rows)

    def rows_of(self, ids: Collection[str]) -> Rows:
        rows = {IDS[row]: row for row in self.rows}
        if absent := [id_ for id_ in ids if id_ not in rows]:
            raise GalleryError(f"numpy: no item {absent[0]!r} in this gallery")
        return np.array([rows[id_] for id_ in ids], dtype=np.int64)

    def matching(self, where: Expression | None) -> CandidateFilter:
        matches = self._table.execute(f"SELECT row FROM items WHERE {to_text(where) if where else '1'} ORDER BY row").fetchall()
        return CandidateFilter.of(np.array([row for (row,) in matches], dtype=np.int64), len(matches), len(self))

    def without(self, allowed: CandidateFilter, rows: Rows) -> CandidateFilter:
        remaining = np.setdiff1d(allowed.selection, rows)
        return allowed.narrowed(remaining, len(remaining))

    def rows_allowed(self, allowed: CandidateFilter) -> Rows:
        rows: Rows = allowed.selection
        return rows

    def candidates(self, queries_qd: np.ndarray, k: int, allowed: CandidateFilter) -> list[Rows]:  # noqa: ARG002 - all of them
        return [self.rows_allowed(allowed)] * len(queries_qd)

    def scores(self, vectors_qd: np.ndarray, rows: Rows) -> np.ndarray:
        return term_scores(vectors_qd, self._unit[rows])

    def approximate_scores(self, vectors_qd: np.ndarray, rows: Rows) -> np.ndarray:
        return self.scores(vectors_qd, rows)

    def ids_and_paths(self, rows: Rows) -> list[tuple[str, str]]:
        return [(item.id, item.path) for item in self.items_of(rows)]

    def items_of(self, rows: Rows) -> list[Item]:
        return [Item(IDS[row], Location(IDS[row]), "", fields=fields(row)) for row in rows.tolist()]


class NumpyGallery:
    """What the tests ask of a gallery, answered by the specification."""

    def __init__(self) -> None:
        self._view = Numpy()
        self.ids = tuple(IDS[row] for row in self._view.rows)

    def __len__(self) -> int:
        return len(self._view)

    def vectors(self, ids: Collection[str] | None = None) -> np.ndarray:
        return self._view._unit[self._view.rows if ids is None else self._view.rows_of(ids)]

    def item(self, id_: str) -> Item:
        return self._view.items_of(self._view.rows_of([id_]))[0]

    def term_scores(self, composition: Composition) -> np.ndarray:
        return search.term_scores(self._view, composition, self._view.rows)

    def search(
        self,
        composition: Composition,
        k: int = 10,
        *,
        exclude: Collection[str] = (),
        where: str | None = None,
        min_score: float | None = None,
    ) -> mm.Ranking:
        return search.search(self._view, composition, SearchOptions(k, exclude, min_score, read_filter(where)))

    def rank(self, composition: Composition, scores: np.ndarray, options: SearchOptions) -> mm.Ranking:
        return search.rank(self._view, composition, scores, self._view.rows, options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("contract") / "g", encoder=ColourEncoder(), setting=mm.PDV(beta=0.5))
    gallery.add_vectors(IDS, vectors(), fields=[fields(i) for i in range(ITEMS)])
    gallery.delete([IDS[i] for i in DELETED])
    return gallery.path


def on_server(folder: Path, server: LiteServer, collection: str) -> mm.Gallery:
    push(folder, server.address(collection))
    return mm.open_gallery(server.address(collection))


def after_a_kill(folder: Path, server: LiteServer) -> mm.Gallery:
    push(folder, server.address("killed"))
    server.kill()
    server.start()
    return mm.open_gallery(server.address("killed"))


GALLERIES: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "numpy": lambda _: NumpyGallery(),
    "folder": lambda request: mm.open_gallery(request.getfixturevalue("folder")),
    "milvus": lambda request: on_server(request.getfixturevalue("folder"), request.getfixturevalue("milvus"), "contract"),
    "milvus, killed": lambda request: after_a_kill(request.getfixturevalue("folder"), request.getfixturevalue("milvus")),
}


@pytest.fixture(scope="module", params=GALLERIES)
def gallery(request: pytest.FixtureRequest) -> Iterator[Any]:
    return GALLERIES[request.param](request)


def query(near: int, noise: float = 0.1) -> Composition:
    rng = np.random.default_rng(near)
    return Composition(("query",), unit((unit(vectors())[near] + noise * rng.normal(size=DIM))[None]), (1.0,))


def expected(composition: Composition, keep: Callable[[int], bool], k: int) -> list[tuple[str, float]]:
    rows = [i for i in range(ITEMS) if i not in set(DELETED) and keep(i)]
    if not rows:
        return []
    totals = composition.contributions(term_scores(composition.terms, unit(vectors())[rows])).sum(axis=0)
    return [(IDS[rows[i]], float(totals[i])) for i in top_k(totals, k)]


def pairs(ranking: mm.Ranking) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in ranking]


FILTERS: dict[str | None, Callable[[int], bool]] = {
    None: lambda _: True,
    "n >= 0": lambda _: True,
    "tenth = 3": lambda i: i % 10 == 3,
    "hundredth = 3": lambda i: i % 100 == 3,
    "n = 1003": lambda i: i == 1003,
    "n < 0": lambda _: False,
    "colour = 'red'": lambda i: i % 4 == 0,
    "colour IN ('blue', 'dark green') AND NOT price > 100": lambda i: i % 4 in (1, 2) and i / 4 <= 100,
    "colour IS NULL OR n BETWEEN 10 AND 20": lambda i: i % 4 == 3 or 10 <= i <= 20,
    "colour LIKE 'DARK%'": lambda i: i % 4 == 2,
    "colour <> 'red'": lambda i: i % 4 in (1, 2),
}


@pytest.mark.parametrize("where", FILTERS)
def test_rankings_are_exact_under_any_filter(gallery: Any, where: str | None) -> None:
    for near, k in ((7, 1), (300, 10), (300, 70), (1100, 25)):
        ranking = gallery.search(query(near), k, where=where)
        assert pairs(ranking) == expected(query(near), FILTERS[where], k)
        count = sum(FILTERS[where](i) for i in range(ITEMS) if i not in set(DELETED))
        assert ranking.searched == count
        assert sum(ranking.hidden.values()) == len(gallery) - count


def test_ties_stay_in_order_of_insertion(gallery: Any) -> None:
    equal = [IDS[i] for i in range(299, 360) if i not in set(DELETED)]
    composition = Composition(("query",), unit(vectors())[299:300], (1.0,))
    for k in (1, 10, 40, 53):
        assert gallery.search(composition, k).ids == tuple(equal[:k])


def test_excluded_items_and_items_below_min_score_do_not_appear(gallery: Any) -> None:
    whole = gallery.search(query(7), 30)
    exclude = whole.ids[:5]
    ranking = gallery.search(query(7), 20, exclude=exclude)
    assert pairs(ranking) == pairs(whole)[5:25]
    assert ranking.hidden == {"excluded": 5}
    part = gallery.search(query(7), 30, min_score=whole[9].score)
    assert pairs(part) == pairs(whole)[:10]
    assert part.note == f"10 of the 30 asked for: the others score below {whole[9].score:g}"


def test_rank_of_term_scores_equals_search(gallery: Any) -> None:
    terms = unit(unit(vectors())[[5, 900, 1100]] + 0.05)
    base = Composition(("image", "text", "composed"), terms, (0.0, 0.0, 1.0))
    scores = gallery.term_scores(base)
    assert scores.shape == (3, len(gallery))
    np.testing.assert_array_equal(scores, term_scores(terms, gallery.vectors()))
    for setting in (mm.PDV(), mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75), mm.PDV(beta=0)):
        for where in (None, "tenth = 3"):
            weighed = base.with_pdv(setting)
            options = SearchOptions(15, where=read_filter(where))
            assert gallery.rank(weighed, scores, options) == gallery.search(weighed, 15, where=where)
    hinge = Composition(("text", "composed"), terms[:2], (0.0, 1.0)).with_rule(make_rule("hinge"))
    assert pairs(gallery.search(hinge, 15)) == expected(hinge, lambda _: True, 15)


def test_a_k_above_the_number_of_matches_returns_all_with_a_note(gallery: Any) -> None:
    ranking = gallery.search(query(7), ITEMS + 5, where="hundredth = 3")
    assert pairs(ranking) == expected(query(7), lambda i: i % 100 == 3, ITEMS)
    hidden = len(gallery) - len(ranking)
    assert (
        ranking.note
        == f"{len(ranking)} of the {ITEMS + 5} asked for: the gallery has no others ({hidden} hidden by the filter)"
    )


def test_stored_items_are_read_back(gallery: Any) -> None:
    assert gallery.ids == tuple(IDS[i] for i in range(ITEMS) if i not in set(DELETED))
    some = [IDS[1123], IDS[5]]
    np.testing.assert_array_equal(gallery.vectors(some), unit(vectors()[[1123, 5]]))
    assert gallery.item(IDS[5]).fields == fields(5)
    with pytest.raises(GalleryError, match="no item 'nobody' in this gallery"):
        gallery.search(query(7), 3, exclude=["nobody"])
    with pytest.raises(GalleryError, match=f"no item '{IDS[0]}'"):
        gallery.vectors([IDS[0]])
    with pytest.raises(OptionError, match="k must be"):
        gallery.search(query(7), 0)
    with pytest.raises((GalleryError, VectorError), match="dimensions"):
        gallery.search(Composition(("query",), unit(np.ones((1, 3))), (1.0,)), 3)
