"""`build` within a memory: the sizes of indexes are known before they are built, and the limit decides which kinds are tried."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import OptionError
from mmretrieve.gallery.index import builder, kinds, trials
from mmretrieve.gallery.index.builder import build_fastest, build_index
from mmretrieve.gallery.index.factory import index_bytes
from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.index_manifest import IndexManifest
from mmretrieve.gallery.index.kinds import KINDS, MAX_MEMORY_SHARE, factory_of, fitting_kinds
from mmretrieve.gallery.index.plan import FLAT, Device, IndexPlan
from mmretrieve.gallery.index.tuning import composed_queries, exact_best, recall, rescore
from mmretrieve.options import check_bytes, format_bytes
from mmretrieve.vectors import unit

ITEMS, DIM = 1_500, 64
SIZES = {kind: index_bytes(factory_of(kind, ITEMS, DIM), ITEMS, DIM) for kind in KINDS}
SMALLEST = min(SIZES, key=SIZES.__getitem__)
BAD_SIZES = ["4 apples", "-1GB", "0", "", "GB", "1e9", "nan", "4 XB", "0.2", "9" * 40]


@cache
def rows(count: int = ITEMS) -> np.ndarray:
    """(count, DIM) float16 rows in clusters around a common mean, with decreasing variance, as the vectors of images are."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, DIM + 1) ** -0.5
    centers = rng.normal(size=(40, DIM))
    return unit((centers[rng.integers(40, size=count)] + rng.normal(size=(count, DIM))) * spread + 0.3).astype(np.float16)


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "N_QUERIES", 60)
    monkeypatch.setattr(trials, "N_TIMED_QUERIES", 20)


@pytest.fixture
def gallery(tmp_path: Path) -> mm.Gallery:
    ids = [f"{i:04}" for i in range(ITEMS)]
    return mm.Gallery.from_vectors(tmp_path / "g", ids, rows(), fields=[{"n": i} for i in range(ITEMS)])


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("1.5 GiB", 3 << 29), ("500", 500), (" 20 mb ", 20 * 10**6), ("3K", 3000), ("0.001kB", 1), (7, 7)],
)
def test_a_size_is_a_number_of_bytes_or_text(text: str | int, size: int) -> None:
    assert check_bytes("memory", text) == size


@pytest.mark.parametrize("wrong", [*BAD_SIZES, 0, -1, True, 2.5, b"4GB"])
def test_other_sizes_are_refused_before_anything_is_built(wrong: object, gallery: mm.Gallery) -> None:
    with pytest.raises(OptionError, match=r"^memory must be a size of at least 1 byte, such as 4GB, 500MB or 1.5GiB; got "):
        gallery.build_index(memory=wrong)
    assert not (gallery.path / "index.faiss").exists()


@pytest.mark.parametrize("wrong", BAD_SIZES)
def test_the_shell_refuses_them_in_one_line(wrong: str, gallery: mm.Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(gallery.path), f"--memory={wrong}", "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "memory must be a size of at least 1 byte" in line


def test_sizes_have_three_digits() -> None:
    assert [format_bytes(count) for count in (999, 1000, 88_432_100, 999_499_999, 999_500_000, 4e9, 5e15)] == [
        *("999 bytes", "1 kB", "88.4 MB", "999 MB", "1 GB", "4 GB", "5e+03 TB")
    ]


@pytest.mark.parametrize(
    "factory",
    [
        *(factory_of(kind, ITEMS, DIM) for kind in KINDS),
        "Flat",
        "SQ4",
        "PCAR16,RaBitQ4",
        "IVF16_HNSW8,SQ8,Refine(Flat)",
        "RR,HNSW8",
    ],
)
def test_the_size_of_an_index_is_known_before_it_is_built(factory: str) -> None:
    size = FaissIndex.build(IndexPlan(factory, "measured"), rows()).size
    assert index_bytes(factory, ITEMS, DIM) == pytest.approx(size, rel=0.03)
    assert index_bytes(factory, 10 * ITEMS, DIM) > 5 * size * (not factory.startswith("PCA"))


def test_a_factory_string_that_does_not_exist_has_no_size() -> None:
    with pytest.raises(OptionError, match="index factory 'nonsense': could not parse index string nonsense"):
        index_bytes("nonsense", ITEMS, DIM)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_finds_with_exact_scores_what_exact_search_finds(kind: str) -> None:
    built = build_index(rows(), IndexPlan(factory_of(kind, ITEMS, DIM), "measured"), 0.98)
    index, queries = built.index.with_params(built.tuned.params), composed_queries(rows(), 60, seed=1)
    found = rescore(rows(), queries, index.search(queries, 10), 10)
    assert recall(exact_best(rows(), queries, 10), found) >= 0.95


def test_kinds_fit_into_the_memory_that_was_given_or_into_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in SIZES.values():
        for memory in (size, size - 1):
            wanted = [kind for kind in KINDS if SIZES[kind] <= memory]
            monkeypatch.setattr(kinds, "free_memory", lambda memory=memory: memory / MAX_MEMORY_SHARE)
            assert fitting_kinds(ITEMS, DIM) == (wanted or [SMALLEST])
            if wanted:
                assert fitting_kinds(ITEMS, DIM, memory) == wanted


def test_more_memory_is_never_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "resolve_device", lambda _: Device.CPU)
    reached = []
    for memory in sorted(SIZES.values()):
        built = build_fastest(rows(), 0.99, memory=memory)
        assert built.index.size <= 1.03 * memory
        reached.append(min(built.tuned.recall, 0.99))
    assert reached == sorted(reached)
    assert reached[-1] == 0.99


def test_where_nothing_fits_the_smallest_is_named(gallery: mm.Gallery, capsys: pytest.CaptureFixture[str]) -> None:
    factory, needed = factory_of(SMALLEST, ITEMS, DIM), SIZES[SMALLEST]
    message = f"memory 2 kB is too small for 1,500 × {DIM} numbers: the smallest index, {factory}, needs {needed:,} bytes"
    with pytest.raises(OptionError, match=f"^{message}$"):
        gallery.build_index(memory="2kB")
    assert main(["build", str(gallery.path), "--memory", "2kB", "--quiet"]) == 2
    assert capsys.readouterr().err == f"mmretrieve: {message}\n"
    assert gallery.build_index(memory=needed)["factory"] == factory


def test_a_requested_index_has_to_fit(gallery: mm.Gallery) -> None:
    needed = SIZES[FLAT]
    with pytest.raises(OptionError, match=f"index factory 'SQfp16': needs {needed:,} bytes, more than the memory of 100 kB"):
        gallery.build_index(FLAT, memory="100kB")
    with pytest.raises(OptionError, match="index factory 'nonsense': could not parse"):
        gallery.build_index("nonsense", memory="1GB")
    assert gallery.build_index(FLAT, memory=needed)["reason"] == (
        "requested by name; it takes 192 kB of 192 kB; the stored vectors, which rescore, stay on the disk"
    )


def test_the_memory_is_kept_and_an_index_that_grew_beyond_it_is_reported(gallery: mm.Gallery) -> None:
    memory = round(1.1 * SIZES["IVF{cells},RaBitQ"])
    index = gallery.build_index("IVF128,RaBitQ", recall=0.9, memory=memory)
    assert index["advice"] is None
    gallery.delete(gallery.ids[:100])
    gallery.compact()
    manifest = IndexManifest.of(gallery._store)
    assert (manifest.factory, manifest.rows, manifest.memory) == ("IVF128,RaBitQ", ITEMS - 100, memory)
    gallery.add_vectors([f"new {i}" for i in range(1000)], rows(2500)[ITEMS:])
    advice = gallery.info()["index"]["advice"]
    assert advice.startswith("it has grown to ")
    assert f"beyond the memory of {format_bytes(memory)}: mmretrieve build {gallery.path} --memory SIZE" in advice
    assert IndexManifest.from_dict(manifest.to_dict()) == manifest
    short = replace(manifest, rows=manifest.rows + 1000, memory=1 << 40, recall=0.5)
    gallery._store.ledger.set_meta(index=short.to_dict())
    assert gallery.info()["index"]["advice"] == "it reached a recall of 0.500, not 0.9: build one with more memory"
    with pytest.raises(ValueError, match="memory of the index is 'much'"):
        IndexManifest.from_dict(manifest.to_dict() | {"memory": "much"})


def test_a_gallery_without_a_limit_has_none_in_its_ledger(gallery: mm.Gallery) -> None:
    gallery.build_index("Flat")
    meta = gallery._store.ledger.meta()
    assert "memory" not in {**meta["index"], **meta["index_wanted"]}
    assert IndexManifest.of(gallery._store).memory is None
