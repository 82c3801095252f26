"""The `Judge` protocol, and how the answers of a judge are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmretrieve.encoders.checkpoints import one_line
from mmretrieve.errors import JudgeError

MIN_PROBABILITY = 1e-6  # and 1 minus it: logits stay within 14 of 0
EXPECTED = '[{"corpus_id": 0, "score": 1.5}, …]'


class JudgeScale(StrEnum):
    """What the scores of a judge are."""

    LOGIT = "logit"
    PROBABILITY = "probability"


@runtime_checkable
class Judge(Protocol):
    """Looks at images and scores how well each matches a query. Any object with this method is a judge, such as a `CrossEncoder`.

    An attribute `scale` of "probability" says that scores are probabilities; otherwise they are logits. A judge that reads patches has an
    attribute `patch_encoder`, the identity of their encoder: documents then have ``{"patches": ndarray of shape (p, d)}`` in place of the image
    where a gallery of this encoder stores them.

    Examples
    --------
    >>> from mmretrieve.judges.base import Judge
    >>> class Undecided:
    ...     def rank(self, query, documents):
    ...         return [{"corpus_id": i, "score": 0.0} for i in range(len(documents))]
    >>> isinstance(Undecided(), Judge)
    True
    """

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Scores documents under a query.

        Parameters
        ----------
        query : mapping
            ``{"image": PIL image, "text": prompt}``; a part that the request does not have is left out.
        documents : sequence of mapping
            ``{"image": PIL image}`` for each candidate, best first.

        Returns
        -------
        sequence of mapping
            ``{"corpus_id": i, "score": s}`` in any order, where i is the position of the document and s is higher for a better match. The
            first score of a document counts.
        """
        ...


def judge_logits(judge: Judge, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Returns the logits that a judge gives to documents.

    Parameters
    ----------
    judge : Judge
        It is called once; not at all for no documents.
    query, documents : mapping, sequence of mapping
        As in `Judge.rank`.

    Returns
    -------
    ndarray of shape (n,), float64
        NaN for a document without a finite score.

    Raises
    ------
    JudgeError
        The judge failed, or scored none of the documents.

    Examples
    --------
    >>> class Confident:
    ...     scale = "probability"
    ...     def rank(self, query, documents):
    ...         return [{"corpus_id": 1, "score": 0.5}, {"corpus_id": 7, "score": 1.0}]
    >>> judge_logits(Confident(), {"text": "in red"}, [{}, {}]).tolist()
    [nan, 0.0]
    """
    logits = np.full(len(documents), np.nan)
    if not documents:
        return logits
    name = type(judge).__name__
    try:
        answers = _scores(judge.rank(query, documents))
    except JudgeError as error:
        raise JudgeError(f"{name} {error}") from None
    except Exception as error:  # of a model or a package that others wrote
        raise JudgeError(f"{name} failed ({type(error).__name__}: {one_line(error)})") from error
    for position, score in answers:
        if 0 <= position < len(documents) and np.isnan(logits[position]):
            logits[position] = score
    if getattr(judge, "scale", JudgeScale.LOGIT) == JudgeScale.PROBABILITY:
        logits = _logits(logits)
    logits[~np.isfinite(logits)] = np.nan
    if np.isnan(logits).all():
        raise JudgeError(f"{name} scored none of the {len(documents)} items that it saw")
    return logits


def log_odds(probability: float) -> float:
    """The logit of a probability, which is at least 1e-6 and at most 1 minus that.

    >>> log_odds(0.5), round(log_odds(1.0), 2)
    (0.0, 13.82)
    """
    return float(_logits(np.array(probability, dtype=np.float64)))


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probabilities, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _scores(answers: Any) -> list[tuple[int, float]]:
    """The position and the score of each answer. Raises JudgeError for another form."""
    try:
        return [(int(answer["corpus_id"]), float(answer["score"])) for answer in answers]
    except (TypeError, ValueError, KeyError, IndexError):
        raise JudgeError(f"answered {answers!r:.80}, not {EXPECTED}") from None
