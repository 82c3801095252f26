"""`build` without a factory: kinds of indexes are tried on a sample, and the fastest that reaches the recall is built.

Times are given by the tests: by a table of trials, by a clock, or in place of measured milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from helpers import ColourEncoder

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.composition import Composition
from mmretrieve.gallery.index import builder, trials
from mmretrieve.gallery.index.builder import build_fastest
from mmretrieve.gallery.index.factory import index_bytes
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.kinds import KINDS, factory_of
from mmretrieve.gallery.index.plan import FLAT, Device, IndexPlan, SearchParams
from mmretrieve.gallery.index.trials import (
    MAX_GRAPH_SECONDS,
    MIN_GAIN,
    SAMPLE_SIZE,
    SIMILAR,
    Trial,
    rank_trials,
    try_kinds,
)
from mmretrieve.gallery.index.tuning import TuningResult
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.vectors import unit

ITEMS, SAMPLED, DIM, GRAPH = 1_200, 300, ColourEncoder.dim, "HNSW32,SQfp16"
CELLS, BITS = "IVF128,SQ8", "IVF128,RaBitQ"  # for ITEMS
PLENTY = 1 << 40  # bytes of memory


@cache
def clustered(count: int = ITEMS) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, DIM))
    return unit(centers[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, DIM)))


@cache
def rows(count: int = ITEMS) -> np.ndarray:
    return clustered(count).astype(np.float16)


def table(flat: float = 10, cells: float = 4, bits: float = 4.5, graph: float = 5, **recalls: float) -> list[Trial]:
    """Trials of all kinds with these milliseconds, and recalls of 0.995 where no other is given."""
    times = {"flat": (FLAT, flat), "cells": (CELLS, cells), "bits": (BITS, bits), "graph": (GRAPH, graph)}
    return [
        Trial(factory, ms, 1.0 if name == "flat" else recalls.get(f"{name}_recall", 0.995), 1.0)
        for name, (factory, ms) in times.items()
    ]


def ranked(tried: Sequence[Trial], target: float = 0.99) -> list[str]:
    return [trial.factory for trial in rank_trials(tried, target)]


@pytest.fixture(autouse=True)
def small_sample_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "resolve_device", lambda _: Device.CPU)
    monkeypatch.setattr(builder, "SAMPLE_SIZE", SAMPLED)
    monkeypatch.setattr(trials, "SAMPLE_SIZE", SAMPLED)
    monkeypatch.setattr(trials, "N_TIMED_QUERIES", 30)
    monkeypatch.setattr(builder, "N_QUERIES", 60)


@pytest.fixture
def measured_ms(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The trials of `table`, and the milliseconds of each index that was built, which a test may change."""
    times = {trial.factory: trial.ms for trial in table()}
    monkeypatch.setattr(builder, "try_kinds", lambda *_: table())
    monkeypatch.setattr(builder, "search_ms", lambda indexes, *_: [times[index.plan.factory] for index in indexes])
    return times


def test_the_fastest_that_reaches_the_recall_comes_first_and_the_flat_one_last() -> None:
    assert ranked(table(cells=4, bits=3, graph=6)) == [BITS, CELLS, GRAPH, FLAT]
    assert ranked(table(cells=4, bits=3, graph=2)) == [GRAPH, BITS, CELLS, FLAT]
    assert ranked(table(cells=4, bits=3, graph=2, graph_recall=0.989)) == [BITS, CELLS, FLAT]
    assert ranked(table(cells=4, bits=3, graph=2, graph_recall=0.989), target=0.98) == [GRAPH, BITS, CELLS, FLAT]


def test_only_a_clear_gain_is_worth_missing_items() -> None:
    limit = 10 / MIN_GAIN
    assert ranked(table(10, limit * 1.01, 9, 12)) == [FLAT]
    assert ranked(table(10, limit * 0.99, 9, 12)) == [CELLS, FLAT]


def test_of_similar_times_the_first_kind_is_chosen() -> None:
    assert ranked(table(cells=3 * SIMILAR * 0.99, bits=3, graph=3.1)) == [CELLS, BITS, GRAPH, FLAT]
    assert ranked(table(cells=3 * SIMILAR * 1.01, bits=3, graph=3.1)) == [BITS, CELLS, GRAPH, FLAT]


def test_a_graph_that_takes_too_long_to_build_is_not_chosen() -> None:
    *others, _ = table(graph=1)
    for seconds, first in ((MAX_GRAPH_SECONDS, GRAPH), (MAX_GRAPH_SECONDS + 1, CELLS)):
        assert ranked([*others, Trial(GRAPH, 1, 0.995, seconds)])[0] == first
    slow_cells = [Trial(trial.factory, trial.ms, trial.recall, 1e6) for trial in others]
    assert ranked(slow_cells)[0] == CELLS


def test_without_room_for_a_flat_index_the_best_of_the_others_is_built() -> None:
    _, *others = table(cells=4, bits=3)
    assert ranked(others) == [BITS, CELLS, GRAPH]
    _, *others = table(cells_recall=0.97, bits_recall=0.98, graph_recall=0.96)
    assert ranked(others) == [BITS]


def ticking(*milliseconds: float) -> Callable[[], float]:
    """A clock for searches that take so long, again and again."""

    def ticks() -> Iterator[float]:
        now = 0.0
        for ms in cycle(milliseconds):
            yield now
            now += ms / 1000
            yield now

    clock = ticks()
    return lambda: next(clock)


def test_trials_of_a_sample_predict_those_of_all_rows() -> None:
    """Of a search, 1 ms does not grow. The rest of a flat one grows like the rows, of the others like their root."""
    kinds = [FLAT, "IVF{cells},SQ8", "IVF{cells},RaBitQ", GRAPH]
    tried = try_kinds(rows(), 0.97, kinds, ticking(1, 5, 2, 3, 0.5))
    assert [trial.factory for trial in tried] == [FLAT, CELLS, BITS, GRAPH]
    assert [trial.ms for trial in tried] == pytest.approx([1 + 4 * 4, 1 + 1 * 2, 1 + 2 * 2, 1])
    assert tried[0].recall == 1
    assert all(0.97 <= trial.recall <= 1 for trial in tried)
    assert all(trial.build_seconds > 0 for trial in tried)
    again = try_kinds(rows(), 0.97, kinds, ticking(1, 5, 2, 3, 0.5))
    assert [trial.recall for trial in again[:3]] == [trial.recall for trial in tried[:3]]


def test_the_time_of_a_search_is_the_median_and_indexes_take_turns() -> None:
    index = builder.build_index(rows(600), IndexPlan(FLAT, "requested"), 0.99).index
    queries = clustered(5)
    clock = ticking(*(ms for slow in (1, 1, 50, 1, 2) for ms in (slow, 3 * slow)))
    assert trials.search_ms([index, index], rows(600), queries, clock) == pytest.approx([1, 3])


def test_only_kinds_that_fit_into_the_memory_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of kinds are tested in test_memory.py."""
    tried: list[Sequence[str]] = []
    kinds = KINDS[1:3]
    monkeypatch.setattr(builder, "fitting_kinds", lambda *_: kinds)
    monkeypatch.setattr(builder, "try_kinds", lambda rows, target, kinds: tried.append(kinds) or try_kinds(rows, target, kinds))
    plan = build_fastest(rows(), 0.97).plan
    assert tried == [kinds]
    assert plan.factory in {factory_of(kind, ITEMS, DIM) for kind in kinds}
    assert FLAT not in plan.reason


def test_a_small_gallery_a_recall_of_1_and_gpus_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "try_kinds", lambda *_: pytest.fail("nothing should be tried"))
    assert SAMPLE_SIZE == 20_000
    monkeypatch.setattr(builder, "SAMPLE_SIZE", ITEMS + 1)
    assert build_fastest(rows(), 0.99).plan.exact
    monkeypatch.setattr(builder, "SAMPLE_SIZE", ITEMS)
    assert build_fastest(rows(), 1).plan.exact
    monkeypatch.setattr(builder, "resolve_device", lambda _: Device.CUDA)
    assert build_fastest(rows(), 0.99).plan.exact
    monkeypatch.setattr(builder, "resolve_device", lambda _: Device.CPU)
    with pytest.raises(pytest.fail.Exception, match="nothing should be tried"):
        build_fastest(rows(), 0.99)
    monkeypatch.setattr(builder, "SAMPLE_SIZE", ITEMS + 1)
    with pytest.raises(pytest.fail.Exception, match="nothing should be tried"):
        build_fastest(rows(), 1, memory=index_bytes(FLAT, ITEMS, DIM) - 1)


def test_what_was_built_is_measured_and_explained(measured_ms: dict[str, float]) -> None:
    steps: list[int] = []
    measured_ms[CELLS] = 4.4
    built = build_fastest(rows(), 0.99, steps.append)
    assert (built.plan.factory, built.index.plan.factory, sum(steps)) == (CELLS, CELLS, ITEMS)
    assert built.tuned.reached
    assert built.plan.reason == (
        f"4.4 ms a search, recall {built.tuned.recall:.3f}; estimated from a sample: SQfp16 10.0 ms, exact, 1 s to build; "
        "IVF128,RaBitQ 4.5 ms, recall 0.995, 1 s to build; HNSW32,SQfp16 5.0 ms, recall 0.995, 1 s to build"
    )


def test_the_search_with_tuned_parameters_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    params: list[SearchParams] = []

    def search_ms(indexes: Sequence[FaissIndex], *_: object) -> list[float]:
        params.extend(index.params for index in indexes)
        return [2.0]

    monkeypatch.setattr(builder, "search_ms", search_ms)
    built = builder.build_index(rows(), IndexPlan(CELLS, "requested"), 0.8)
    assert built.measure(rows()) == Trial(CELLS, 2.0, built.tuned.recall, built.seconds, measured=True)
    assert params == [built.tuned.params] != [built.index.params]


def test_an_index_that_is_slower_than_its_trial_gives_way_to_the_next(measured_ms: dict[str, float]) -> None:
    steps: list[int] = []
    measured_ms |= {CELLS: 9.0}
    assert build_fastest(rows(), 0.99, steps.append).plan.factory == BITS
    assert sum(steps) == ITEMS, "progress counts every item once"
    measured_ms |= {BITS: 9.1, GRAPH: 9.2}
    flat = build_fastest(rows(), 0.99)
    assert flat.plan.exact
    assert flat.plan.reason.startswith(
        "10.0 ms a search, nothing is missed; estimated from a sample: IVF128,SQ8 9.0 ms, recall "
    )


@pytest.mark.usefixtures("measured_ms")
def test_an_index_that_misses_the_recall_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    tune = builder.tune

    def tune_badly(index: FaissIndex, *arguments: object, **options: object) -> TuningResult:
        tuned = tune(index, *arguments, **options)
        return replace(tuned, recall=0.98) if index.plan.factory == CELLS else tuned

    monkeypatch.setattr(builder, "tune", tune_badly)
    built = build_fastest(rows(), 0.99)
    assert built.plan.factory == BITS
    assert "IVF128,SQ8 4.0 ms, recall 0.980, built in " in built.plan.reason


@pytest.mark.usefixtures("measured_ms")
def test_where_none_reaches_the_recall_the_most_accurate_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials promised more for both: the first is built, then the second, and the first again."""
    monkeypatch.setattr(builder, "fitting_kinds", lambda *_: KINDS[1:3])
    monkeypatch.setattr(builder, "try_kinds", lambda *_: table(cells_recall=0.992, bits_recall=0.985)[1:3])
    measured, order = {CELLS: 0.98, BITS: 0.97}, []

    def tune_badly(index: FaissIndex, *_: object, **__: object) -> TuningResult:
        order.append(index.plan.factory)
        return TuningResult(index.params, measured[index.plan.factory], 0.99)

    monkeypatch.setattr(builder, "tune", tune_badly)
    built = build_fastest(rows(), 0.99)
    assert (order, built.plan.factory) == ([CELLS, BITS, CELLS], CELLS)
    assert built.plan.reason.startswith(
        "4.0 ms a search, recall 0.980, the most accurate that fits: none reaches 0.99; "
        "estimated from a sample: IVF128,RaBitQ 4.5 ms, recall 0.970, built in "
    )


def test_whatever_this_machine_chooses_reaches_the_recall() -> None:
    built = build_fastest(rows(), 0.97)
    assert built.plan.exact or built.tuned.recall >= 0.97
    assert all(factory_of(kind, ITEMS, DIM) in built.plan.reason + built.plan.factory for kind in KINDS)


def share_found(gallery: mm.Gallery, near: np.ndarray) -> float:
    """The share of the ten exactly best hits that searches find, with and without a filter."""
    ids, vectors, shares = np.array(gallery.ids), gallery.vectors(), []
    for where, allowed in ((None, np.arange(len(ids))), ("n % 3 = 1", np.flatnonzero(ids.astype(int) % 3 == 1))):
        for row in (3, 500, ITEMS + 100):
            query = Composition(("query",), unit(near[row][None] + 0.2 * near[row - 1]), (1.0,))
            scores = query.contributions(term_scores(query.terms, vectors[allowed])).sum(axis=0)
            best = [(ids[allowed[i]], scores[i]) for i in top_k(scores, 10)]
            hits = [(hit.id, hit.score) for hit in gallery.search(query, 10, where=where)]
            shares.append(len({*hits} & {*best}) / 10)
    return float(np.mean(shares))


@pytest.mark.parametrize("fastest", [factory_of(kind, ITEMS, DIM) for kind in KINDS if kind != FLAT])
def test_searches_of_the_chosen_index_stay_right(
    fastest: str,
    measured_ms: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With deletions, a filter, later items and after a compaction; build, info and the shell tell the same reason."""
    measured_ms[fastest] = 1.0
    monkeypatch.setattr(builder, "try_kinds", lambda *_: [Trial(FLAT, 10.0, 1.0, 1.0), Trial(fastest, 1.0, 0.995, 1.0)])
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    more = clustered(ITEMS + 150)
    gallery.add_vectors([f"{i:04}" for i in range(ITEMS)], clustered(), fields=[{"n": i} for i in range(ITEMS)])
    assert gallery.info()["index"]["reason"] == "nothing was built yet, so every vector is scored as it is stored"
    index = gallery.build_index()
    assert (index["factory"], index["advice"]) == (fastest, None)
    assert index["reason"].startswith("1.0 ms a search, recall ")
    assert mm.Gallery.open(gallery.path).info()["index"]["reason"] == index["reason"]
    later = [f"{i:04}" for i in range(ITEMS, ITEMS + 150)]
    gallery.add_vectors(later, more[ITEMS:], fields=[{"n": i} for i in range(ITEMS, ITEMS + 150)])
    gallery.delete(gallery.ids[::7])
    assert share_found(gallery, more) >= 0.97
    gallery.compact()
    gallery = mm.Gallery.open(gallery.path, encoder=ColourEncoder())
    assert (gallery.info()["index"]["factory"], gallery.info()["index"]["rows"]) == (fastest, len(gallery))
    assert share_found(gallery, more) >= 0.97
    assert main(["build", str(gallery.path), "--quiet"]) == 0
    assert f"{fastest}, recall@10 " in (output := capsys.readouterr().out)
    assert "1.0 ms a search, recall " in output
    gallery.build_index("Flat")
    assert (gallery.info()["index"]["factory"], gallery.info()["index"]["reason"]) == ("Flat", "requested by name")
