"""The benchmark scripts run at a small size, and measure what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from benchmarks import search
from benchmarks.growth import fill
from benchmarks.million import DIM


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmarks") / "g"
    fill(path, 1_500, DIM)
    return path


def test_searches_are_compared_with_plain_faiss(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "N_QUERIES", 5)
    result = search.measure_index(path, "flat")
    assert result["factory"] == "SQfp16"
    assert result["recall@10"] == {"plain FAISS": pytest.approx(1, abs=0.03), "candidates": 1.0}
    for hits in result["hits"].values():
        assert list(hits) == ["plain FAISS", "candidates", "whole search"]
        assert hits["plain FAISS"]["times plain FAISS"] == {"median": 1, "p10": 1, "p90": 1}
        assert all(0 < way["p10"] <= way["median"] <= way["p90"] <= way["p99"] for way in hits.values())
    view = mm.Gallery.open(path, device="cpu")._view
    query = view.vectors[7]
    assert search.search_plain(view, query, 10).tolist() == search.search_candidates(view, query, 10).tolist()


def test_scores_of_all_items_are_timed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "N_MOVES", 3)
    monkeypatch.setattr(search, "N_SCANS", 2)
    result = search.measure_all_items(path)
    assert len(result) == 6
    assert all(np.isfinite(list(times.values())).all() for times in result.values())
