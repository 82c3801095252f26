"""The two halves of a benchmark: constants are chosen on one, and what is reported of the other could not be seen by who chose."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from eval.benchmarks.base import Benchmark

ARTICLE = "article"


def held_out(benchmark: Benchmark) -> NDArray[np.bool_]:
    """(queries,) whether each is of the held-out half: references of articles with an odd checksum, or every other query.

    Where items have an `article`, halves share none of them: what was chosen on shirts is reported of watches.
    """
    articles = [benchmark.fields.get(query.reference, {}).get(ARTICLE) for query in benchmark.queries]
    return np.array([(i if article is None else crc32(article.encode())) % 2 == 1 for i, article in enumerate(articles)])
