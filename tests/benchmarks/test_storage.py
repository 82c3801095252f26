"""`benchmarks.storage`: what it measures on a few vectors, and its tables in the guide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.storage import CENTERED, FLOAT8, RESCORED, STORAGES, StoredVectors, index_table, measure_storages, table
from mmretrieve.gallery.index.tuning import composed_queries
from mmretrieve.vectors import unit

ROOT = Path(__file__).parents[2]
DIM = 32


def test_storages_are_measured_before_and_after_exact_scores() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng.normal(size=(1000, DIM)) * np.arange(1, DIM + 1) ** -0.5 + 0.3).astype(np.float16)
    measured = dict(measure_storages(StoredVectors(rows, composed_queries(rows, 20))))
    assert [*measured] == [*STORAGES, CENTERED, *FLOAT8]
    assert measured["float16"]["recall@10"] == 1
    for name, bits in {"float16": 16, "int8": 8, "4 bits": 4, "TurboQuant, 2 bits": 2, **dict.fromkeys(FLOAT8, 8)}.items():
        assert measured[name]["bytes"] == DIM * bits / 8
        assert measured[name]["times fewer bytes"] == 32 / bits
    for entry in measured.values():
        assert entry["recall@10"] <= entry[f"recall@10{RESCORED}"]
        assert entry["map@10"] is None
    recalls = [
        measured[name]["recall@10"] for name in ("int8", "float8, e4m3", "float8, e5m2", "RaBitQ, 2 bits", "RaBitQ, 1 bit")
    ]
    assert recalls == sorted(recalls, reverse=True)
    assert measured["PCA 1/2, int8"]["recall@10"] > measured[CENTERED]["recall@10"]


def test_the_tables_of_the_guide_are_what_was_measured() -> None:
    result = json.loads((ROOT / "results" / "storage.json").read_text(encoding="utf-8"))
    guide = (ROOT / "docs" / "guides" / "gallery.md").read_text(encoding="utf-8")
    for lines in (table(result), index_table(result)):
        assert lines in guide
