"""Judges behind an OpenAI-compatible endpoint: one candidate at a time, all candidates at once, or a server that reranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmretrieve.images import ImageLike
from mmretrieve.judges.base import JudgeScale, log_odds
from mmretrieve.language.llm.client import json_object, yes_logit
from mmretrieve.language.llm.endpoint import ChatEndpoint, ChatRequest, Instructions

DEFAULT_SECONDS = 60.0  # for all candidates of one search
LOGPROBS = {"logprobs": True, "top_logprobs": 20}


@dataclass(frozen=True)
class PointwiseJudge:
    """Asks a vision-language model of each candidate whether it matches. The score is the logit of "yes" against "no".

    Answers are cached by the content of the images, so the order of candidates and other candidates do not matter.

    Parameters
    ----------
    endpoint : ChatEndpoint
        The model, and the cache of its answers.
    max_calls : int, optional
        The number of candidates, best first, that are judged; the others have no score. Default: all.
    seconds : float, default=60
        How long all answers together may take; candidates without an answer have no score.

    Source
    ------
    WISER (CVPR 2026): logits of yes and no at the position of the answer.

    Examples
    --------
    >>> from mmretrieve.language.llm.endpoint import ChatEndpoint
    >>> judge = PointwiseJudge(ChatEndpoint("qwen", "http://127.0.0.1:8000/v1"), max_calls=10)
    >>> judge.rank({"text": "in red"}, [])
    []
    """

    endpoint: ChatEndpoint
    max_calls: int | None = None
    seconds: float = DEFAULT_SECONDS

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says. Raises EndpointError if there is no answer at all."""
        instructions = Instructions.read("judge", settings=LOGPROBS, read_reply=yes_logit)
        judged = documents[: self.max_calls]
        requests = [ChatRequest(_texts(query), (*_reference(query), document["image"])) for document in judged]
        answers = self.endpoint.complete_within(instructions, requests, self.seconds) if requests else []
        return [{"corpus_id": i, "score": float(answer)} for i, answer in enumerate(answers) if answer is not None]


@dataclass(frozen=True)
class ListwiseJudge:
    """Shows all candidates to a vision-language model in one request, which puts them in order.

    The score of a candidate is the logit of the share of candidates that are behind it. A number that the model repeats or invents is ignored;
    a candidate that it leaves out has no score. The answer may depend on the order of the candidates.

    Parameters
    ----------
    endpoint : ChatEndpoint
        The model, and the cache of its answers.
    seconds : float, default=60
        How long the answer may take.

    Source
    ------
    CoTRR: one call for the ten best.

    Examples
    --------
    >>> from mmretrieve.language.llm.endpoint import ChatEndpoint
    >>> judge = ListwiseJudge(ChatEndpoint("qwen", "http://127.0.0.1:8000/v1"))
    >>> judge.rank({"text": "in red"}, [])
    []
    """

    endpoint: ChatEndpoint
    seconds: float = DEFAULT_SECONDS
    listwise: ClassVar[bool] = True

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says. Raises EndpointError if there is no answer."""
        if not documents:
            return []
        candidates = [document["image"] for document in documents]
        texts = {**_texts(query), "reference": "the first picture" if "image" in query else "none"}
        request = ChatRequest(texts | {"candidates": f"{len(candidates)}, numbered from 1"}, (*_reference(query), *candidates))
        (answer,) = self.endpoint.complete_within(Instructions.read("judge_list"), [request], self.seconds)
        numbers = (json_object(answer or "", ["order"]) or {}).get("order")
        known = [n - 1 for n in numbers if type(n) is int and 0 < n <= len(documents)] if isinstance(numbers, list) else []
        order = list(dict.fromkeys(known))
        scores = (log_odds((len(documents) - place - 0.5) / len(documents)) for place in range(len(order)))
        return [{"corpus_id": i, "score": score} for i, score in zip(order, scores, strict=True)]


@dataclass(frozen=True)
class RerankJudge:
    """Sends all candidates to `POST …/rerank`, as vLLM, Cohere and Jina serve it. Scores are relevances from 0 to 1.

    Parameters
    ----------
    endpoint : ChatEndpoint
        The model and its server. Its cache stores one answer for each candidate.

    Examples
    --------
    >>> from mmretrieve.language.llm.endpoint import ChatEndpoint
    >>> judge = RerankJudge(ChatEndpoint("jina-reranker-m0", "http://127.0.0.1:8000/v1"))
    >>> judge.rank({"text": "in red"}, [])
    []
    """

    endpoint: ChatEndpoint
    scale: ClassVar[JudgeScale] = JudgeScale.PROBABILITY

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says. Raises EndpointError if there is no answer."""
        candidates = [document["image"] for document in documents]
        scores = self.endpoint.rerank(query.get("text", ""), _reference(query), candidates)
        return [{"corpus_id": i, "score": score} for i, score in enumerate(scores) if score is not None]


def _texts(query: Mapping[str, Any]) -> dict[str, str]:
    return {"prompt": query["text"]} if "text" in query else {}


def _reference(query: Mapping[str, Any]) -> tuple[ImageLike, ...]:
    return (query["image"],) if "image" in query else ()
