"""A judge in the evaluation: it sees the best items of each query, and its scores are one more term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark, BenchmarkQuery
from mmretrieve.concurrency import map_ahead
from mmretrieve.images import open_image
from mmretrieve.judges.base import Judge, judge_logits
from mmretrieve.judges.reranking import judge_contributions
from mmretrieve.options import DEFAULT_JUDGE_K, MAX_NUMBER

MAX_OPEN_IMAGES = 20  # that are decoded ahead


@dataclass(frozen=True)
class BenchmarkJudge:
    """A judge, how many items of each query it sees, and its weight, from 0 to infinity."""

    judge: Judge
    k: int = DEFAULT_JUDGE_K
    weight: float = 1.0

    def contributions(self, benchmark: Benchmark, query: BenchmarkQuery, scores_g: NDArray[np.float64]) -> NDArray[np.float64]:
        """(items,) scores of the first stage → (items,) contributions of the judge, as `judges.reranking.rerank` makes them.

        With the weight infinity they are so large that the first stage only orders what the judge does not tell apart. JudgeError where it
        fails, because the numbers of a run must not come from two methods.
        """
        rows = benchmark.top_rows(query, scores_g, self.k)
        logits = np.full(len(scores_g), np.nan)
        logits[rows] = self.logits(benchmark, query, [benchmark.gallery_ids[row] for row in rows])
        factor = MAX_NUMBER if self.weight == inf else self.weight
        return factor * judge_contributions(scores_g[rows], logits)

    def logits(self, benchmark: Benchmark, query: BenchmarkQuery, ids: Sequence[str]) -> NDArray[np.float64]:
        """(n,) logits of items under a query; NaN where an item has none."""
        images = map_ahead(lambda id_: open_image(benchmark.load_image(id_)), [query.reference, *ids], MAX_OPEN_IMAGES)
        reference, *candidates = images
        documents = [{"image": candidate} for candidate in candidates]
        return judge_logits(self.judge, {"image": reference, "text": query.prompts[0].strip()}, documents)
