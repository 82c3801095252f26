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
from pathlib import Path
from threading import Event, Lock

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import EndpointError, OptionError
from mmretrieve.images import ImageLike, open_image, thumbnail
from mmretrieve.language.llm.cache import AnswerCache, picture_key, request_key
from mmretrieve.language.llm.client import DEFAULT_RETRIES, ChatClient, ModelRequestError, require_openai
from mmretrieve.options import DEFAULT_TIMEOUT, check_count

OPENAI_ADDRESS = "https://api.openai.com/v1"
MAX_TIMEOUT = 86_400  # seconds
MAX_CONSECUTIVE_FAILURES = 3  # then no more requests are sent: one request may be the cause itself, three in a row are not
SAMPLING_PARAMETERS = ("temperature", "max_tokens")  # of the cached request that are also parameters of the HTTP request
INSTRUCTIONS_FOLDER = Path(__file__).with_name("instructions")


@dataclass(frozen=True)
class Instructions:
    """The system prompt of a task, and the name under which the cache files the answers."""

    task: str
    text: str

    @classmethod
    def read(cls, task: str) -> Instructions:
        """The instructions of the package for a task: the file `instructions/{task}.txt`."""
        return cls(task, (INSTRUCTIONS_FOLDER / f"{task}.txt").read_text(encoding="utf-8").strip())

    @property
    def digest(self) -> str:
        """12 hexadecimal digits; answers under other instructions are not reused."""
        return hashlib.blake2b(self.text.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class ChatRequest:
    """One request: named texts, an image or None, the number of the sample, and a temperature instead of the endpoint's own."""

    texts: Mapping[str, str]
    picture: ImageLike | None = None
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
    base_url: str | None = None
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
        if missing and self.offline:
            raise self._missing_error(instructions, missing, len(counts))
        if missing:
            self._send_all(instructions, missing, add)
        return [answers[each.key] for each in prepared]

    def _send_all(
        self, instructions: Instructions, missing: list[_PreparedRequest], add: Callable[[_PreparedRequest, str], None]
    ) -> None:
        client = self._client  # created here once, not by every thread

        def send(each: _PreparedRequest, is_stopped: Callable[[], bool]) -> str:
            settings = {name: each.cache_fields[name] for name in SAMPLING_PARAMETERS if name in each.cache_fields}
            picture = each.request.picture
            jpeg = None if picture is None else thumbnail(open_image(picture), self.side)
            answer = client.complete(self.model, instructions.text, each.request.message, jpeg, settings, is_stopped=is_stopped)
            if self.cache is not None:
                self.cache.put(instructions.task, self.model, each.cache_fields, answer)
            return answer

        batch = _RequestBatch(send)
        answered = 0
        with closing(batch.run(missing, self.concurrency)) as results:  # ends the batch if `progress` raises
            for each, answer in results:
                add(each, answer)
                answered += 1
        if answered < len(missing):
            raise self._failed_error(batch.failures, answered, len(missing))

    def _prepare(self, instructions: Instructions, request: ChatRequest) -> _PreparedRequest:
        temperature = self.temperature if request.temperature is None else request.temperature
        fields: dict[str, object] = {**request.texts, "instructions": instructions.digest}
        if request.picture is not None:
            fields |= {"picture": picture_key(request.picture), "side": self.side}
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
            f"{self.address} ({self.model}): {len(failures)} of {count} requests failed{skipped}; first: {failures[0]}; {stored}"
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
    ModelRequestError; any other exception ends the batch. `failures` are the reasons of the requests that failed.
    """

    def __init__(self, send: Callable[[_PreparedRequest, Callable[[], bool]], str]) -> None:
        self.failures: list[str] = []
        self._send = send
        self._is_stopped = Event()
        self._lock = Lock()
        self._consecutive = 0

    def run(self, requests: Sequence[_PreparedRequest], concurrency: int) -> Generator[tuple[_PreparedRequest, str]]:
        """Requests and their answers, in the order in which they arrive. Closing it early waits for those under way."""
        with ThreadPoolExecutor(concurrency) as pool:
            futures = {pool.submit(self._answer, request): request for request in requests}
            try:
                for future in as_completed(futures):
                    if (answer := future.result()) is not None:
                        yield futures[future], answer
            finally:
                self._is_stopped.set()

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
