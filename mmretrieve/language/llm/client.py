"""Client of one OpenAI-compatible chat endpoint, and the parsing of its answers. The only module that imports `openai`."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from math import exp, log
from typing import Any, TypeVar

from mmretrieve.errors import EndpointError, ImageError
from mmretrieve.images import open_image
from mmretrieve.options import DEFAULT_TIMEOUT, load_json

DEFAULT_RETRIES = 4
PLACEHOLDER_KEY = "none"  # a local server needs no key, but the constructor of `openai` does
BAD_GATEWAY = 502
COMPLETIONS, EDITS = "/chat/completions", "/images/edits"
ALWAYS_BASE64 = ("gpt-image", "chatgpt-image")  # models that refuse to be asked for base64, which they always answer
MIN_LOGPROB = -100.0  # servers write −9999 for a token that cannot be
CERTAINTY = 0.9  # of "yes" or "no" without log-probabilities
MAX_REASON_LENGTH = 200
QUOTES = "\"'“”‘’`"
REASONING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)  # some servers return the reasoning within the answer
T = TypeVar("T")


class ModelRequestError(Exception):
    """A request without a usable reply, after all retries. The message is the reason, in one line."""


def require_openai() -> None:
    """Raise EndpointError if the package `openai` is not installed, before any work is done."""
    if find_spec("openai") is None:
        raise EndpointError("an endpoint needs the package openai; install it with: pip install 'mmretrieve[llm]'")


class ChatClient:
    """A connection to one endpoint. Threads may share it.

    Retries, backoff and time-outs are those of the package `openai`: connection errors, time-outs and the statuses 408, 409, 429
    and 500 or above are retried with exponential backoff, or after the time that the header `Retry-After` names. A response
    with status 200 and no usable text or picture is retried in the same way (see `_reject_unusable`).

    Parameters
    ----------
    address : base URL of the endpoint, `http://…/v1`.
    key : API key; None for servers that need none. It is removed from error messages.
    timeout : seconds that one attempt may take.
    retries : attempts after the first one.
    """

    def __init__(
        self, address: str, key: str | None = None, *, timeout: float = DEFAULT_TIMEOUT, retries: int = DEFAULT_RETRIES
    ) -> None:
        import openai

        self._openai, self._key, self._timeout = openai, key or PLACEHOLDER_KEY, timeout
        self._thread = threading.local()
        http_client = openai.DefaultHttpxClient(
            event_hooks={"request": [self._refuse_if_stopped], "response": [_reject_unusable]}
        )
        self._client = openai.OpenAI(
            base_url=address, api_key=self._key, timeout=timeout, max_retries=retries, http_client=http_client
        )

    def complete(
        self,
        model: str,
        system: str,
        text: str,
        jpegs: Sequence[bytes],
        settings: Mapping[str, Any],
        *,
        read: Callable[[str], str] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> str:
        """The reply to one user message under a system prompt.

        Parameters
        ----------
        model : the model's name on the server.
        system : the system prompt.
        text : the user's message; "" for an image alone.
        jpegs : JPEG files that are sent before the text of the message.
        settings : further parameters of the request, such as `temperature` and `max_tokens`.
        read : takes the body of the response and returns the reply; default: `reply_text`.
        is_stopped : called before each attempt; once it returns True, nothing more is sent.

        Returns
        -------
        The reply; the text of the first choice, never blank, by default.

        Raises
        ------
        ModelRequestError : if there is no usable reply after all retries.
        """
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": _content(text, jpegs)}]
        completions = self._client.chat.completions.with_raw_response

        def create() -> str:
            body = completions.create(model=model, messages=messages, **settings).http_response.text
            return (read or reply_text)(body)

        return self._send(create, is_stopped)

    def edit(self, model: str, text: str, jpeg: bytes, *, is_stopped: Callable[[], bool] = lambda: False) -> str:
        """A picture that `POST …/images/edits` makes of a JPEG file after a text: the bytes of its file, in base64.

        Raises
        ------
        ModelRequestError : if there is no usable reply after all retries.
        """
        settings: dict[str, Any] = {} if model.startswith(ALWAYS_BASE64) else {"response_format": "b64_json"}
        edits, image = self._client.images.with_raw_response, ("reference.jpg", jpeg, "image/jpeg")
        return self._send(
            lambda: edited_picture(edits.edit(model=model, prompt=text, image=image, **settings).http_response.text), is_stopped
        )

    def rerank(
        self, model: str, query: object, documents: Sequence[object], *, is_stopped: Callable[[], bool] = lambda: False
    ) -> dict[int, float]:
        """The scores that `POST …/rerank`, as vLLM, Cohere and Jina have it, gives to documents, by their positions.

        Raises
        ------
        ModelRequestError : if there is no usable reply after all retries.
        """
        body = {"model": model, "query": query, "documents": documents}
        return self._send(lambda: rerank_scores(self._client.post("/rerank", cast_to=object, body=body)), is_stopped)

    def _send(self, send: Callable[[], T], is_stopped: Callable[[], bool]) -> T:
        """What `send` returns. Its errors become ModelRequestError."""
        self._thread.is_stopped = is_stopped
        try:
            return send()
        except json.JSONDecodeError as error:
            raise ModelRequestError("the response is not JSON") from error
        except self._openai.APIStatusError as error:
            raise ModelRequestError(self._status_reason(error.response)) from error
        except self._openai.APITimeoutError as error:
            raise ModelRequestError(f"no answer within {self._timeout:g} s") from error
        except self._openai.APIConnectionError as error:
            raise ModelRequestError(f"no connection ({self._short(error.__cause__ or error)})") from error
        except self._openai.OpenAIError as error:
            raise ModelRequestError(self._short(error)) from error

    def _refuse_if_stopped(self, _: Any) -> None:
        """Request hook: end the retries of a request whose batch has ended."""
        if self._thread.is_stopped():
            raise self._openai.OpenAIError("stopped before another attempt")

    def _status_reason(self, response: Any) -> str:
        unusable = response.extensions.get("unusable")
        return unusable or f"status {response.status_code} ({self._short(response.text)})"

    def _short(self, reason: object) -> str:
        """A reason in one short line without the key."""
        return " ".join(str(reason).replace(self._key, "…").split())[:MAX_REASON_LENGTH] or "no reason given"


def reply_text(body: str) -> str:
    """The text of the first choice of a chat completion.

    Parameters
    ----------
    body : the body of the response.

    Raises
    ------
    ModelRequestError : if the body is not a chat completion, or its text is blank.

    >>> reply_text('{"choices": [{"message": {"content": "a red dress"}}]}')
    'a red dress'
    """
    try:
        choice = load_json(body)["choices"][0]
        text = choice["message"]["content"]
    except ValueError:
        raise ModelRequestError("the response is not JSON") from None
    except (LookupError, TypeError):
        raise ModelRequestError("the response is not a chat completion with a message") from None
    if not isinstance(text, str) or not clean_sentence(text):
        is_cut_off = choice.get("finish_reason") == "length"
        raise ModelRequestError("the answer is empty" + (" (cut off by max_tokens)" if is_cut_off else ""))
    return text


def edited_picture(body: str) -> str:
    """The first picture of a response to `/images/edits`, in base64. Raises ModelRequestError if there is none that can be decoded."""
    try:
        picture = load_json(body)["data"][0]["b64_json"]
    except ValueError:
        raise ModelRequestError("the response is not JSON") from None
    except (LookupError, TypeError):
        raise ModelRequestError("the response has no picture in data[0].b64_json") from None
    try:
        open_image(base64.b64decode(picture, validate=True))
    except (TypeError, ValueError, ImageError) as error:
        raise ModelRequestError(f"the picture of the response cannot be decoded ({error})") from None
    return str(picture)


def yes_logit(body: str) -> str:
    """The logit of "yes" against "no" in a chat completion: of its first token, or of its text if the server gives no log-probabilities.

    A text counts as certain as CERTAINTY says. Raises ModelRequestError for an answer that is neither.

    >>> body = '{"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": %s}]}}]}'
    >>> yes_logit(body % '[{"token": "Yes", "logprob": -0.5}, {"token": "no", "logprob": -2.5}]')
    '2.0'
    """
    text = reply_text(body)
    try:
        first = (load_json(body)["choices"][0].get("logprobs") or {}).get("content") or [{}]
        listed = [
            (str(one["token"]).strip().lower(), max(MIN_LOGPROB, float(one["logprob"])))
            for one in first[0].get("top_logprobs") or []
        ]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ModelRequestError("the response has log-probabilities that cannot be read") from None
    sums = dict.fromkeys(("yes", "no"), 0.0)
    for token, logprob in listed:
        if token in sums:
            sums[token] += exp(logprob)
    if any(sums.values()):
        rarest = exp(min(logprob for _, logprob in listed))  # an answer that is not listed is rarer
        return str(round(log(sums["yes"] or rarest) - log(sums["no"] or rarest), 6))
    word = clean_sentence(text).lower().strip(" .!*")[:3]
    if not word.startswith(("yes", "no")):
        raise ModelRequestError(f"the answer is neither yes nor no ({clean_sentence(text)[:40]!r})")
    certainty = log(CERTAINTY / (1 - CERTAINTY))
    return str(round(certainty if word == "yes" else -certainty, 6))


def rerank_scores(body: Any) -> dict[int, float]:
    """The relevance of each document by its position, of a response to `/rerank`. The first score of a document counts.

    >>> rerank_scores({"results": [{"index": 1, "relevance_score": 0.75}]})
    {1: 0.75}
    """
    try:
        results = [(int(one["index"]), float(one["relevance_score"])) for one in body["results"]]
    except (LookupError, TypeError, ValueError):
        raise ModelRequestError("the response has no results with index and relevance_score") from None
    return dict(reversed(results))


def clean_sentence(answer: str) -> str:
    """An answer in one line, without `<think>` blocks and without quotation marks around the whole.

    >>> clean_sentence('<think>red, so</think> "a red\\ndress"')
    'a red dress'
    """
    line = " ".join(REASONING.sub("", answer).split())
    is_quoted = len(line) > 1 and line[0] in QUOTES and line[-1] in QUOTES
    return line[1:-1].strip() if is_quoted else line


def json_object(answer: str, names: Collection[str]) -> dict[str, object] | None:
    """The first JSON object in an answer that has one of the fields `names`; code fences and prose around it are ignored.

    Returns None if there is no such object, for instance because the answer was cut off.

    >>> json_object('Sure! {"mood": 1} {"target": "a red dress"}', ["target"])
    {'target': 'a red dress'}
    """
    text = REASONING.sub("", answer)
    decoder = json.JSONDecoder(strict=False)
    for brace in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, brace.start())
        except RecursionError:  # so are those within it
            return None
        except ValueError:
            continue
        if isinstance(value, dict) and not value.keys().isdisjoint(names):
            return value
    return None


def text_or_none(value: object) -> str | None:
    """The value in one line if it is text that is not blank, else None."""
    return " ".join(value.split()) or None if isinstance(value, str) else None


def phrases(value: object) -> tuple[str, ...]:
    """The distinct texts of a list, or of a single value; what is not text is dropped.

    >>> phrases(["red", 3, " ", "red"]), phrases("red")
    (('red',), ('red',))
    """
    values = value if isinstance(value, list | tuple) else [value]
    texts = (text_or_none(each) for each in values)
    return tuple(dict.fromkeys(text for text in texts if text is not None))


def _reject_unusable(response: Any) -> None:
    """Response hook: give a successful response without usable content the status 502, which `openai` retries like any other."""
    path = response.request.url.path
    read = reply_text if path.endswith(COMPLETIONS) else edited_picture if path.endswith(EDITS) else None
    if response.is_success and read is not None:
        response.read()
        try:
            read(response.text)
        except ModelRequestError as error:
            response.status_code = BAD_GATEWAY
            response.extensions["unusable"] = str(error)


def content_parts(text: str, jpegs: Sequence[bytes]) -> list[dict[str, Any]]:
    """The parts of a message: images, then a text unless it is empty."""
    urls = (f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in jpegs)
    images: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*images, {"type": "text", "text": text}] if text else images


def _content(text: str, jpegs: Sequence[bytes]) -> str | list[dict[str, Any]]:
    return content_parts(text, jpegs) if jpegs else text
