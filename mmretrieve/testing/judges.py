"""The contract of judges: objects that look at images and score how well each matches a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmretrieve.judges.base import JudgeScale
from mmretrieve.options import is_number
from mmretrieve.testing.clauses import DEFAULT_TOLERANCE, TEXTS, check_clauses, require, sample_images


def _sample_documents() -> list[dict[str, Any]]:
    return [{"image": image} for image in sample_images()]


def _sample_query() -> dict[str, Any]:
    return {"image": sample_images()[0], "text": TEXTS[0]}


@dataclass(frozen=True)
class _JudgeCase:
    """A judge, a query, documents, and the relative tolerance between scores of one document."""

    judge: Any
    tolerance: float
    query: Mapping[str, Any] = field(default_factory=_sample_query)
    documents: Sequence[Mapping[str, Any]] = field(default_factory=_sample_documents)

    def rank(self) -> list[Mapping[str, Any]]:
        return list(self.judge.rank(self.query, self.documents))

    def scores(self, documents: Sequence[Mapping[str, Any]]) -> list[float]:
        """The score of each document, NaN for one without."""
        scores = {result["corpus_id"]: result["score"] for result in self.judge.rank(self.query, documents)}
        return [float(scores.get(position, np.nan)) for position in range(len(documents))]


def check_judge(judge: Any, *, tolerance: float = DEFAULT_TOLERANCE) -> None:
    """Checks that a judge keeps its contract: `rank(query, documents)` returns ``[{"corpus_id": i, "score": s}, …]``.

    `query` is ``{"image": PIL image, "text": prompt}``, of which a part may be missing; `documents` is ``[{"image": PIL image}, …]``.
    Scores are finite logits; of a judge whose `scale` is "probability", they are from 0 to 1. The order of documents does not matter,
    unless `listwise` of the judge is true.

    Parameters
    ----------
    judge : object
        What is checked.
    tolerance : float, default=1e-3
        The greatest difference between two scores of one document, as a share of the score if that is above 1.

    Raises
    ------
    AssertionError
        A clause is violated. The message is one line that names it.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> class Numbered:
    ...     def rank(self, query, documents):
    ...         return [{"corpus_id": i, "score": float(i)} for i in range(len(documents))]
    >>> try:
    ...     mm.testing.check_judge(Numbered())
    ... except AssertionError as error:
    ...     print(error)
    judge Numbered violates "the order of documents does not matter": document 0 has the score 0.0, and 3.0 in reverse
    """
    case = _JudgeCase(judge, tolerance)
    check_clauses(f"judge {type(judge).__name__}", case, CLAUSES)


def results_have_a_corpus_id_and_a_score(case: _JudgeCase) -> None:
    results = case.rank()
    require(results, f"{len(case.documents)} documents have no results")
    for result in results:
        complete = isinstance(result, Mapping) and {"corpus_id", "score"} <= set(result)
        require(complete, f"got {result!r:.80}")


def corpus_ids_are_positions_of_documents(case: _JudgeCase) -> None:
    for result in case.rank():
        position = result["corpus_id"]
        is_whole = isinstance(position, int | np.integer) and not isinstance(position, bool)
        require(is_whole and 0 <= position < len(case.documents), f"got {position!r:.80} for {len(case.documents)} documents")


def a_document_has_one_result_at_most(case: _JudgeCase) -> None:
    positions = [int(result["corpus_id"]) for result in case.rank()]
    require(len(set(positions)) == len(positions), f"the results are of the documents {positions}")


def scores_are_finite_numbers(case: _JudgeCase) -> None:
    for result in case.rank():
        require(is_number(result["score"]), f"got {result['score']!r:.80}")


def probabilities_are_from_0_to_1(case: _JudgeCase) -> None:
    if getattr(case.judge, "scale", None) == JudgeScale.PROBABILITY:
        for result in case.rank():
            require(0 <= result["score"] <= 1, f"got {result['score']!r:.80}")


def no_documents_have_no_results(case: _JudgeCase) -> None:
    results = list(case.judge.rank(case.query, []))
    require(results == [], f"got {results!r:.80}")


def a_query_can_lack_its_image_or_its_text(case: _JudgeCase) -> None:
    for part in case.query:
        require(
            len(list(case.judge.rank({part: case.query[part]}, case.documents))) > 0, f"a query of {part} alone has no results"
        )


def query_and_documents_are_not_changed(case: _JudgeCase) -> None:
    query, documents = _sample_query(), _sample_documents()
    case.judge.rank(query, documents)
    require(_content(query) == _content(_sample_query()), "rank changed the query")
    require(list(map(_content, documents)) == list(map(_content, _sample_documents())), "rank changed the documents")


def the_order_of_documents_does_not_matter(case: _JudgeCase) -> None:
    if getattr(case.judge, "listwise", False):
        return
    scores, of_reversed = case.scores(case.documents), case.scores(case.documents[::-1])[::-1]
    for position, (one, other) in enumerate(zip(scores, of_reversed, strict=True)):
        is_close = np.isclose(one, other, rtol=case.tolerance, atol=case.tolerance, equal_nan=True)
        require(is_close, f"document {position} has the score {one}, and {other} in reverse")


CLAUSES = (
    results_have_a_corpus_id_and_a_score,
    corpus_ids_are_positions_of_documents,
    a_document_has_one_result_at_most,
    scores_are_finite_numbers,
    probabilities_are_from_0_to_1,
    no_documents_have_no_results,
    a_query_can_lack_its_image_or_its_text,
    query_and_documents_are_not_changed,
    the_order_of_documents_does_not_matter,
)


def _content(parts: Mapping[str, Any]) -> dict[str, object]:
    """What can be compared of a query or a document."""
    return {
        name: value if isinstance(value, str) else (value.mode, value.size, value.tobytes()) for name, value in parts.items()
    }
