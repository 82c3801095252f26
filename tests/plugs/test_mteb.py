"""A tiny composed task through the real mteb: its nDCG@10 is that of the ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import SearchProtocol
from PIL import Image

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from eval.metrics import ndcg_at
from mmretrieve.errors import OptionError
from mmretrieve.integrations.mteb import MtebModel

QUERIES, ITEMS = 40, 300
PICTURES = mm.wardrobe.pictures_folder()


class Wardrobe(AbsTaskRetrieval):
    """Queries of the wardrobe over some of its images."""

    metadata = TaskMetadata(
        name="WardrobeIT2IRetrieval",
        description="Drawings of clothes.",
        reference=None,
        dataset={"path": "none", "revision": "none"},
        type="Any2AnyRetrieval",
        category="it2i",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Web"],
        task_subtypes=["Image Text Retrieval"],
        license="apache-2.0",
        annotations_creators="derived",
        dialect=[],
        modalities=["text", "image"],
        sample_creation="found",
        bibtex_citation="",
    )

    def load_data(self, *_: Any, **__: Any) -> None:
        benchmark = load_benchmark("wardrobe")
        queries = benchmark.queries[:QUERIES]
        needed = {id_ for query in queries for id_ in query.targets}
        ids = sorted(needed | set(benchmark.gallery_ids[:ITEMS]))
        images = [Image.open(PICTURES / id_) for id_ in ids]
        self.dataset = {
            "default": {
                "test": {
                    "corpus": Dataset.from_dict({"id": ids, "image": images}),
                    "queries": Dataset.from_dict(
                        {
                            "id": [f"q{i}" for i in range(QUERIES)],
                            "text": [query.prompts[0] for query in queries],
                            "image": [Image.open(PICTURES / query.reference) for query in queries],
                        }
                    ),
                    "relevant_docs": {f"q{i}": dict.fromkeys(query.targets, 1) for i, query in enumerate(queries)},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def evaluate(model: MtebModel, tmp_path: Path) -> dict[str, Any]:
    cache = mteb.ResultCache(tmp_path)
    result = mteb.evaluate(model, Wardrobe(), cache=cache, overwrite_strategy="always")
    return dict(result.task_results[0].scores["test"][0])


@pytest.mark.parametrize(
    "options", [{"composer": "sum"}, {}, {"beta": 0.75, "alpha_image": 1.4, "alpha_text": 1.2}], ids=["sum", "auto", "pdv"]
)
def test_mteb_measures_what_the_ranks_say(options: dict[str, Any], tmp_path: Path) -> None:
    model = MtebModel(**options)
    assert isinstance(model, SearchProtocol)
    scores = evaluate(model, tmp_path)
    task = Wardrobe()
    task.load_data()
    data = task.dataset["default"]["test"]
    found = model.search(data["queries"], top_k=1000)
    values = []
    for id_, row in found.items():
        assert len(row) == len(data["corpus"])
        ranked = sorted(row, key=lambda item: (-row[item], item))
        ranks = [rank for rank, item in enumerate(ranked, start=1) if item in data["relevant_docs"][id_]]
        values.append(ndcg_at(np.array(ranks), 10))
    assert 100 * scores["ndcg_at_10"] == pytest.approx(np.mean(values), abs=1e-3)  # mteb rounds to five digits
    assert 0.3 < scores["ndcg_at_10"] < 1


def test_a_task_that_does_not_fit_is_one_line() -> None:
    model = MtebModel()
    with pytest.raises(OptionError, match="a corpus needs the column 'image', and this one has only: id, text"):
        model.index(Dataset.from_dict({"id": ["a"], "text": ["b"]}))
    with pytest.raises(OptionError, match="this task ranks given candidates"):
        model.search(Dataset.from_dict({"id": [], "text": []}), top_k=3, top_ranked={"a": ["b"]})
