"""Whatever index serves a gallery, and however many items are deleted or filtered away, the ranking is the exact one."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ColourEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.filters import read_filter
from mmretrieve.gallery import local_view
from mmretrieve.gallery.index import index_manifest, products
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.rules import make_rule
from mmretrieve.scoring import term_scores, top_k
from mmretrieve.vectors import unit

ITEMS = 20_000
KINDS = {"exact": None, "Flat": "Flat", "IVF": "IVF64,SQ8", "RaBitQ": "IVF16,RaBitQ"}


@cache
def clustered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(50, ColourEncoder.dim))
    vectors = centres[rng.integers(50, size=max(count, 200))] + 0.5 * rng.normal(size=(max(count, 200), ColourEncoder.dim))
    vectors[100:140] = vectors[99:100]  # copies tie
    return unit(vectors)[:count]


def search_all_cells(gallery: mm.Gallery) -> None:
    """With the largest parameters an index that rounds its vectors is exact, too."""
    ledger = gallery._store.ledger
    manifest = ledger.meta()["index"]
    ledger.set_meta(index=manifest | {"effort": {"probes": 10_000, "ef": None, "overfetch": 10_000}})
    gallery.refresh()


@pytest.fixture(scope="module", params=KINDS)
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> mm.Gallery:
    """Twenty thousand made-up vectors, a tenth deleted, the last five hundred added after the index was built."""
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("big") / "g", encoder=ColourEncoder())
    vectors, fields = clustered(ITEMS), [{"n": i} for i in range(ITEMS)]
    ids = [f"item {i:05}" for i in range(ITEMS)]
    gallery.add_vectors(ids[:-500], vectors[:-500], fields=fields[:-500])
    if KINDS[request.param] is not None:
        gallery.build_index(KINDS[request.param])
        search_all_cells(gallery)
    gallery.add_vectors(ids[-500:], vectors[-500:], fields=fields[-500:])
    gallery.delete(ids[::10])
    return gallery


def expected(gallery: mm.Gallery, query: Composition, allowed: np.ndarray, k: int) -> list[tuple[str, float]]:
    totals = query.contributions(term_scores(query.terms, gallery.vectors()[allowed])).sum(axis=0)
    ids = np.array(gallery.ids)[allowed]
    return [(ids[i], totals[i]) for i in top_k(totals, k)] if len(totals) else []


@pytest.mark.parametrize("share", [1.0, 0.1, 0.01, 0.0001, 0.0])
@pytest.mark.parametrize("k", [1, 10, 45, 300])
def test_filtered_rankings_are_exact(big: mm.Gallery, share: float, k: int) -> None:
    step = round(1 / share) if share else ITEMS * 2
    numbers = np.array([int(id_[-5:]) for id_ in big.ids])
    allowed = np.flatnonzero(numbers % step == 1 % step) if share else np.empty(0, int)
    where = None if share == 1 else f"n % {step} = {1 % step}" if share else "n < 0"
    for near in (99, 7, 15_000):
        query = Composition(("query",), unit(clustered(ITEMS)[near][None] + 0.1), (1.0,))
        ranking = big.search(query, k, where=where, exclude=big.ids[5:7] if share == 1 else ())
        if share == 1:
            allowed = np.setdiff1d(np.arange(len(big)), [5, 6])
        hits = [(hit.id, hit.score) for hit in ranking]
        assert hits == expected(big, query, allowed, k)
        assert ranking.searched == len(allowed)


def test_a_filter_that_excludes_the_nearest_items_still_finds_k(big: mm.Gallery) -> None:
    """What the query is near to is filtered away: the index is asked for more, and then everything is scored."""
    vectors = big.vectors()
    query = Composition(("query",), vectors[:1], (1.0,))
    far = np.argsort(vectors @ vectors[0])[: len(big) // 3]
    numbers = {int(big.ids[i][-5:]) for i in far}
    low, high = min(numbers), max(numbers)
    near = set(big.search(query, 9000).ids[:6000])
    ranking = big.search(query, 20, exclude=tuple(near), where=f"n BETWEEN {low} AND {high}")
    allowed = np.array([i for i, id_ in enumerate(big.ids) if id_ not in near and low <= int(id_[-5:]) <= high])
    assert [(hit.id, hit.score) for hit in ranking] == expected(big, query, allowed, 20)
    assert ranking.hidden["excluded"] > 5000


def test_a_rule_that_is_not_linear_scores_all_that_may_appear(big: mm.Gallery) -> None:
    terms = unit(big.vectors()[[3, 900]] + 0.05)
    query = Composition(("text", "composed"), terms, (0.0, 1.0)).with_rule(make_rule("hinge"))
    allowed = np.array([i for i, id_ in enumerate(big.ids) if int(id_[-5:]) % 3 == 1])
    hits = [(hit.id, hit.score) for hit in big.search(query, 30, where="n % 3 = 1")]
    assert hits == expected(big, query, allowed, 30)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, ITEMS - 1), st.integers(1, 60), st.floats(0, 1))
def test_any_query_with_any_deletes(big: mm.Gallery, near: int, k: int, noise: float) -> None:
    rng = np.random.default_rng(near)
    query = Composition(("query",), unit((clustered(ITEMS)[near] + noise * rng.normal(size=ColourEncoder.dim))[None]), (1.0,))
    ranking, expected_hits = big.search(query, k), expected(big, query, np.arange(len(big)), k)
    assert [(hit.id, hit.score) for hit in ranking] == expected_hits


@pytest.fixture
def small(tmp_path: Path) -> mm.Gallery:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    gallery.add_vectors([f"{i:04}" for i in range(3000)], clustered(3000))
    return gallery


def test_an_index_is_extended_and_rebuilt_and_gives_advice(small: mm.Gallery) -> None:
    index = small.build_index("IVF16,SQ8")
    assert (index["factory"], index["rows"], index["uncovered"], index["advice"]) == ("IVF16,SQ8", 3000, 0, None)
    assert index["recall"] >= 0.99
    more = clustered(7000, seed=2)
    small.add_vectors([f"a{i}" for i in range(100)], more[:100])
    assert small.info()["index"]["uncovered"] == 100
    small.add_vectors([f"b{i}" for i in range(900)], more[100:1000])
    assert (small.info()["index"]["rows"], small.info()["index"]["uncovered"]) == (4000, 0)
    small.add_vectors([f"c{i}" for i in range(6000)], more[1000:])
    assert "has grown 3.3 times since it was trained" in small.info()["index"]["advice"]
    small.delete(small.ids[:3000])
    assert "30% of the rows are deleted" in small.info()["index"]["advice"]
    query = Composition(("query",), unit(more[2000][None] + 0.1), (1.0,))
    before = small.search(query, 5)
    small.compact()
    assert (small.info()["index"]["factory"], small.info()["index"]["rows"], small.verify()) == ("IVF16,SQ8", 7000, [])
    assert small.search(query, 5).ids[0] == before.ids[0]


def test_a_large_gallery_without_an_index_is_advised_to_build_one(small: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_manifest, "MAX_FLAT_NUMBERS", 1000)
    assert "searches are slow without one: mmretrieve build" in small.info()["index"]["advice"]
    small.search(Composition(("query",), clustered(1), (1.0,)), 3)
    assert not (small.path / "index.faiss").exists()
    monkeypatch.undo()
    assert small.info()["index"]["advice"] is None


def test_readers_keep_their_index(small: mm.Gallery) -> None:
    small.build_index("IVF16,SQ8")
    query = Composition(("query",), clustered(1), (1.0,))
    small.search(query, 3)
    index = small._view.index
    small.delete(small.ids[:2])
    assert small._view.index is index
    small.build_index("SQfp16")
    assert small._view.index is not index


def test_the_shell_builds_and_reports(small: mm.Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index-report", str(small.path)]) == 1
    assert "there is no index; build one with `mmretrieve build" in capsys.readouterr().err
    assert main(["build", str(small.path), "--index", "IVF16,SQ8", "--quiet"]) == 0
    assert "IVF16,SQ8, recall@10 " in capsys.readouterr().out
    assert main(["index-report", str(small.path), "--recall", "0.9"]) == 0
    output = capsys.readouterr().out
    for name in (
        "recall_at_10",
        "recall_at_100",
        "p50_ms",
        "p99_ms",
        "batch_ms",
        "bytes_per_vector",
        "build_seconds",
        "nprobe",
    ):
        assert name in output
    assert main(["info", str(small.path)]) == 0
    assert "IVF16,SQ8" in capsys.readouterr().out
    for factory, message in (("IVF16", "IVF16"), ("nonsense", "nonsense"), ("IVF99999,SQ8", "99999")):
        assert main(["build", str(small.path), "--index", factory, "--quiet"]) in (0, 2)
        output = capsys.readouterr().err
        assert message in output or not output


def test_devices(small: mm.Gallery) -> None:
    import faiss

    assert mm.Gallery.open(small.path).info()["index"]["device"] in (Device.CPU, Device.CUDA)
    with pytest.raises(OptionError, match="unknown device 'tpu'"):
        mm.Gallery.open(small.path, device="tpu")
    if not faiss.get_num_gpus():
        with pytest.raises(GalleryError, match="there is no CUDA device"):
            mm.Gallery.open(small.path, device="cuda")


@pytest.mark.parametrize("kind", ["IVF", "RaBitQ"])
def test_a_tuned_index_reaches_its_recall_under_any_filter(tmp_path: Path, kind: str) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    vectors = clustered(ITEMS)
    gallery.add_vectors([f"item {i:05}" for i in range(ITEMS)], vectors, fields=[{"n": i} for i in range(ITEMS)])
    gallery.build_index("IVF64,SQ8" if kind == "IVF" else "IVF64,RaBitQ")
    for where, allowed in (("n >= 0", range(ITEMS)), ("n % 2 = 1", range(1, ITEMS, 2)), ("n % 5 = 1", range(1, ITEMS, 5))):
        shares = []
        for near in range(200, ITEMS, 997):
            query = Composition(
                ("query",), unit(vectors[near][None] + 0.2 * vectors[near - 5] - 0.2 * vectors[near - 9]), (1.0,)
            )
            wanted = expected(gallery, query, np.array(allowed), 10)
            shares.append(len({*gallery.search(query, 10, where=where).ids} & {id_ for id_, _ in wanted}) / 10)
        assert np.mean(shares) >= 0.97
        assert min(shares) >= 0.5


def test_scores_of_stored_rows_equal_scores_of_normalized_vectors(big: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_view, "MAX_NUMPY_ROWS", 1000)
    monkeypatch.setitem(products.EXACT_BATCH_SIZES, Device.CPU, 300)
    monkeypatch.setitem(products.APPROXIMATE_BATCH_SIZES, Device.CPU, 700)
    queries = unit(clustered(ITEMS)[[5, 99, 300]] + 0.1)
    expected, scores = term_scores(queries, big.vectors()), big.scores(queries)
    np.testing.assert_allclose(scores, expected, atol=1e-7)
    assert (scores == expected).mean() > 0.9999
    some = big._view.rows[3::2]
    np.testing.assert_array_equal(big._view.scores(queries, some), scores[:, 3::2])
    stored = big._view.float16_rows
    np.testing.assert_array_equal(products.exact_scores(queries, stored)[:, big._view.rows], scores)
    copies = [i for i, id_ in enumerate(big.ids) if 99 <= int(id_[-5:]) < 140]
    assert len(np.unique(scores[:, copies], axis=1).T) == 1


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 300, 3_000])
def test_each_core_scores_batches_of_its_own(
    big: mm.Gallery, threads: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(products.APPROXIMATE_BATCH_SIZES, Device.CPU, 300)
    stored, before, used = big._view.float16_rows, torch.get_num_threads(), set[int]()
    scored = torch.mm

    def noting(*tensors: torch.Tensor) -> torch.Tensor:
        used.add(threading.get_ident())
        assert count <= 300 or torch.get_num_threads() == 1
        return scored(*tensors)

    monkeypatch.setattr(torch, "mm", noting)
    torch.set_num_threads(threads)
    try:
        queries = unit(clustered(ITEMS)[[5, 99]])
        scores = products.approximate_scores(queries, stored, np.arange(count)[::-1])
        np.testing.assert_allclose(scores, queries @ unit(stored[:count][::-1]).T if count else np.empty((2, 0)), atol=1e-6)
        assert torch.get_num_threads() == threads
        assert (threading.get_ident() in used) is (count > 0 and (threads == 1 or count <= 300))
    finally:
        torch.set_num_threads(before)


def test_scoring_never_writes_to_the_stored_vectors(big: mm.Gallery) -> None:
    stored, file = big._view.float16_rows, (big.path / "vectors.f16").read_bytes()
    assert not stored.flags.writeable
    products.exact_scores(unit(stored[:2]), stored)
    products.approximate_scores(unit(stored[:2]), stored)
    assert stored.tobytes() == file[: stored.nbytes]


ROLES = {"image": 99, "text": 7, "composed": 15_000, "prompt": 120}  # role → the item near its term


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rule=st.sampled_from(["linear", "hinge", "soft", "product", "product-harris"]),
    weights=st.lists(st.sampled_from([0.0, 0.3, -0.7, 1.0, 4.0, 3e6, -3e6]), min_size=4, max_size=4).filter(any),
    k=st.sampled_from([1, 10, 300]),
    noise=st.sampled_from([0.0, 1e-7, 1e-3]),
    where=st.sampled_from([None, "n % 3 = 1", "n < 0"]),
)
def test_approximate_scores_propose_and_exact_scores_decide(
    big: mm.Gallery, rule: str, weights: list[float], k: int, noise: float, where: str | None
) -> None:
    terms = unit(clustered(ITEMS)[list(ROLES.values())] + 0.1)
    query = Composition(tuple(ROLES), terms, tuple(weights), rule=make_rule(rule))
    scores = big.approximate_term_scores(query)
    assert np.abs(scores - big.term_scores(query)).max() < 1e-6
    scores += np.float32(noise) * np.random.default_rng(k).uniform(-1, 1, scores.shape).astype(np.float32)
    numbers = np.array([int(id_[-5:]) for id_ in big.ids])
    allowed = np.flatnonzero({None: numbers >= 0, "n % 3 = 1": numbers % 3 == 1, "n < 0": numbers < 0}[where])
    options = SearchOptions(k, where=None if where is None else read_filter(where))
    wanted = expected(big, query, allowed, k)
    for ranking in (big.rank(query, scores, options), *([big.search(query, k, where=where)] if rule != "linear" else ())):
        assert [(hit.id, hit.score) for hit in ranking] == wanted
        assert (ranking.pool, ranking.searched) == (None, len(allowed))


def test_few_rows_are_scored_exactly(big: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    scores = local_view.LocalView.scores

    def counting(view: local_view.LocalView, vectors_qd: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scored.append(len(rows))
        return scores(view, vectors_qd, rows)

    monkeypatch.setattr(local_view.LocalView, "scores", counting)
    query = Composition(("image", "prompt"), unit(clustered(ITEMS)[[7, 15_000]]), (1.0, 1.0), rule=make_rule("product"))
    assert len(big.search(query, 10)) == 10
    assert 10 <= sum(scored) <= 200, f"{scored} of {len(big)}"


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["SQfp16", "IVF16,Flat", "IVF16,SQ8"])
def test_a_gpu_ranks_as_the_cpu_does(small: mm.Gallery, factory: str) -> None:
    import faiss

    if not faiss.get_num_gpus():
        pytest.skip("FAISS finds no GPU")
    small.build_index(factory, recall=1.0)
    on_gpu, on_cpu = mm.Gallery.open(small.path, device="cuda"), mm.Gallery.open(small.path, device="cpu")
    for near in range(0, 3000, 100):
        query = Composition(("query",), unit(clustered(3000)[near][None] + 0.1), (1.0,))
        assert on_gpu.search(query, 20).ids == on_cpu.search(query, 20).ids


@pytest.mark.parametrize("kind", ["IVF64,SQ8", "HNSW8,SQfp16"])
def test_many_searches_of_an_index_that_misses_items_rank_as_single_ones(tmp_path: Path, kind: str) -> None:
    gallery = mm.Gallery.for_vectors(tmp_path / "g", mm.EncoderIdentity("m", "w", "p"), 32)
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(3_000, 32)))
    gallery.add_vectors([f"{i:04}" for i in range(3_000)], vectors, fields=[{"n": i} for i in range(3_000)])
    gallery.build_index(kind)
    manifest = gallery._store.ledger.meta()["index"]
    gallery._store.ledger.set_meta(index=manifest | {"effort": {"probes": 2, "ef": 12, "overfetch": 1}})
    gallery.refresh()
    compositions = [Composition(("image",), query[None], (1.0,)) for query in unit(rng.normal(size=(60, 32)))]
    options = [SearchOptions(5 + i % 2, where=read_filter("n % 4 = 0") if i % 3 == 0 else None) for i in range(60)]
    many = gallery.search_many(compositions, options)
    alone = [gallery.search_many([one], [given])[0] for one, given in zip(compositions, options, strict=True)]
    assert many == alone
    exact = [expected(gallery, one, np.arange(3_000), 5) for one in compositions]
    assert any(found.ids[:5] != [id_ for id_, _ in best] for found, best in zip(many, exact, strict=True)), "it misses nothing"
