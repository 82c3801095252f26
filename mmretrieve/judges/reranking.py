"""Adds the term of a judge to a ranking: its first hits are scored again, and contributions still sum to the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmretrieve.errors import JudgeError
from mmretrieve.judges.base import Judge, judge_logits
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.request import SearchRequest

JUDGE = "judge"
SAME_SCORES = 1e-9  # relative difference of scores that count as equal
WITHOUT = "this is the order without the judge"


def judge_query(request: SearchRequest, reference: Image.Image | None) -> dict[str, Any]:
    """Returns a request as a judge gets it: its first reference, and its prompts and what it avoids as one text.

    >>> judge_query(SearchRequest(prompt=("in red", "longer"), avoid=("stripes",)), None)
    {'text': 'in red, longer, without stripes'}
    """
    text = ", ".join([*request.prompt, *(f"without {phrase}" for phrase in request.avoid)])
    return ({} if reference is None else {"image": reference}) | ({"text": text} if text else {})


def judge_hits(
    ranking: Ranking,
    judge: Judge,
    request: SearchRequest,
    query: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any] | None],
) -> Ranking:
    """Returns the k best hits of a request after a judge has seen the first ones; without it, with a note, if it fails.

    Parameters
    ----------
    ranking : Ranking
        The hits of the first stage, at least as many as there are documents.
    judge : Judge
        What scores them.
    request : SearchRequest
        Its k and judge_weight count.
    query : mapping
        The query of the judge, as `judge_query` makes it.
    documents : sequence of mapping or None
        What the judge gets of the first m hits; None for a hit without an image, which it cannot see.
    """
    visible = {i: document for i, document in enumerate(documents) if document is not None}
    logits = np.full(len(documents), np.nan)
    try:
        logits[list(visible)] = judge_logits(judge, query, list(visible.values()))
        note = _scores_note(logits)
    except JudgeError as error:
        note = f"{error}; {WITHOUT}"
    ranking = rerank(ranking, logits, float(request.judge_weight))
    return replace(
        ranking, hits=ranking.hits[: request.k], k=request.k, note="; ".join(filter(None, [ranking.note, note])) or None
    )


def rerank(ranking: Ranking, logits: Sequence[float] | NDArray[np.float64], weight: float = 1.0) -> Ranking:
    """Adds the scores of a judge to a ranking as one more term.

    The contribution of the judge is ``weight · s · (logit − mean logit)``, where s is the standard deviation of the scores of the first
    m hits: at weight 1, a logit counts as much as one standard deviation of the first stage. A constant judge therefore changes nothing. A hit
    that has no logit counts as the worst one that has. With the weight infinity, the other contributions are 0.

    Parameters
    ----------
    ranking : Ranking
        n hits of the first stage.
    logits : array-like of shape (m,)
        The logits of its first m <= n hits; NaN for a hit that has none.
    weight : float, default=1
        The weight of the judge, from 0 to infinity.

    Returns
    -------
    Ranking
        The same hits in the order of the new scores. Of equal scores, those with a logit come first, and then the order stays.

    Source
    ------
    The first stage keeps its say, unlike in WISER (CVPR 2026), which drops it and loses recall beyond the first hits.

    Examples
    --------
    >>> hits = [Hit(rank, id_, score, {"image": score}) for rank, (id_, score) in enumerate([("a", 0.9), ("b", 0.7)], start=1)]
    >>> first = Ranking(tuple(hits), k=2, searched=2, weights={"image": 1.0})
    >>> [(hit.id, round(hit.score, 2)) for hit in rerank(first, [-3.0, 3.0])]
    [('b', 1.0), ('a', 0.6)]
    >>> rerank(first, [0.5, 0.5]).ids
    ('a', 'b')
    """
    values = np.asarray(logits, dtype=np.float64)
    if np.isnan(values).all():
        return ranking
    complete = np.append(values, np.full(len(ranking.hits) - len(values), np.nan))
    share, factor = (0.0, 1.0) if weight == inf else (1.0, weight)
    contributions = factor * judge_contributions([hit.score for hit in ranking.hits[: len(values)]], complete)
    new = [_with_judge(hit, share, own) for hit, own in zip(ranking.hits, contributions.tolist(), strict=True)]
    judged = [new[i] for i in np.lexsort((np.isnan(complete), [-hit.score for hit in new]))]
    hits = (Hit(rank, hit.id, hit.score, hit.contributions, hit.path) for rank, hit in enumerate(judged, start=1))
    return replace(ranking, hits=tuple(hits))


def judge_contributions(
    scores: Sequence[float] | NDArray[np.float64], logits: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """The contributions of a judge of weight 1, as `rerank` defines them.

    Parameters
    ----------
    scores : array-like of shape (m,)
        The scores that the first stage gave to the hits that the judge was to see.
    logits : array-like of shape (n,)
        The logits of n items, at least one of which has one; NaN for an item that has none.

    Examples
    --------
    >>> judge_contributions([0.9, 0.7], [-3.0, 3.0, np.nan]).round(2).tolist()
    [-0.3, 0.3, -0.3]
    """
    values = np.asarray(logits, dtype=np.float64)
    scored, first = values[~np.isnan(values)], np.asarray(scores, dtype=np.float64)
    differ = np.ptp(first) > SAME_SCORES * np.abs(first).max()  # the deviation of equal numbers is not quite 0
    spread = float(np.std(first)) if differ else 1.0
    return np.asarray(spread * (np.where(np.isnan(values), scored.min(), values) - scored.mean()))


def _scores_note(logits: NDArray[np.float64]) -> str | None:
    """What is worth knowing of the logits of the items, NaN for those without one."""
    count, scored = len(logits), logits[~np.isnan(logits)]
    if count and not len(scored):
        return f"there is no image of the {count} best hits for the judge; {WITHOUT}"
    if len(scored) < count:
        return f"the judge scored {len(scored)} of the {count} items; the others count as the worst of these"
    return f"the judge scored all {count} items alike; {WITHOUT}" if count > 1 and (scored == scored[0]).all() else None


def _with_judge(hit: Hit, share: float, contribution: float) -> Hit:
    contributions = {name: share * value for name, value in hit.contributions.items()} | {JUDGE: contribution}
    return Hit(hit.rank, hit.id, share * hit.score + contribution, contributions, hit.path)
