"""The index: what it proposes holds what exact numpy finds, whatever its kind; bad plans and bad files are refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmretrieve.errors import GalleryError, OptionError, VectorError
from mmretrieve.gallery.index import faiss_index, gpu, products, tuning
from mmretrieve.gallery.index.factory import cells_of, float16_rows, parameters, train_index
from mmretrieve.gallery.index.faiss_index import DIGEST_PARTS, MARGIN, MAX_LIMITED, ROUNDING, FaissIndex, digest_of
from mmretrieve.gallery.index.kinds import KINDS, MAX_FLAT_NUMBERS, cells_for, choose
from mmretrieve.gallery.index.plan import Device, IndexPlan, SearchParams, default_params
from mmretrieve.gallery.index.products import MIN_QUERIES, best_products
from mmretrieve.gallery.index.tuning import composed_queries, exact_best, exact_best_with_ties, recall, report, rescore, tune
from mmretrieve.vectors import unit

EXACT = ["SQfp16", "Flat"]
CELLS = [
    "IVF16,SQ8",
    "IVF16,Flat",
    "IVF16,RaBitQ",
    "IVF16,RaBitQfs",
    "RR,IVF16,RaBitQ",
    "IVF16_HNSW8,SQ8",
    "IVF16,RaBitQ2",
    "PCAR16,IVF16,RaBitQ",
]
OTHERS = ["SQ8", "RaBitQ", "HNSW16", "IVF16,SQ8,Refine(Flat)", "PQ8x4"]
TIED = ["duplicated", "tied"]
GALLERIES = ["random", "clustered", *TIED]
ALL = SearchParams(nprobe=16, ef=600, overfetch=1000)  # looks at everything
DIM = 32


def plan(factory: str) -> IndexPlan:
    return IndexPlan(factory, "asked for")


@cache
def rows(kind: str, count: int = 600, dim: int = DIM) -> np.ndarray:
    """(count, dim) unit float16 rows: at random, in clusters, eleven pictures many times over, or from so few numbers that many tie."""
    rng = np.random.default_rng(len(kind))
    if kind == "random":
        vectors = rng.normal(size=(count, dim))
    elif kind == "clustered":
        vectors = 2 * rng.normal(size=(20, dim))[rng.integers(20, size=count)] + rng.normal(size=(count, dim))
    elif kind == "duplicated":
        vectors = rng.normal(size=(11, dim))[rng.integers(11, size=count)]
    else:
        vectors = rng.choice([-1.0, 1.0], size=(count, 4)) @ np.repeat(np.eye(4), dim // 4, axis=1)
    return unit(vectors).astype(np.float16)


@cache
def built(factory: str, kind: str) -> FaissIndex:
    return FaissIndex.build(plan(factory), rows(kind))


def best_rows(index: FaissIndex, vectors: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    return [best.tolist() for best in rescore(vectors, queries, index.search(queries, k), k)]


@pytest.mark.parametrize("kind", GALLERIES)
@pytest.mark.parametrize("factory", EXACT + CELLS + OTHERS)
def test_every_index_type_that_searches_all_rows_ranks_as_exact_numpy(factory: str, kind: str) -> None:
    if factory.startswith("HNSW") and kind in TIED:
        pytest.skip("a walk over a graph of copies does not come to all of them")
    vectors, index = rows(kind), built(factory, kind).with_params(ALL)
    queries = 3 * composed_queries(vectors, 5)
    for k in (1, 10, 600, 10_000):
        assert best_rows(index, vectors, queries, k) == exact_best(vectors, queries, k).tolist()


@pytest.mark.parametrize("kind", GALLERIES)
@pytest.mark.parametrize("factory", EXACT + CELLS + OTHERS)
def test_an_index_that_is_limited_to_some_rows_ranks_them_as_exact_numpy(factory: str, kind: str) -> None:
    if "HNSW16" in factory and kind in TIED:
        pytest.skip("a walk over a graph of copies does not come to all of them")
    assert built(factory, kind).can_select is (factory != "PQ8x4")
    if factory == "PQ8x4":
        return
    vectors, queries = rows(kind), composed_queries(rows(kind), 12, seed=1)
    for selected in (np.arange(0, 600, 7), np.array([3, 5, 599]), np.arange(600)):
        index = built(factory, kind).with_params(ALL).among(selected)
        proposals = index.search(queries, 10)
        assert all(np.isin(found, selected).all() for found in proposals)
        expected = [[int(selected[i]) for i in best] for best in exact_best(vectors[selected], queries, 10)]
        assert best_rows(index, vectors, queries, 10) == expected


def test_an_index_is_searched_more_widely_for_few_rows() -> None:
    index = built("IVF16,SQ8", "random").with_params(SearchParams(nprobe=2))
    assert index.among(np.arange(600)).params.nprobe == 2
    assert index.among(np.arange(60)).params.nprobe == 6  # 2 · 10 ** 0.4
    assert index.among(np.arange(1)).params.nprobe == 16
    graph = built("HNSW16", "random").with_params(SearchParams(ef=100))
    assert graph.among(np.arange(60)).params.ef == 252
    assert index.among(np.arange(60)).plan == index.plan


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 100), st.sampled_from(EXACT))
def test_an_exact_plan_misses_nothing_with_default_parameters(seed: int, distinct: int, k: int, factory: str) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(distinct, 8)))[rng.integers(0, distinct, 120)].astype(np.float16)
    queries = np.concatenate([vectors[:2].astype(np.float32), rng.normal(size=(2, 8)).astype(np.float32) * 3])
    assert best_rows(FaissIndex.build(plan(factory), vectors), vectors, queries, k) == exact_best(vectors, queries, k).tolist()


@pytest.mark.parametrize("factory", ["PCA16,SQfp16", "PCAR16,Flat", "PCAR16,IVF1,Flat"])
def test_a_projection_keeps_inner_products(factory: str) -> None:
    """FAISS would subtract the mean of the rows, which changes their order for a query with another mean."""
    rng = np.random.default_rng(1)
    stored = unit((rng.normal(size=(500, 16)) + 2) @ np.linalg.qr(rng.normal(size=(DIM, 16)))[0].T).astype(np.float16)
    queries = unit(rng.normal(size=(5, DIM)))
    index = FaissIndex.build(plan(factory), stored)
    scores, found = index._index.search(queries, 10)
    products = queries @ stored.astype(np.float32).T
    np.testing.assert_allclose(scores, np.take_along_axis(products, found, axis=1), atol=1e-3)
    assert recall(exact_best(stored, queries, 10), list(found)) >= 0.95


def test_a_projection_before_shards_has_their_cells() -> None:
    """As on several GPUs."""
    index = train_index("PCA16,IVF4,SQ8", rows("random"))
    shards = faiss.IndexShards(16)
    shards.add_shard(index.index)
    moved = faiss.IndexPreTransform(index.chain.at(0), shards)
    assert cells_of(moved) == cells_of(index) == 4


def test_float16_rounding_of_lengths_does_not_hide_the_best() -> None:
    """Neighbours so near that how their lengths were rounded decides their order as stored: the best is not among the first."""
    rng = np.random.default_rng(0)
    query = unit(rng.uniform(0.5, 1, size=(1, 2)))
    vectors = np.unique(unit(query + 0.02 * rng.normal(size=(400, 2))).astype(np.float16), axis=0)
    best = exact_best(vectors, query, 1)
    stored = vectors.astype(np.float64) @ query[0]
    order = np.argsort(-stored)
    assert best[0, 0] not in order[: 1 + MARGIN]
    assert stored[order[0]] - stored[order[MARGIN]] > ROUNDING
    assert best_rows(FaissIndex.build(plan("SQfp16"), vectors), vectors, query, 1) == best.tolist()


@pytest.mark.parametrize("factory", EXACT + CELLS + OTHERS)
@pytest.mark.parametrize("kind", GALLERIES)
def test_a_batch_equals_single_queries_and_proposals_are_valid_rows(factory: str, kind: str) -> None:
    vectors, index = rows(kind), built(factory, kind).with_params(SearchParams(nprobe=2, overfetch=2))
    queries = composed_queries(vectors, 2 * MIN_QUERIES)
    for proposed in index.search(queries, 7):
        assert len(proposed) >= 7
        assert proposed.min() >= 0
        assert proposed.max() < len(vectors)
        assert len(np.unique(proposed)) == len(proposed)
    if index.plan.exact or kind not in TIED:  # else which of many equal codes come last is open, and so is what they stand for
        assert best_rows(index, vectors, queries, 7) == [best_rows(index, vectors, query[None], 7)[0] for query in queries]


def test_all_ties_at_the_cut_are_proposed() -> None:
    vectors = np.concatenate([rows("random")[:100], np.repeat(rows("random")[:1], 300, axis=0)])
    for factory in ("SQfp16", "IVF16,SQ8", "IVF16,RaBitQ"):
        proposed = FaissIndex.build(plan(factory), vectors).search(vectors[:1].astype(np.float32), 2)[0]
        assert {0, *range(100, 400)} <= set(proposed.tolist())


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "IVF16,Flat", "IVF16,RaBitQ", "SQfp16", "HNSW16"])
def test_a_gallery_of_equal_images_is_searched(factory: str) -> None:
    vectors = np.repeat(rows("random")[:1], 200, axis=0)
    index = FaissIndex.build(plan(factory), vectors).with_params(SearchParams(nprobe=1))
    for query in (vectors[:1], -vectors[:1], rows("random")[1:2]):
        assert best_rows(index, vectors, query.astype(np.float32), 12) == [list(range(12))]


@pytest.mark.parametrize("kind", GALLERIES)
@pytest.mark.parametrize("k", [1, 70, 600])
def test_products_find_what_a_scan_of_faiss_finds(k: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "ROW_BATCH_SIZE", 64)
    monkeypatch.setattr(products, "QUERY_BATCH_SIZE", 7)
    index, queries = built("SQfp16", kind), composed_queries(rows(kind), 20)
    stored = float16_rows(index._index, "SQfp16")
    assert stored is not None
    assert np.array_equal(stored, rows(kind))
    scores, found = best_products(stored, queries, k)
    np.testing.assert_allclose(scores, index._index.search(queries, k)[0], atol=1e-5)
    exact = np.take_along_axis(queries @ rows(kind).astype(np.float32).T, found, axis=1)
    np.testing.assert_allclose(scores, exact, atol=1e-5)
    assert all(len(set(row)) == k for row in found.tolist())
    assert float16_rows(built("Flat", kind)._index, "Flat") is None


@pytest.mark.parametrize(("factory", "kind"), [("SQfp16", "IndexScalarQuantizer"), ("IVF16,SQ8", "IndexIVFScalarQuantizer")])
def test_a_batch_is_one_search_of_faiss(factory: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS gets all queries at once, and after that only those that are not settled."""
    index, queries = built(factory, "clustered"), composed_queries(rows("clustered"), 50)
    searched, sizes = getattr(faiss, kind).search, []

    def search(self: faiss.Index, queries: np.ndarray, *arguments: object, **options: object) -> object:
        sizes.append(len(queries))
        return searched(self, queries, *arguments, **options)

    monkeypatch.setattr(getattr(faiss, kind), "search", search)
    index.search(queries, 10)
    assert sizes[0] == 50
    assert all(later < 10 for later in sizes[1:])


def test_an_extended_index_equals_one_that_was_built_at_once() -> None:
    vectors = rows("clustered")
    queries = composed_queries(vectors, 8)
    steps: list[int] = []
    for factory in EXACT:
        grown = FaissIndex.build(plan(factory), vectors[:250])
        grown.extend(vectors[:400])
        grown.extend(vectors, progress=steps.append)
        grown.extend(vectors)
        assert len(grown) == 600
        for one, other in zip(grown.search(queries, 9), built(factory, "clustered").search(queries, 9), strict=True):
            np.testing.assert_array_equal(one, other)
    assert steps == [200, 200]
    cells = FaissIndex.build(plan("IVF16,SQ8"), vectors[:250])
    cells.extend(vectors)
    assert best_rows(cells.with_params(ALL), vectors, queries, 9) == exact_best(vectors, queries, 9).tolist()


def test_building_is_deterministic(tmp_path: Path) -> None:
    for factory in ("IVF16,SQ8", "RR,IVF16,RaBitQ"):
        digests = {FaissIndex.build(plan(factory), rows("clustered")).save(tmp_path / f"{i}.faiss") for i in range(2)}
        assert len(digests) == 1


@pytest.mark.parametrize("factory", EXACT + CELLS)
def test_a_saved_index_is_loaded(factory: str, tmp_path: Path) -> None:
    index, file = built(factory, "clustered").with_params(SearchParams(nprobe=3, overfetch=2)), tmp_path / "index.faiss"
    digest = index.save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]
    assert index.size == file.stat().st_size
    again = FaissIndex.load(file, digest, plan(factory), index.params)
    assert again is not None
    assert (len(again), again.dim, again.params, again.plan) == (600, DIM, index.params, index.plan)
    for one, other in zip(
        again.search(composed_queries(rows("clustered"), 6), 5),
        index.search(composed_queries(rows("clustered"), 6), 5),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_file_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "index.faiss"
    digest = built("SQfp16", "random").save(file)
    whole = file.read_bytes()
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS was given a damaged file"))
    for location in (0, len(whole) // 3, len(whole) - 1):
        file.write_bytes(whole[:location] + bytes([whole[location] ^ 4]) + whole[location + 1 :])
        assert FaissIndex.load(file, digest, plan("SQfp16")) is None
    for other in (whole[:-1], whole + b"\0", b""):
        file.write_bytes(other)
        assert FaissIndex.load(file, digest, plan("SQfp16")) is None
    file.unlink()
    assert FaissIndex.load(file, digest, plan("SQfp16")) is None


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    with pytest.raises((OSError, RuntimeError)):
        built("SQfp16", "random").save(tmp_path / "nowhere" / "index.faiss")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_digest_changes_with_every_byte(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("digest") / "file"
    location = data.draw(st.integers(0, len(content) - 1))
    digests = set()
    for written in (
        content,
        content[:location] + bytes([content[location] ^ 1]) + content[location + 1 :],
        content + b"\0",
        content[:-1],
    ):
        file.write_bytes(written)
        assert digest_of(file) == digest_of(file)
        digests.add(digest_of(file))
    assert len(digests) == DIGEST_PARTS == 4


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nonsense", "could not parse index string nonsense; expected a FAISS factory string such as IVF4096,SQ8"),
        ("", "could not parse index string"),
        ("LSH", "cannot do inner products"),
        ("IMI2x4,Flat", "cannot do inner products"),
        ("IDMap,Flat", "add does not make sense with IndexIDMap"),
        ("IVF0,SQ8", "0 cells; expected from 1 to 600"),
        ("IVF601,SQ8", "601 cells; expected from 1 to 600"),
        ("PQ8x10", "needs at least 1024 vectors to train, there are 600"),
        ("PQ7", "index factory 'PQ7': The dimension of the vector"),
    ],
)
def test_an_invalid_plan_is_an_error_of_one_line(factory: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        FaissIndex.build(plan(factory), rows("random"))
    assert "\n" not in str(caught.value)
    assert "/faiss/" not in str(caught.value)


def test_invalid_queries_are_refused_and_an_empty_index_is_searched() -> None:
    index = built("SQfp16", "random")
    with pytest.raises(VectorError, match="expected 32 columns, got 5"):
        index.search(np.ones((1, 5), np.float32), 1)
    with pytest.raises(OptionError, match="k must be"):
        index.search(np.ones((1, DIM), np.float32), 0)
    empty = FaissIndex.build(plan("SQfp16"), rows("random")[:0])
    assert [len(proposed) for proposed in empty.search(np.ones((2, DIM), np.float32), 3)] == [0, 0]
    assert index.search(np.empty((0, DIM), np.float32), 3) == []


def test_threads_may_search_one_index() -> None:
    vectors, index = rows("clustered"), built("IVF16,SQ8", "clustered")
    queries = composed_queries(vectors, 40)
    settings = [SearchParams(nprobe=1), SearchParams(nprobe=16, overfetch=60)]
    expected = [best_rows(index.with_params(setting), vectors, queries, 5) for setting in settings]
    matches: list[bool] = []

    def ask(which: int) -> None:
        for _ in range(20):
            matches.append(best_rows(index.with_params(settings[which]), vectors, queries, 5) == expected[which])

    threads = [threading.Thread(target=ask, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert matches == [True] * 80
    assert expected[0] != expected[1]


def test_plans_at_their_thresholds() -> None:
    few, cells = MAX_FLAT_NUMBERS // 512, KINDS[1:]
    assert choose(few, 512).factory == "SQfp16"
    assert choose(few, 512).exact
    assert choose(few + 1, 512).factory == "IVF2048,SQ8"
    assert choose(few, 512, cells).factory == "IVF2048,SQ8"
    assert choose(1_000_000, 512).factory == "IVF4096,SQ8"
    assert choose(1_000_000, 512, ["IVF{cells},RaBitQ"]).factory == "IVF4096,RaBitQ"
    assert choose(0, 512).factory == "SQfp16"
    assert choose(1_000_000, 512, recall=1).reason.startswith("a recall of 1 was requested")
    assert choose(1_000_000, 512, recall=1).exact
    assert choose(1_000_000, 512, cells, recall=1).factory == "IVF4096,SQ8"
    assert IndexPlan(**json.loads(json.dumps(asdict(choose(few + 1, 512))))) == choose(few + 1, 512)
    assert [cells_for(items) for items in (0, 1, 100, 1_000_000, 10**12)] == [4, 4, 32, 4096, 16384]


def test_search_parameters_are_checked_and_kept() -> None:
    for wrong in ({"nprobe": 0}, {"nprobe": 2.5}, {"ef": True}, {"overfetch": 0.5}, {"overfetch": float("nan")}):
        with pytest.raises(OptionError, match=f"{next(iter(wrong))} must be"):
            SearchParams(**wrong)
    assert SearchParams(**json.loads(json.dumps(asdict(SearchParams(3, None, 2))))) == SearchParams(3, None, 2)
    index = built("IVF16,SQ8", "random")
    assert index.params == default_params(index.plan, 16) == SearchParams(nprobe=1, overfetch=2)
    assert index.with_params(SearchParams(overfetch=5)).params == SearchParams(nprobe=1, overfetch=5)
    assert (
        len(index.with_params(SearchParams(16, overfetch=5)).search(rows("random")[:1].astype(np.float32), 10)[0])
        == 50 + MARGIN
    )


@dataclass(frozen=True)
class ParamsWithQb(SearchParams):
    """The parameters of a search, and a new one, as CONTRIBUTING says to add it."""

    qb: int | None = None


def test_a_new_search_parameter_is_checked_saved_filled_in_and_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    params = ParamsWithQb(3, overfetch=2, qb=4)
    assert params.to_dict() == {"probes": 3, "ef": None, "overfetch": 2, "qb": 4}
    assert ParamsWithQb.from_dict(params.to_dict()) == params
    assert ParamsWithQb.from_dict({"probes": 3}) == ParamsWithQb(3)
    assert SearchParams.from_dict(params.to_dict()) == SearchParams(3, overfetch=2)
    assert ParamsWithQb(5).with_defaults(params) == ParamsWithQb(5, qb=4)
    assert built("HNSW16", "random").with_params(SearchParams(overfetch=5)).params == SearchParams(ef=128, overfetch=5)
    with pytest.raises(OptionError, match="qb must be"):
        ParamsWithQb(qb=0)
    passed = []
    monkeypatch.setattr(faiss_index, "parameters", lambda _, params, __: passed.append(params))
    built("IVF16,RaBitQ", "random").with_params(params).search(rows("random")[:1].astype(np.float32), 10)
    assert {one.qb for one in passed} == {4}


def test_larger_parameters_find_more() -> None:
    vectors, index = rows("random"), built("IVF16,RaBitQ", "random")
    queries = composed_queries(vectors, 50)
    truth = exact_best(vectors, queries, 10)
    by_probes = [
        recall(truth, index.with_params(SearchParams(probes, overfetch=20)).search(queries, 10)) for probes in (1, 4, 16)
    ]
    assert by_probes == sorted(set(by_probes))
    assert recall(truth, index.with_params(SearchParams(16)).search(queries, 10)) < by_probes[-1]


@pytest.mark.parametrize("factory", ["IVF64,SQ8", "IVF64,RaBitQ", "HNSW16,SQ8", "SQfp16", "SQ8", "RaBitQ"])
def test_tuning_finds_the_cheapest_parameters_that_reach_the_target(factory: str) -> None:
    vectors = rows("clustered", 4000)
    index = FaissIndex.build(plan(factory), vectors)
    queries, fresh = composed_queries(vectors, 150), composed_queries(vectors, 150, seed=1)
    truth = exact_best(vectors, queries, 10)
    tuned = tune(index, truth, queries, target=0.97)
    assert tuned.reached
    assert recall(truth, index.with_params(tuned.params).search(queries, 10)) == pytest.approx(tuned.recall)
    assert recall(exact_best(vectors, fresh, 10), index.with_params(tuned.params).search(fresh, 10)) > 0.94
    if tuned.params.nprobe is not None:
        assert tuned.params.nprobe < 64
        fewer = replace(tuned.params, nprobe=max(1, tuned.params.nprobe // 2))
        assert recall(truth, index.with_params(fewer).search(queries, 10)) < 0.97
    if factory == "SQfp16":
        assert (tuned.params, tuned.recall) == (SearchParams(), 1.0)


def test_tuning_reports_the_best_recall_if_the_target_is_not_reached() -> None:
    vectors = rows("random")
    queries = composed_queries(vectors, 20)
    truth = exact_best(vectors, queries, 10)
    truth[:10] = 600 + truth[:10]  # rows that the index does not cover
    tuned = tune(built("IVF16,SQ8", "random"), truth, queries)
    assert (tuned.reached, tuned.recall, tuned.target) == (False, 0.5, 0.99)


def test_a_report_measures_recall_and_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = rows("clustered")
    queries = composed_queries(vectors, 20)
    truth = exact_best(vectors, queries, 100)
    spent = [*range(1, 21), 60]  # milliseconds: of each query alone, then of all together
    clock = iter([second for i in range(21) for second in (float(i), i + spent[i] / 1000)])
    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    index_report = report(built("SQfp16", "clustered"), vectors, queries, truth, build_seconds=1.5)
    monkeypatch.undo()
    assert (index_report.recall_at_10, index_report.recall_at_100, index_report.build_seconds) == (1.0, 1.0, 1.5)
    assert 2 * DIM < index_report.bytes_per_vector < 2 * DIM + 2
    assert (index_report.p50_ms, index_report.p99_ms, index_report.batch_ms) == pytest.approx((10.5, 19.81, 60 / 20))
    worse = report(built("IVF16,SQ8", "clustered").with_params(SearchParams(1)), vectors, queries, truth, build_seconds=0)
    assert worse.recall_at_100 < 1
    assert DIM + 8 < worse.bytes_per_vector < 1.5 * (DIM + 8)


def test_composed_queries_are_unit_deterministic_and_off_the_manifold() -> None:
    vectors = rows("clustered")
    queries = composed_queries(vectors, 40, seed=2)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(queries, composed_queries(vectors, 40, seed=2))
    assert not np.array_equal(queries, composed_queries(vectors, 40, seed=3))
    nearest = (queries @ vectors.astype(np.float32).T).max(axis=1)
    assert 0.5 < np.median(nearest) < 0.99
    assert composed_queries(vectors[:1], 3).shape == (3, DIM)


def test_the_specification_on_three_rows() -> None:
    vectors = np.array([[0, 1], [1, 0], [0, 1]], np.float16)
    assert exact_best(vectors, np.array([[0, 5], [1, 0]], np.float32), 2).tolist() == [[0, 2], [1, 0]]
    assert rescore(vectors, np.array([[0, 1]], np.float32), [np.array([2, 1, 0])], 2)[0].tolist() == [0, 2]
    assert recall(np.array([[0, 2], [1, 0]]), [np.array([2, 1]), np.array([0, 1])]) == (1 / 2 + 1) / 2


def test_a_missing_gpu_is_an_error() -> None:
    if faiss.get_num_gpus():
        pytest.skip("this machine has a GPU")
    index, vectors = built("SQfp16", "random"), rows("random")
    assert index.on("auto", vectors) is index
    assert index.on(Device.CPU, vectors) is index
    with pytest.raises(GalleryError, match="there is no CUDA device on this machine; use auto or cpu"):
        index.on("cuda", vectors)
    with pytest.raises(OptionError, match="unknown device 'tpu'"):
        index.on("tpu", vectors)


def sharded(kind: str, max_k: int) -> FaissIndex:
    """What serves a flat index from three GPUs, here on three flat indexes of the CPU."""
    makers: list[Callable[[int], faiss.Index]] = [faiss.IndexFlatIP] * 3
    return FaissIndex(gpu.flat_index(rows(kind), makers), plan("SQfp16"), max_k=max_k)


@pytest.mark.parametrize("kind", GALLERIES)
def test_rows_in_shards_keep_their_numbers(kind: str) -> None:
    queries = composed_queries(rows(kind), 5)
    assert best_rows(sharded(kind, 599), rows(kind), queries, 10) == exact_best(rows(kind), queries, 10).tolist()


def test_an_index_on_a_gpu_refuses_a_larger_k() -> None:
    index = sharded("random", 100)
    query = composed_queries(rows("random"), 1)
    assert len(index.search(query, 100)[0]) == 100
    with pytest.raises(OptionError, match="k = 101: an index on a GPU finds at most 100"):
        index.search(query, 101)
    for forbidden in (lambda: index.extend(rows("random")), lambda: index.save(Path("x")), lambda: index.size):
        with pytest.raises(GalleryError, match="an index on a GPU cannot be"):
            forbidden()


def test_cells_of_shards_are_searched() -> None:
    vectors = rows("random")
    shards = faiss.IndexShards(DIM, True, False)
    for half in (0, 1):
        shard = faiss.index_factory(DIM, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
        shard.cp.min_points_per_centroid = 1
        shard.train(vectors.astype(np.float32))
        shard.add_with_ids(vectors[half::2].astype(np.float32), np.arange(half, 600, 2))
        shards.add_shard(shard)
    index = FaissIndex(shards, plan("IVF16,Flat"), ALL, max_k=599)
    assert index.cells == 16
    assert parameters(shards, SearchParams(3)).nprobe == 3
    queries = composed_queries(vectors, 5)
    assert best_rows(index, vectors, queries, 10) == exact_best(vectors, queries, 10).tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["SQfp16", "Flat", "IVF16,SQ8", "IVF16,Flat"])
def test_a_gpu_ranks_as_the_cpu_does(factory: str) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("FAISS finds no GPU")
    vectors = rows("clustered")
    index = built(factory, "clustered").on("cuda", vectors).with_params(SearchParams(16, overfetch=30))
    queries = composed_queries(vectors, 20)
    assert (len(index), index.max_k) == (600, 2048)
    assert best_rows(index, vectors, queries, 10) == exact_best(vectors, queries, 10).tolist()


@pytest.mark.gpu
def test_an_index_type_that_gpus_do_not_support_is_an_error() -> None:
    if not faiss.get_num_gpus():
        pytest.skip("FAISS finds no GPU")
    with pytest.raises(OptionError, match="is not supported on a GPU; use SQfp16"):
        built("IVF16,RaBitQ", "clustered").on("cuda", rows("clustered"))


def test_equal_vectors_are_no_misses() -> None:
    """Every vector occurs 40 times: which of them an index proposes first is no matter."""
    vectors = np.repeat(rows("random", 30), 40, axis=0)
    queries = composed_queries(vectors, 20)
    truth = exact_best_with_ties(vectors, queries, 10)
    for best, exact in zip(truth, exact_best(vectors, queries, 10), strict=True):
        assert best[:10].tolist() == exact.tolist()
        assert sorted(best) == list(range(40 * (best[0] // 40), 40 * (best[0] // 40 + 1))), "one vector and all its copies"
    other_copies = [best[-10:] for best in truth]
    assert recall(truth, other_copies, 10) == 1
    assert recall(truth, [rows[:5] for rows in other_copies], 10) == 0.5
    assert recall(exact_best(vectors, queries, 10), other_copies) == 0
    index = FaissIndex.build(plan("IVF8,PQ4x4"), vectors)
    measured = report(index.with_params(SearchParams(nprobe=8)), vectors, queries, truth, build_seconds=0)
    tuned = tune(index, truth, queries, k=10, target=0.99)
    assert (measured.recall_at_10, tuned.reached) == (1, True)


def test_a_tie_behind_the_cut_is_found_in_a_later_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ROW_BATCH_SIZE", 2)
    vectors = np.array([[1, 0], [0.6, 0.8], [1, 0], [0, 1], [0.6, 0.8]], np.float16)
    query = np.array([[1, 0]], np.float32)
    assert [exact_best_with_ties(vectors, query, k)[0].tolist() for k in (1, 2, 3, 5)] == [
        [0, 2],
        [0, 2],
        [0, 2, 1, 4],
        [0, 2, 1, 4, 3],
    ]


def test_the_last_sets_of_rows_are_kept() -> None:
    index = built("IVF16,SQ8", "random").with_params(ALL)
    sets = [np.arange(i, 600, 7) for i in range(MAX_LIMITED + 1)]
    first = index.among(sets[0])
    assert index.among(sets[0]) is first
    assert index.among(sets[0].copy()) is not first
    for selected in sets[2:]:
        index.among(selected)
    assert index.among(sets[0]) is not first, "so many others came after it"
