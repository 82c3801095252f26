"""A model at an OpenAI-compatible endpoint: many requests at once, each answer cached as soon as it arrives."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from threading import Event, Lock
from typing import Any
from urllib.parse import urlsplit

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import EndpointError, OptionError
from mmretrieve.images import ImageLike, open_image, thumbnail
from mmretrieve.language.llm.cache import AnswerCache, picture_key, request_key
from mmretrieve.language.llm.client import (
    DEFAULT_RETRIES,
    ChatClient,
    ModelRequestError,
    content_parts,
    reply_text,
    require_openai,
)
from mmretrieve.options import DEFAULT_TIMEOUT, check_count

OPENAI_ADDRESS = "https://api.openai.com/v1"
MAX_TIMEOUT = 86_400  # seconds
MAX_CONSECUTIVE_FAILURES = 3  # then no more requests are sent: one request may be the cause itself, three in a row are not
SAMPLING_PARAMETERS = ("temperature", "max_tokens")  # of the cached request that are also parameters of the HTTP request
RERANK = "rerank"  # the task of cached relevances
INSTRUCTIONS_FOLDER = Path(__file__).with_name("instructions")


@dataclass(frozen=True)
class Instructions:
    """The system prompt of a task, and the name under which the cache files the answers.

    settings: parameters that all of its requests have besides. read_reply: takes the body of a response and returns the answer.
    edits_picture: whether the answer is the picture of the request, edited, in base64.
    """

    task: str
    text: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    read_reply: Callable[[str], str] = reply_text
    edits_picture: bool = False

    @classmethod
    def read(cls, task: str, **more: Any) -> Instructions:
        """The instructions of the package for a task: the file `instructions/{task}.txt`."""
        return cls(task, (INSTRUCTIONS_FOLDER / f"{task}.txt").read_text(encoding="utf-8").strip(), **more)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits; answers under other instructions are not reused."""
        return hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class ChatRequest:
    """One request: named texts, images, the number of the sample, and a temperature instead of the endpoint's own."""

    texts: Mapping[str, str]
    pictures: tuple[ImageLike, ...] = ()
    sample: int = 0
    temperature: float | None = None

    @property
    def message(self) -> str:
        """The texts as the user's message, one a line: "Caption: a dog"."""
        return "\n".join(f"{name.capitalize()}: {value}" for name, value in self.texts.items())


@dataclass(frozen=True)
class ChatEndpoint:
    """A model at an OpenAI-compatible endpoint.

    Parameters
    ----------
    model : name of the model on the server.
    base_url : address of the endpoint; default: the environment variable OPENAI_BASE_URL, then OpenAI's own.
    key : API key; default: the environment variable OPENAI_API_KEY.
    cache : where answers are stored and looked up; None stores nothing.
    timeout : seconds that one attempt may take, in (0, 86400].
    retries : attempts after the first one.
    concurrency : requests that are under way at the same time.
    temperature, max_tokens : sampling parameters; None leaves them to the server, as some models require.
    side : longest side, in pixels, of an image that is sent.
    offline : take all answers from the cache and send nothing.

    Raises
    ------
    OptionError : if a parameter is out of range, or no endpoint is named.
    EndpointError : if the package `openai` is not installed.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    cache: AnswerCache | None = None
    timeout: float = DEFAULT_TIMEOUT
    retries: int = DEFAULT_RETRIES
    concurrency: int = 8
    temperature: float | None = 0.0
    max_tokens: int | None = 512
    side: int = 512
    offline: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= MAX_TIMEOUT:
            raise OptionError(f"timeout must be more than 0 and at most {MAX_TIMEOUT} seconds, got {self.timeout:g}")
        if self.retries < 0:
            raise OptionError(f"retries must be a whole number of at least 0, got {self.retries}")
        check_count("concurrency", self.concurrency)
        if not self.address.startswith(("http://", "https://")):
            raise OptionError(f"expected an address that begins with http:// or https://, got {self.address!r}")
        if self.offline and self.cache is None:
            raise OptionError("--offline needs --memory FILE, which stores the answers")
        if not self.offline and self.address == OPENAI_ADDRESS and not self._api_key:
            raise OptionError(
                "no endpoint is named: give --endpoint URL (or OPENAI_BASE_URL), or --key KEY (or OPENAI_API_KEY) for OpenAI's"
            )
        if not self.offline:
            require_openai()

    @property
    def address(self) -> str:
        """The base URL that requests go to."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_ADDRESS

    @property
    def shown_address(self) -> str:
        """The address without a user and a password, for messages."""
        parts = urlsplit(self.address)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def complete(
        self, instructions: Instructions, requests: Sequence[ChatRequest], progress: Progress | None = None
    ) -> list[str]:
        """One answer for each request, in order. Equal requests are sent once; cached ones are not sent.

        Parameters
        ----------
        instructions : the system prompt of all requests.
        requests : what to ask.
        progress : called with the number of requests that were just answered.

        Returns
        -------
        The answers, in the order of the requests.

        Raises
        ------
        EndpointError : if requests have no answer, after those under way are finished and cached.
        ImageError : if an image cannot be read.
        """
        return [answer for answer in self._complete(instructions, requests, progress) if answer is not None]

    def complete_within(self, instructions: Instructions, requests: Sequence[ChatRequest], seconds: float) -> list[str | None]:
        """Like `complete`, with None for each request that fails, or has no answer after some seconds.

        Raises
        ------
        EndpointError : if no request has an answer.
        ImageError : if an image cannot be read.
        """
        return self._complete(instructions, requests, seconds=seconds)

    def rerank(
        self, text: str, reference: Sequence[ImageLike], candidates: Sequence[ImageLike], seconds: float
    ) -> list[float | None]:
        """The relevance that `/rerank` gives to each of n candidates; None for one that it leaves out. Cached ones are not sent.

        Parameters
        ----------
        text : the query; "" if it has none.
        reference : the images of the query.
        candidates : n images.
        seconds : how long the answer may take, retries included.

        Raises
        ------
        EndpointError : if there is no answer in this time, or an answer is missing offline.
        ImageError : if an image cannot be read.
        """
        query = {"prompt": text, "reference": list(map(picture_key, reference)), "side": self.side}
        fields = [query | {"picture": picture_key(candidate)} for candidate in candidates]
        scores = [None if self.cache is None else self.cache.get(RERANK, self.model, each) for each in fields]
        missing = [i for i, score in enumerate(scores) if score is None]
        if missing and self.offline:
            raise EndpointError(
                f"{len(missing)} of {len(fields)} scores of {self.model} are not cached; run once without --offline"
            )
        for i, score in self._rerank(text, reference, [candidates[i] for i in missing], seconds).items() if missing else ():
            if 0 <= i < len(missing):
                scores[missing[i]] = score
                if self.cache is not None and isfinite(score):
                    self.cache.put(RERANK, self.model, fields[missing[i]], score)
        return scores

    def _rerank(
        self, text: str, reference: Sequence[ImageLike], candidates: Sequence[ImageLike], seconds: float
    ) -> dict[int, float]:
        """Relevances by position, of the server."""
        content = content_parts(text, list(map(self._jpeg, reference)))
        query = {"content": content} if reference else text
        documents = [{"content": content_parts("", [self._jpeg(candidate)])} for candidate in candidates]
        is_stopped, pool = Event(), ThreadPoolExecutor(1)
        sent = pool.submit(self._client.rerank, self.model, query, documents, is_stopped=is_stopped.is_set)
        try:
            return sent.result(seconds)
        except TimeoutError as error:
            raise EndpointError(f"{self.shown_address} ({self.model}): no answer within {seconds:g} s in all") from error
        except ModelRequestError as error:
            raise EndpointError(f"{self.shown_address} ({self.model}): {error}") from error
        finally:
            is_stopped.set()
            pool.shutdown(wait=False)

    def _jpeg(self, image: ImageLike) -> bytes:
        return thumbnail(open_image(image), self.side)

    def _complete(
        self,
        instructions: Instructions,
        requests: Sequence[ChatRequest],
        progress: Progress | None = None,
        seconds: float | None = None,
    ) -> list[str | None]:
        """An answer for each request. None stands for a missing one if `seconds` bounds the time and there are others."""
        prepared = [self._prepare(instructions, request) for request in requests]
        counts = Counter(each.key for each in prepared)
        answers: dict[str, str] = {}

        def add(each: _PreparedRequest, answer: str) -> None:
            answers[each.key] = answer
            if progress is not None:
                progress(counts[each.key])

        missing: list[_PreparedRequest] = []
        for each in {each.key: each for each in prepared}.values():
            answer = self.cache.get(instructions.task, self.model, each.cache_fields) if self.cache is not None else None
            add(each, answer) if answer is not None else missing.append(each)
        error = None
        if missing and self.offline:
            error = self._missing_error(instructions, missing, len(counts))
        elif missing:
            error = self._send_all(instructions, missing, add, seconds)
        if error is not None and (seconds is None or not answers):
            raise error
        return [answers.get(each.key) for each in prepared]

    def _send_all(
        self,
        instructions: Instructions,
        missing: list[_PreparedRequest],
        add: Callable[[_PreparedRequest, str], None],
        seconds: float | None,
    ) -> EndpointError | None:
        """Sends requests and adds their answers. Returns the error if some have none."""
        client = self._client  # created here once, not by every thread

        def send(each: _PreparedRequest, is_stopped: Callable[[], bool]) -> str:
            jpegs = list(map(self._jpeg, each.request.pictures))
            if instructions.edits_picture:
                text = f"{instructions.text}\n{each.request.message}"
                answer = client.edit(self.model, text, *jpegs, is_stopped=is_stopped)
            else:
                settings = {name: each.cache_fields[name] for name in SAMPLING_PARAMETERS if name in each.cache_fields}
                answer = client.complete(
                    self.model,
                    instructions.text,
                    each.request.message,
                    jpegs,
                    {**settings, **instructions.settings},
                    read=instructions.read_reply,
                    is_stopped=is_stopped,
                )
            if self.cache is not None:
                self.cache.put(instructions.task, self.model, each.cache_fields, answer)
            return answer

        batch = _RequestBatch(send, seconds)
        answered = 0
        with closing(batch.run(missing, self.concurrency)) as results:  # ends the batch if `progress` raises
            for each, answer in results:
                add(each, answer)
                answered += 1
        return self._failed_error(batch.failures, answered, len(missing)) if answered < len(missing) else None

    def _prepare(self, instructions: Instructions, request: ChatRequest) -> _PreparedRequest:
        temperature = self.temperature if request.temperature is None else request.temperature
        fields: dict[str, object] = {**request.texts, "instructions": instructions.digest}
        if len(request.pictures) == 1:
            fields |= {"picture": picture_key(request.pictures[0]), "side": self.side}
        elif request.pictures:
            fields |= {"pictures": list(map(picture_key, request.pictures)), "side": self.side}
        if request.sample:
            fields["sample"] = request.sample
        if temperature is not None:
            fields["temperature"] = float(temperature)
        if self.max_tokens is not None:
            fields["max_tokens"] = self.max_tokens
        return _PreparedRequest(request, fields, request_key(instructions.task, self.model, fields))

    def _failed_error(self, failures: list[str], answered: int, count: int) -> EndpointError:
        not_sent = count - answered - len(failures)
        skipped = f", {not_sent} were not sent" if not_sent else ""
        stored = "no answer is stored: give --memory FILE to resume from"
        if self.cache is not None:
            stored = f"{answered} answers are stored in {self.cache.database}; run again to resume"
        return EndpointError(
            f"{self.shown_address} ({self.model}): {len(failures)} of {count} requests failed{skipped}; first: {failures[0]}; {stored}"
        )

    def _missing_error(self, instructions: Instructions, missing: list[_PreparedRequest], count: int) -> EndpointError:
        assert self.cache is not None  # checked at construction
        first = missing[0].request.message.replace("\n", "; ") or f"picture {missing[0].cache_fields.get('picture')}"
        return EndpointError(
            f"{self.cache.path}: {len(missing)} of {count} answers of {self.model} are not in it, first: {instructions.task} "
            f"({first[:100]}); run once without --offline, or give another --memory FILE"
        )

    @property
    def _api_key(self) -> str | None:
        return self.key or os.environ.get("OPENAI_API_KEY")

    @cached_property
    def _client(self) -> ChatClient:
        return ChatClient(self.address, self._api_key, timeout=self.timeout, retries=self.retries)


@dataclass(frozen=True)
class _PreparedRequest:
    """A request, the fields under which its answer is cached, and one text that is equal for equal requests."""

    request: ChatRequest
    cache_fields: Mapping[str, object]
    key: str


class _RequestBatch:
    """Requests sent in threads. After MAX_CONSECUTIVE_FAILURES failures in a row no more are sent.

    `send` gets a request and a function that returns whether the batch has ended. It returns an answer or raises
    ModelRequestError; any other exception ends the batch. `failures` are the reasons of the requests that failed. After `seconds`, the
    answers of requests under way are not waited for.
    """

    def __init__(self, send: Callable[[_PreparedRequest, Callable[[], bool]], str], seconds: float | None = None) -> None:
        self.failures: list[str] = []
        self._send, self._seconds = send, seconds
        self._is_stopped = Event()
        self._lock = Lock()
        self._consecutive = 0

    def run(self, requests: Sequence[_PreparedRequest], concurrency: int) -> Generator[tuple[_PreparedRequest, str]]:
        """Requests and their answers, in the order in which they arrive. Closing it early waits for those under way."""
        pool = ThreadPoolExecutor(concurrency)
        futures = {pool.submit(self._answer, request): request for request in requests}
        waits = True
        try:
            for future in as_completed(futures, self._seconds):
                if (answer := future.result()) is not None:
                    yield futures[future], answer
        except TimeoutError:
            self.failures.append(f"no answer within {self._seconds:g} s in all")
            waits = False
        finally:
            self._is_stopped.set()
            pool.shutdown(wait=waits, cancel_futures=True)

    def _answer(self, request: _PreparedRequest) -> str | None:
        if self._is_stopped.is_set():
            return None
        try:
            answer = self._send(request, self._is_stopped.is_set)
        except ModelRequestError as error:
            with self._lock:
                self.failures.append(str(error))
                self._consecutive += 1
                if self._consecutive >= MAX_CONSECUTIVE_FAILURES:
                    self._is_stopped.set()
            return None
        with self._lock:
            self._consecutive = 0
        return answer
