"""Judges behind an OpenAI-compatible endpoint: one candidate at a time, all candidates at once, or a server that reranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from mmretrieve.images import ImageLike
from mmretrieve.judges.base import JudgeScale, log_odds
from mmretrieve.judges.order import candidate_orders
from mmretrieve.language.llm.client import json_object, yes_logit
from mmretrieve.language.llm.endpoint import ChatEndpoint, ChatRequest, Instructions
from mmretrieve.options import DEFAULT_JUDGE_SECONDS, check_count

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
    seconds : float, default=20
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
    seconds: float = DEFAULT_JUDGE_SECONDS

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
    a candidate that it leaves out has no score. The answer may depend on the order of the candidates (`measure_order_effect`); with several
    orders, a candidate has the mean of its scores in those that name it.

    Parameters
    ----------
    endpoint : ChatEndpoint
        The model, and the cache of its answers.
    seconds : float, default=20
        How long all answers together may take.
    orders : int, default=1
        The number of orders in which the candidates are shown, one request each: the given one, its reverse, and random ones.

    Raises
    ------
    OptionError
        `orders` is not a whole number of at least 1.

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
    seconds: float = DEFAULT_JUDGE_SECONDS
    orders: int = 1
    listwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("orders", self.orders)

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says. Raises EndpointError if there is no answer."""
        if not documents:
            return []
        texts = {**_texts(query), "reference": "the first picture" if "image" in query else "none"}
        texts |= {"candidates": f"{len(documents)}, numbered from 1"}
        orders = candidate_orders(len(documents), self.orders)
        requests = [ChatRequest(texts, (*_reference(query), *(documents[i]["image"] for i in order))) for order in orders]
        answers = self.endpoint.complete_within(Instructions.read("judge_list"), requests, self.seconds)
        scores: dict[int, list[float]] = {}
        for order, answer in zip(orders, answers, strict=True):
            for place, number in enumerate(_read_numbers(answer or "", len(documents))):
                scores.setdefault(order[number], []).append(log_odds((len(documents) - place - 0.5) / len(documents)))
        return [{"corpus_id": i, "score": fmean(own)} for i, own in scores.items()]


@dataclass(frozen=True)
class RerankJudge:
    """Sends all candidates to `POST …/rerank`, as vLLM, Cohere and Jina serve it. Scores are relevances from 0 to 1.

    Parameters
    ----------
    endpoint : ChatEndpoint
        The model and its server. Its cache stores one answer for each candidate.
    seconds : float, default=20
        How long the answer may take.

    Examples
    --------
    >>> from mmretrieve.language.llm.endpoint import ChatEndpoint
    >>> judge = RerankJudge(ChatEndpoint("jina-reranker-m0", "http://127.0.0.1:8000/v1"))
    >>> judge.rank({"text": "in red"}, [])
    []
    """

    endpoint: ChatEndpoint
    seconds: float = DEFAULT_JUDGE_SECONDS
    scale: ClassVar[JudgeScale] = JudgeScale.PROBABILITY

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says. Raises EndpointError if there is no answer."""
        candidates = [document["image"] for document in documents]
        scores = self.endpoint.rerank(query.get("text", ""), _reference(query), candidates, self.seconds)
        return [{"corpus_id": i, "score": score} for i, score in enumerate(scores) if score is not None]


def _read_numbers(answer: str, count: int) -> list[int]:
    """The positions that a list of numbers from 1 names, each once."""
    numbers = (json_object(answer, ["order"]) or {}).get("order")
    known = [n - 1 for n in numbers if type(n) is int and 0 < n <= count] if isinstance(numbers, list) else []
    return list(dict.fromkeys(known))


def _texts(query: Mapping[str, Any]) -> dict[str, str]:
    return {"prompt": query["text"]} if "text" in query else {}


def _reference(query: Mapping[str, Any]) -> tuple[ImageLike, ...]:
    return (query["image"],) if "image" in query else ()
