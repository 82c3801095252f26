"""What judges with a model on this machine share: one candidate at a time, within a time, each logit cached by content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import isfinite
from time import monotonic
from typing import Any, ClassVar

from PIL import Image

from mmretrieve.encoders.checkpoints import one_line
from mmretrieve.errors import JudgeError
from mmretrieve.language.llm.cache import AnswerCache, picture_key
from mmretrieve.language.llm.endpoint import Instructions
from mmretrieve.options import DEFAULT_JUDGE_SECONDS


class ModelJudge(ABC):
    """Scores candidates one by one, so neither their order nor other candidates matter.

    Parameters
    ----------
    model : str
        The name of the model, under which answers are cached.
    cache : AnswerCache, optional
        Where logits are stored and looked up. Default: nothing is stored.
    seconds : float, default=20
        How long all answers together may take; candidates that are not reached have no score. The first one is always scored.
    """

    task: ClassVar[str]  # of cached answers

    def __init__(self, model: str, cache: AnswerCache | None = None, seconds: float = DEFAULT_JUDGE_SECONDS) -> None:
        self.model, self.cache, self.seconds = model, cache, seconds
        self._instructions = Instructions.read("judge")

    @abstractmethod
    def _logit(self, query: Mapping[str, Any], candidate: Image.Image) -> float:
        """How well one candidate matches a query of `Judge.rank`."""

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Scores documents as `Judge.rank` says."""
        started, answers = monotonic(), []
        for i, document in enumerate(documents):
            fields = self._cache_fields(query, document["image"])
            logit = None if self.cache is None else self.cache.get(self.task, self.model, fields)
            if logit is None and (i == 0 or monotonic() - started < self.seconds):
                logit = self._logit(query, document["image"])
                if self.cache is not None and isfinite(float(logit)):
                    self.cache.put(self.task, self.model, fields, logit)
            if logit is not None:
                answers.append({"corpus_id": i, "score": float(logit)})
        return answers

    def _cache_fields(self, query: Mapping[str, Any], candidate: Image.Image) -> dict[str, object]:
        pictures = [query["image"], candidate] if "image" in query else [candidate]
        texts = {"prompt": query.get("text", ""), "instructions": self._instructions.digest}
        return texts | {"pictures": list(map(picture_key, pictures))}


def load_error(model: str, error: Exception, expected: str) -> JudgeError:
    """The error for a model that cannot be loaded. expected: what to give instead."""
    return JudgeError(f"{model}: the judge could not be loaded ({one_line(error)}); without a network, give {expected}")
