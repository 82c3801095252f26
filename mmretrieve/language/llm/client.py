"""One attempt at one answer over OpenAI's protocol. The only module that knows the package `openai`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mmretrieve.errors import EndpointError
from mmretrieve.language.llm.batch import ModelRequestError
from mmretrieve.language.llm.parsing import sentence

UNUSED_KEY = "none"  # a local server wants no key, but the client wants some text
WORTH_ANOTHER = (408, 409, 429)  # and every status from 500 on


def need_openai() -> None:
    """Raises EndpointError where the package is missing, before any work is done in vain."""
    if find_spec("openai") is None:
        raise EndpointError("asking an endpoint needs the package openai: pip install 'mmretrieve[llm]'")


class ChatClient:
    """The connection to one address. Threads may share it."""

    def __init__(self, address: str, key: str | None, timeout: float) -> None:
        import openai

        self._openai, self._key, self._timeout = openai, key or UNUSED_KEY, timeout
        self._client = openai.OpenAI(base_url=address, api_key=self._key, timeout=timeout, max_retries=0)

    def answer(self, model: str, system: str, text: str, jpeg: bytes | None, settings: Mapping[str, Any]) -> str:
        """What the model says, with words in it. NoAnswerError for whatever else happens."""
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": _content(text, jpeg)}]
        try:
            return _said(self._client.chat.completions.create(model=model, messages=messages, **settings))
        except self._openai.APIStatusError as error:
            again = error.status_code in WORTH_ANOTHER or error.status_code >= 500
            told = f"status {error.status_code} ({self._told(error.response.text)})"
            raise ModelRequestError(told, again=again, after=_asked_to_wait(error.response.headers)) from error
        except self._openai.APITimeoutError as error:
            raise ModelRequestError(f"no answer within {self._timeout:g} s", again=True) from error
        except self._openai.APIConnectionError as error:
            raise ModelRequestError(f"no connection ({self._told(error.__cause__ or error)})", again=True) from error
        except (self._openai.OpenAIError, ValueError) as error:
            raise ModelRequestError(f"an answer that is not JSON as expected ({self._told(error)})", again=True) from error

    def _told(self, error: BaseException | str) -> str:
        """What an error says, in one short line that does not give the key away."""
        return " ".join(str(error).replace(self._key, "…").split())[:200] or "no reason given"


def _content(text: str, jpeg: bytes | None) -> str | list[dict[str, Any]]:
    if jpeg is None:
        return text
    picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"}}
    return [picture, {"type": "text", "text": text}] if text else [picture]


def _said(completion: object) -> str:
    """The words of a completion; the client hands on whatever came, so nothing about it is certain."""
    if isinstance(completion, str):
        raise ModelRequestError("an answer that is not JSON", again=True)
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise ModelRequestError("an answer without choices", again=True)
    words = getattr(getattr(choices[0], "message", None), "content", None)
    if not isinstance(words, str) or not sentence(words):
        cut = getattr(choices[0], "finish_reason", None) == "length"
        raise ModelRequestError("an empty answer" + (", cut off by max_tokens" if cut else ""), again=True)
    return words


def _asked_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds a server asks to be left alone for, where it says so as a number."""
    said = headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 0.0
