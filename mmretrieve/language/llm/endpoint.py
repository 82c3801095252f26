"""Any chat endpoint that speaks OpenAI's protocol, asked many questions at once; every answer is kept as soon as it is there."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import EndpointError, OptionError
from mmretrieve.images import ImageLike, open_image, thumbnail
from mmretrieve.language.llm.batch import DEFAULT_TIMEOUT, RetryingBatch
from mmretrieve.language.llm.cache import AnswerCache, key_of, picture_key
from mmretrieve.language.llm.client import ChatClient, need_openai

HOME = "https://api.openai.com/v1"
MOST_SECONDS = 86_400
SETTINGS = ("temperature", "max_tokens")  # sent as they are filed
FOLDER = Path(__file__).with_name("instructions")


@dataclass(frozen=True)
class Instructions:
    """What a model is told before any question, and the `task` under which the memory files its answers."""

    task: str
    text: str

    @classmethod
    def read(cls, task: str) -> Instructions:
        """From the package's own file of that name."""
        return cls(task, (FOLDER / f"{task}.txt").read_text(encoding="utf-8").strip())

    @property
    def digest(self) -> str:
        """12 hexadecimal digits: other words are other questions."""
        return hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class ChatRequest:
    """What one answer is wanted for: named words, perhaps a picture, and the sample's number where several are drawn.

    `temperature` stands in for the endpoint's own.
    """

    words: Mapping[str, str]
    picture: ImageLike | None = None
    sample: int = 0
    temperature: float | None = None


@dataclass(frozen=True)
class _CachedRequest:
    """A question, and all that its answer is kept under."""

    question: ChatRequest
    asked: Mapping[str, object]
    key: str


@dataclass(frozen=True)
class ChatEndpoint:
    """A model at an address: `base_url` or OPENAI_BASE_URL, with `key` or OPENAI_API_KEY where one is wanted.

    timeout: seconds an attempt may take; retries: attempts after the first, pausing for `pause`, 2 · `pause`, … seconds.
    temperature, max_tokens: None leaves them to the server; some models refuse them. side: the longest side, in pixels, of
    a picture that is sent. offline: answers come from the memory alone, and nothing is sent.
    Raises OptionError for settings that cannot work, EndpointError where the package `openai` is missing.
    """

    model: str
    base_url: str | None = None
    key: str | None = field(default=None, repr=False)
    memory: AnswerCache | None = None
    timeout: float = DEFAULT_TIMEOUT
    retries: int = 4
    concurrency: int = 8
    temperature: float | None = 0.0
    max_tokens: int | None = 512
    pause: float = 1.0
    side: int = 512
    offline: bool = False

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.retries < 0 or self.concurrency < 1 or self.pause < 0:
            raise OptionError(
                "an endpoint needs timeout > 0, retries >= 0, concurrency >= 1 and pause >= 0, got "
                f"{self.timeout}, {self.retries}, {self.concurrency} and {self.pause}"
            )
        if self.timeout > MOST_SECONDS or not self.address.startswith(("http://", "https://")):
            raise OptionError(
                f"an endpoint is a http:// or https:// address with a timeout of at most {MOST_SECONDS} s, got {self.address!r} and {self.timeout:g}"
            )
        if self.offline and self.memory is None:
            raise OptionError("offline, answers come from a memory alone: name its file")
        if not self.offline and self.address == HOME and not self._key:
            raise OptionError(
                "no endpoint is named: give its address (or OPENAI_BASE_URL), or a key (or OPENAI_API_KEY) for OpenAI's"
            )
        if not self.offline:
            need_openai()

    @property
    def address(self) -> str:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or HOME

    def ask(self, instructions: Instructions, questions: Sequence[ChatRequest], progress: Progress | None = None) -> list[str]:
        """One answer a question, in order. The same question goes out once, and not at all where the memory knows the answer.

        `progress` is called with the number of questions newly answered. Raises EndpointError where some have no answer,
        after those under way have come in and are kept; ImageError for a picture that cannot be read.
        """
        filed = [self._filed(instructions, question) for question in questions]
        times, answers = Counter(one.key for one in filed), dict[str, str]()

        def learn(one: _CachedRequest, said: str) -> None:
            answers[one.key] = said
            if progress is not None:
                progress(times[one.key])

        missing: list[_CachedRequest] = []
        for one in {one.key: one for one in filed}.values():
            said = self.memory.get(instructions.task, self.model, one.asked) if self.memory is not None else None
            learn(one, said) if said is not None else missing.append(one)
        if missing and self.offline:
            raise self._unknown(instructions, missing, len(times))
        if missing:
            self._ask_all(instructions, missing, learn)
        return [answers[one.key] for one in filed]

    def _ask_all(
        self, instructions: Instructions, missing: list[_CachedRequest], learn: Callable[[_CachedRequest, str], None]
    ) -> None:
        wire = self._wire  # connected here, once, and not by every thread

        def attempt(one: _CachedRequest) -> str:
            settings = {name: one.asked[name] for name in SETTINGS if name in one.asked}
            said = wire.answer(self.model, instructions.text, _text(one.question), self._jpeg(one.question), settings)
            if self.memory is not None:
                self.memory.put(instructions.task, self.model, one.asked, said)
            return said

        asking = RetryingBatch(attempt, retries=self.retries, pause=self.pause)
        answered = 0
        with closing(asking.answers(missing, self.concurrency)) as answers:  # ends the round where `progress` raises
            for one, said in answers:
                learn(one, said)
                answered += 1
        if answered < len(missing):
            raise self._unanswered(asking.failures, answered, len(missing))

    def _filed(self, instructions: Instructions, question: ChatRequest) -> _CachedRequest:
        temperature = self.temperature if question.temperature is None else question.temperature
        asked: dict[str, object] = {**question.words, "instructions": instructions.digest}
        if question.picture is not None:
            asked |= {"picture": picture_key(question.picture), "side": self.side}
        if question.sample:
            asked["sample"] = question.sample
        if temperature is not None:
            asked["temperature"] = float(temperature)
        if self.max_tokens is not None:
            asked["max_tokens"] = self.max_tokens
        return _CachedRequest(question, asked, key_of(instructions.task, self.model, asked))

    def _jpeg(self, question: ChatRequest) -> bytes | None:
        return None if question.picture is None else thumbnail(open_image(question.picture), self.side)

    def _unanswered(self, failures: list[str], answered: int, asked: int) -> EndpointError:
        unasked = asked - answered - len(failures)
        left = f", {unasked} were not asked any more" if unasked else ""
        kept = "nothing is kept: name a memory"
        if self.memory is not None:
            kept = f"what was answered is kept in {self.memory.path}, run again to go on"
        return EndpointError(
            f"{self.address} ({self.model}): {len(failures)} of {asked} questions failed{left}; first: {failures[0]}; {kept}"
        )

    def _unknown(self, instructions: Instructions, missing: list[_CachedRequest], asked: int) -> EndpointError:
        assert self.memory is not None  # offline there is one
        first = _text(missing[0].question).replace("\n", "; ") or f"picture {missing[0].asked.get('picture')}"
        return EndpointError(
            f"{self.memory.path}: {len(missing)} of {asked} answers of {self.model} are not in it, first: {instructions.task} "
            f"({first[:100]}); run once with the endpoint, or name another memory"
        )

    @property
    def _key(self) -> str | None:
        return self.key or os.environ.get("OPENAI_API_KEY")

    @cached_property
    def _wire(self) -> ChatClient:
        return ChatClient(self.address, self._key, self.timeout)


def _text(question: ChatRequest) -> str:
    return "\n".join(f"{name.capitalize()}: {value}" for name, value in question.words.items())
