"""A language model in each role: captioner, rewriter, paraphraser, describer, editor and role compiler over one `ChatEndpoint`."""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mmretrieve.composer_input import ComposerInput
from mmretrieve.encoders.base import Progress
from mmretrieve.images import ImageLike, open_image
from mmretrieve.language.base import Description, Roles, reference_images, thread_safe_image
from mmretrieve.language.llm.client import clean_sentence, json_object, phrases, text_or_none
from mmretrieve.language.llm.endpoint import ChatEndpoint, ChatRequest, Instructions
from mmretrieve.language.role_compiler import RuleCompiler

EDIT_SIDE = 1024  # pixels of the longest side of an image to be edited
SAMPLING_TEMPERATURE = 0.7  # of captions after the first; at 0 all would be equal
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndpointCaptioner:
    """Captions images. The first caption has the endpoint's temperature, further ones are samples at `temperature`."""

    endpoint: ChatEndpoint
    temperature: float = SAMPLING_TEMPERATURE
    progress: Progress | None = None

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """`count` captions for each query.

        Raises
        ------
        OptionError : if a query has no image.
        EndpointError : if requests have no answer.
        """
        requests = [
            ChatRequest({}, (image,), sample, self.temperature if sample else None)
            for image in reference_images(inputs)
            for sample in range(count)
        ]
        answers = iter(self.endpoint.complete(Instructions.read("caption"), requests, self.progress))
        return [[clean_sentence(next(answers)) for _ in range(count)] for _ in inputs]


@dataclass(frozen=True)
class EndpointRewriter:
    """Applies prompts to captions. Source: CIReVL (arXiv 2310.09291); LDRE and SEIZE do the same for many captions."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewritten caption for each pair, in order.

        Raises
        ------
        EndpointError : if requests have no answer.
        """
        pairs = zip(captions, prompts, strict=True)
        requests = [ChatRequest({"caption": caption.strip(), "prompt": prompt.strip()}) for caption, prompt in pairs]
        answers = self.endpoint.complete(Instructions.read("rewrite"), requests, self.progress)
        return [clean_sentence(answer) for answer in answers]


@dataclass(frozen=True)
class EndpointParaphraser:
    """Puts prompts into other words. Answers have five, so that other counts need no further request."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` paraphrases of each prompt; none if an answer cannot be parsed, and a warning that counts these.

        Raises
        ------
        EndpointError : if requests have no answer.
        """
        requests = [ChatRequest({"prompt": prompt.strip()}) for prompt in prompts]
        answers = self.endpoint.complete(Instructions.read("paraphrase"), requests, self.progress)
        parsed = [json_object(answer, ("paraphrases",)) for answer in answers]
        _warn_of_unparsed(parsed.count(None), len(answers), "their prompts are used in one wording")
        return [[] if value is None else list(phrases(value["paraphrases"]))[:count] for value in parsed]


@dataclass(frozen=True)
class EndpointDescriber:
    """Describes the target from image and prompt in one step. Source: OSrCIR (arXiv 2412.11077)."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def describe(self, inputs: Sequence[ComposerInput]) -> list[Description]:
        """One description for each query; `Description(None)` if an answer cannot be parsed, and a warning that counts these.

        Raises
        ------
        OptionError : if a query has no image.
        EndpointError : if requests have no answer.
        """
        images = reference_images(inputs)
        requests = [
            ChatRequest({"prompt": query.required_prompt()}, (image,)) for query, image in zip(inputs, images, strict=True)
        ]
        answers = self.endpoint.complete(Instructions.read("describe"), requests, self.progress)
        descriptions = [_parse_description(answer) for answer in answers]
        unparsed = sum(description.target is None for description in descriptions)
        _warn_of_unparsed(unparsed, len(answers), "the prompt is used as the target")
        return descriptions


@dataclass(frozen=True)
class EndpointEditor:
    """Edits reference images after prompts, with an image model behind `/images/edits`. Source: Paracosm (arXiv 2602.00813)."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def edit(self, inputs: Sequence[ComposerInput]) -> list[ImageLike]:
        """One image for each query.

        Raises
        ------
        OptionError : if a query has no image.
        EndpointError : if requests have no answer with an image.
        """
        requests = [
            ChatRequest({"prompt": query.required_prompt()}, (image,))
            for query, image in zip(inputs, reference_images(inputs), strict=True)
        ]
        answers = self._endpoint.complete(Instructions.read("edit", edits_picture=True), requests, self.progress)
        return [open_image(b64decode(answer)) for answer in answers]

    @cached_property
    def _endpoint(self) -> ChatEndpoint:
        """The endpoint without what its requests for pictures do not have."""
        return replace(self.endpoint, temperature=None, max_tokens=None, side=EDIT_SIDE)


@dataclass(frozen=True)
class EndpointCompiler:
    """Sorts prompts into roles; the model sees the reference's image if there is one, else its caption."""

    endpoint: ChatEndpoint
    progress: Progress | None = None

    def compile(self, inputs: Sequence[ComposerInput]) -> list[Roles]:
        """The roles of each query; those of `RuleCompiler` if an answer cannot be parsed, and a warning that counts these.

        Raises
        ------
        EndpointError : if requests have no answer.
        """
        requests = [_role_request(query) for query in inputs]
        answers = self.endpoint.complete(Instructions.read("roles"), requests, self.progress)
        parsed = [_parse_roles(answer) for answer in answers]
        _warn_of_unparsed(parsed.count(None), len(answers), "their prompts are sorted by rules")
        by_rule = RuleCompiler().compile(inputs)
        return [rule if roles is None else roles for roles, rule in zip(parsed, by_rule, strict=True)]


def _role_request(query: ComposerInput) -> ChatRequest:
    texts = {"prompt": query.required_prompt()}
    if query.image is not None:
        return ChatRequest(texts, (thread_safe_image(query.image),))
    return ChatRequest({"caption": query.caption.strip(), **texts} if query.caption else texts)


def _parse_description(answer: str) -> Description:
    """The field `target`; if the model gave it another name, the last field, unless that is one of the two before it."""
    value = json_object(answer, ("reference", "thoughts", "target"))
    if value is None:
        return Description(None)
    last = next(reversed(value))
    other = value[last] if last not in ("reference", "thoughts") else None
    return Description(text_or_none(value.get("target", other)), text_or_none(value.get("reference")))


def _parse_roles(answer: str) -> Roles | None:
    value = json_object(answer, ("global", "desired", "preserve", "forbidden"))
    if value is None:
        return None
    lists = (phrases(value.get(role)) for role in ("desired", "preserve", "forbidden"))
    return Roles(text_or_none(value.get("global")), *lists)


def _warn_of_unparsed(count: int, total: int, consequence: str) -> None:
    if count:
        logger.warning("%d of %d answers could not be parsed; %s", count, total, consequence)
