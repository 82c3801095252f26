"""What a search asks of its index, and which rows it then scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmretrieve.gallery.candidates import MAX_SCORED_ROWS, _is_in, find_candidates


class Ordered:
    """An index that proposes rows 0, 1, 2, … to a query 0, and rows from `query` on to any other. It notes what was asked."""

    def __init__(self, size: int, max_k: int | None = None, *, can_select: bool = False) -> None:
        self.size, self.max_k, self.can_select = size, max_k, can_select
        self.selected: np.ndarray | None = None
        self.asked: list[tuple[int, int]] = []  # queries, k
        self.widened: list[float] = []

    def __len__(self) -> int:
        return self.size

    def wider(self, factor: float) -> Ordered:
        self.widened.append(factor)
        return self

    def among(self, rows: np.ndarray) -> Ordered:
        self.selected = rows
        return self

    def search(self, queries: np.ndarray, k: int) -> list[np.ndarray]:
        self.asked.append((len(queries), k))
        if self.selected is not None:
            return [self.selected[self.selected >= int(first)][:k] for first in queries[:, 0]]
        return [np.arange(int(first), min(int(first) + k, self.size)) for first in queries[:, 0]]


def candidates(index: Ordered, rows: Any, *, k: int = 5, excluded: int = 0, live: int, queries: Any = (0,)) -> list[int]:
    found = find_candidates(index, np.array(queries, np.float32)[:, None], k, np.asarray(rows), excluded, live)  # type: ignore[arg-type]
    assert len(found) == len(queries)
    return sorted({int(row) for of_query in found for row in of_query})


def test_an_index_is_asked_for_the_excluded_and_the_deleted_too() -> None:
    index = Ordered(100)
    assert candidates(index, range(100), excluded=2, live=100) == list(range(7))
    assert candidates(index, range(0, 100, 2), live=50) == [0, 2, 4, 6, 8]  # half is deleted, so ten are asked for
    assert candidates(index, range(0, 100, 2), excluded=2, live=50) == [0, 2, 4, 6, 8, 10, 12]  # ceil(7 / 0.52) = 14
    assert index.asked == [(1, 7), (1, 10), (1, 14)]
    assert index.widened == [7 / 5, 10 / 5, 14 / 5]


def test_only_queries_without_enough_rows_are_searched_again() -> None:
    index = Ordered(100)
    assert candidates(index, range(20, 100), live=80, queries=(0, 40)) == [*range(20, 28), *range(40, 47)]
    assert index.asked == [(2, 7), (1, 28)]


@pytest.mark.parametrize(
    ("max_k", "asked"), [(None, [50, 200, 800]), (800, [50, 200, 800]), (799, [50, 200]), (200, [50, 200])]
)
def test_an_index_that_proposes_too_few_is_given_up(max_k: int | None, asked: list[int]) -> None:
    index = Ordered(10_000, max_k)
    rows = range(9_000, 10_000)
    assert candidates(index, rows, live=1_000) == list(rows)
    assert [k for _, k in index.asked] == asked


def test_an_index_is_never_asked_for_more_than_it_has() -> None:
    index = Ordered(6)
    assert candidates(index, range(6), k=5, excluded=4, live=6) == list(range(6))
    assert index.asked == []  # nine of six: every row is scored


@pytest.mark.parametrize(
    ("count", "live", "is_asked"),
    [
        (5, 5, False),  # no more than k
        (6, 6, True),
        (MAX_SCORED_ROWS, 5_000, False),
        (MAX_SCORED_ROWS + 1, 5_000, True),
        (MAX_SCORED_ROWS, MAX_SCORED_ROWS, True),  # no filter
        (2_000, 200_000, False),  # a hundredth of the gallery
        (2_001, 200_000, True),
    ],
)
def test_few_rows_that_pass_a_filter_are_all_scored(count: int, live: int, is_asked: bool) -> None:
    index = Ordered(live)
    assert candidates(index, range(count), live=live)[:5] == list(range(5))
    assert bool(index.asked) is is_asked


@pytest.mark.parametrize(("step", "is_selected"), [(2, False), (3, True), (50, True)])
def test_an_index_is_limited_to_a_third_of_the_rows_or_fewer(step: int, is_selected: bool) -> None:
    index = Ordered(300_000, can_select=True)
    rows = range(0, 300_000, step)
    found = candidates(index, rows, excluded=0, live=300_000, queries=(0, 6_000))
    assert found == ([*rows[:5], *rows[6_000 // step :][:5]] if is_selected else [*range(0, 10, 2), *range(6_000, 6_010, 2)])
    assert (index.selected is not None, index.asked) == (is_selected, [(2, 5 if is_selected else 10)])


def test_rows_that_the_index_does_not_cover_are_all_candidates() -> None:
    index = Ordered(50)
    assert candidates(index, range(100), live=100) == [*range(5), *range(50, 100)]
    assert candidates(index, range(45, 100), live=55) == list(range(45, 100))  # five covered ones: no use to ask for five
    assert len(index.asked) == 1
    assert candidates(index, range(51), live=51) == [*range(5), 50]
    limited = Ordered(50_000, can_select=True)
    assert candidates(limited, [*range(0, 50_000, 10), 50_001], live=50_002) == [0, 10, 20, 30, 40, 50_001]
    assert limited.asked == [(1, 5)]


@pytest.mark.parametrize("among", [range(100), range(40, 60), range(0, 100, 3), [7], [0, 1, 3, 4, 6]])
def test_rows_are_found_among_others_with_or_without_gaps(among: Any) -> None:
    rows = np.random.default_rng(0).permutation(120)
    assert _is_in(rows, np.array(among)).tolist() == [row in among for row in rows]
