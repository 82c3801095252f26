"""An endpoint in each of the four roles: it captions, rewrites, describes targets, and sorts prompts into roles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mmretrieve.composer_input import ComposerInput
from mmretrieve.encoders.base import Progress
from mmretrieve.language.base import Description
from mmretrieve.language.llm.endpoint import ChatEndpoint, ChatRequest, Instructions
from mmretrieve.language.llm.parsing import json_object, phrases, sentence, words_or_none
from mmretrieve.language.roles import Roles, RuleCompiler
from mmretrieve.language.transformers_captioner import pictures_of, shared

SAMPLING = 0.7  # the temperature at which further captions are drawn; at 0 all would be the same
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndpointCaptioner:
    """Says pictures in words. The first caption is the endpoint's own, further ones are samples drawn at `temperature`."""

    endpoint: ChatEndpoint
    temperature: float = SAMPLING
    progress: Progress | None = None

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions a query. Raises OptionError where one has no picture, EndpointError where answers are missing."""
        pictures = pictures_of(queries)
        questions = [
            ChatRequest({}, picture, sample, self.temperature if sample else None)
            for picture in pictures
            for sample in range(count)
        ]
        said = iter(self.endpoint.ask(Instructions.read("caption"), questions, self.progress))
        return [[sentence(next(said)) for _ in range(count)] for _ in queries]


@dataclass(frozen=True)
class EndpointRewriter:
    """Applies prompts to captions, as CIReVL, LDRE and SEIZE do."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewritten caption for each pair, in order. Raises EndpointError where answers are missing."""
        pairs = zip(captions, prompts, strict=True)
        questions = [ChatRequest({"caption": caption.strip(), "prompt": prompt.strip()}) for caption, prompt in pairs]
        return [sentence(said) for said in self.endpoint.ask(Instructions.read("rewrite"), questions, self.progress)]


@dataclass(frozen=True)
class EndpointDescriber:
    """Shows the picture and describes the target in one step, as OSrCIR does. Each answer is read by itself."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def describe(self, queries: Sequence[ComposerInput]) -> list[Description]:
        """One description a query; where an answer cannot be read, one without words, and a warning that counts them.

        Raises OptionError where a query has no picture, EndpointError where answers are missing.
        """
        pictures = pictures_of(queries)
        questions = [ChatRequest({"prompt": query.words()}, picture) for query, picture in zip(queries, pictures, strict=True)]
        answers = self.endpoint.ask(Instructions.read("describe"), questions, self.progress)
        said = [_description(answer) for answer in answers]
        _warn_of_unreadable(sum(one.target is None for one in said), len(said), "the prompt stands for the target")
        return said


@dataclass(frozen=True)
class EndpointCompiler:
    """Sorts prompts into roles, seeing the reference's picture where there is one, else its caption."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def compile(self, queries: Sequence[ComposerInput]) -> list[Roles]:
        """Roles of each query; where an answer cannot be read, those of `RuleCompiler`, and a warning that counts them."""
        answers = self.endpoint.ask(Instructions.read("roles"), [_to_sort(query) for query in queries], self.progress)
        said = [_roles(answer) for answer in answers]
        _warn_of_unreadable(said.count(None), len(said), "rules sorted these prompts")
        by_rule = RuleCompiler().compile(queries)
        return [roles if roles is not None else rule for roles, rule in zip(said, by_rule, strict=True)]


def _to_sort(query: ComposerInput) -> ChatRequest:
    words = {"prompt": query.words()}
    if query.image is not None:
        return ChatRequest(words, shared(query.image))
    return ChatRequest({"caption": query.caption.strip(), **words} if query.caption else words)


def _description(answer: str) -> Description:
    """The field `target`, or else the last one where a model chose another name for it; never the two that lead up to it."""
    found = json_object(answer, ("reference", "thoughts", "target"))
    if found is None:
        return Description(None)
    last = found[next(reversed(found))] if next(reversed(found)) not in ("reference", "thoughts") else None
    return Description(words_or_none(found.get("target", last)), words_or_none(found.get("reference")))


def _roles(answer: str) -> Roles | None:
    found = json_object(answer, ("global", "desired", "preserve", "forbidden"))
    if found is None:
        return None
    several = (phrases(found.get(role)) for role in ("desired", "preserve", "forbidden"))
    return Roles(words_or_none(found.get("global")), *several)


def _warn_of_unreadable(count: int, asked: int, instead: str) -> None:
    if count:
        logger.warning("%d of %d answers could not be read; %s", count, asked, instead)
