"""Runs of TREC: one line a hit, `query Q0 item rank score name`, as trec_eval, ir_measures and ranx read them.

These tools ignore the rank. They sort by score, which trec_eval keeps in single precision, and break ties by id. So scores are written in
single precision, each below the one before: a score that is not is lowered to the next smaller number. Ids with spaces or "%" are written
with %20 and %25. Other escapes, which ids of other tools may have, are read as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from mmretrieve.errors import OptionError
from mmretrieve.ranking.hits import Ranking

RESERVED = re.compile(r"[%\s]")
ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")
RUN_NAME = "mmretrieve"


def run_lines(rankings: Mapping[str, Ranking], name: str = RUN_NAME) -> Iterator[str]:
    """The lines of a run of several queries.

    Parameters
    ----------
    rankings : mapping of str to Ranking
        Query id → ranking.
    name : str, default="mmretrieve"
        The name of the run.

    Raises
    ------
    OptionError
        The name of the run is empty or has spaces, or the id of a query is empty.

    Examples
    --------
    >>> from mmretrieve import Hit
    >>> hits = (Hit(1, "a b.jpg", 0.5, {"image": 0.5}), Hit(2, "c.jpg", 0.5, {"image": 0.5}))
    >>> print(*run_lines({"q1": Ranking(hits, k=2, searched=2, weights={"image": 1.0})}), sep="\\n")
    q1 Q0 a%20b.jpg 1 0.5 mmretrieve
    q1 Q0 c.jpg 2 0.49999997 mmretrieve
    """
    if not name or RESERVED.search(name):
        raise OptionError(f"the name of a run must be a word without spaces, got {name!r}")
    if "" in rankings:
        raise OptionError("the id of a query is empty; a run needs a word there")
    for query, ranking in rankings.items():
        for hit, score in zip(ranking, falling([hit.score for hit in ranking]), strict=True):
            yield f"{escape(query)} Q0 {escape(hit.id)} {hit.rank} {score:.9g} {name}"


def falling(scores: list[float]) -> Iterator[np.float32]:
    """Scores in single precision, each below the one before.

    >>> [float(score) for score in falling([1.0, 1.0, 0.5])]
    [1.0, 0.9999999403953552, 0.5]
    """
    last = np.float32(np.inf)
    for score in scores:
        last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
        yield last


def escape(id_: str) -> str:
    """An id without spaces: they and "%" are written as the hexadecimal values of their UTF-8 bytes.

    >>> escape("a b%"), unescape(escape("a b%"))
    ('a%20b%25', 'a b%')
    """
    return RESERVED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), id_)


def unescape(word: str) -> str:
    """The id that `escape` made a word of. Escapes that it does not write stay.

    >>> unescape("a%20b"), unescape("a%2Fb")
    ('a b', 'a%2Fb')
    """
    return ESCAPED.sub(_unescape, word)


def _unescape(match: re.Match[str]) -> str:
    text = bytes.fromhex(match[0].replace("%", "")).decode(errors="replace")
    return text if all(map(RESERVED.match, text)) else match[0]
