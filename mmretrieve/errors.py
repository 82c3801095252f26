"""The exceptions of the library. Every message says what was wrong, what was expected and, where it helps, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar, cast

MAX_LINE_CHARACTERS = 10_000
MAX_NAME_CHARACTERS = 100  # of an unknown name that a message repeats
MIN_SIMILARITY = 0.65  # of a name to the one that is suggested, as difflib measures it
SYNONYMS = {
    **dict.fromkeys(("count", "limit", "max_results", "n", "num_results", "size", "top", "top_k", "topk"), ("k",)),
    **dict.fromkeys(("query", "text", "instruction", "modification"), ("prompt",)),
    **dict.fromkeys(("images", "file", "picture", "photo", "reference"), ("image",)),
    **dict.fromkeys(("negative", "negative_prompt", "without", "not"), ("avoid",)),
    **dict.fromkeys(("id", "item", "item_id", "ids"), ("reference_id", "id")),
    **dict.fromkeys(("filter", "sql"), ("where",)),
    **dict.fromkeys(("method", "mode"), ("composer",)),
    **dict.fromkeys(("threshold", "cutoff"), ("min_score",)),
    "add": ("index",),
    "remove": ("delete",),
    "check": ("verify",),
    "status": ("info",),
}
"""Names that other libraries use → the names here, for suggestions."""

F = TypeVar("F", bound=Callable[..., Any])


class MMRetrieveError(ValueError):
    """Base class of all exceptions that this library raises on purpose.

    The text is one line without control characters, whatever the file or the request contains that it repeats. The command line prints
    it and exits with status 1 (OptionError: 2).

    Examples
    --------
    >>> import mmretrieve as mm
    >>> try:
    ...     mm.pdv_weights(beta=2)
    ... except mm.MMRetrieveError as error:
    ...     print(error)
    beta must be a number from 0 to 1, got 2
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class OptionError(MMRetrieveError):
    """An argument has the wrong type, is out of range or is not one of the choices. The command line exits with status 2."""


class KeywordError(OptionError, TypeError):
    """A function has no such keyword. The message lists those that it has. It is a TypeError, too, as Python raises it."""


class VectorError(MMRetrieveError):
    """An array violates the contract of `mmretrieve.vectors`: wrong shape, values that are not finite, or a zero row."""


class ImageError(MMRetrieveError):
    """An image is missing, unreadable, in an unsupported format or too large. The message names it."""


class EncoderError(MMRetrieveError):
    """An encoder cannot be loaded, or is not the encoder that is needed."""


class GalleryError(MMRetrieveError):
    """A folder is not a gallery, or the gallery is damaged, empty, locked or was made with another encoder."""


class MissingError(GalleryError):
    """No item of the gallery has this id."""


class VocabularyError(MMRetrieveError):
    """The vocabulary of a tagger cannot be read or is inconsistent."""


class EndpointError(MMRetrieveError):
    """The endpoint of a language model did not answer, or a cached answer is missing. The message says what is cached."""


class JudgeError(MMRetrieveError):
    """A judge failed, or its answer cannot be read."""


class ExpiredError(MMRetrieveError):
    """An image that was uploaded to the server is no longer stored there. Upload it again."""


class BusyError(MMRetrieveError):
    """The server is at its limit of concurrent requests."""


class SearchTimeoutError(MMRetrieveError):
    """A search took longer than the time limit of the server."""


def printable(text: str) -> str:
    """The text in one line, with control characters escaped and the middle of a very long one left out.

    >>> print(printable("a line\\nand an escape code: \\x1b[31m"))
    a line\\nand an escape code: \\x1b[31m
    """
    if len(text) > MAX_LINE_CHARACTERS:
        text = f"{text[: MAX_LINE_CHARACTERS // 2]} … {text[-MAX_LINE_CHARACTERS // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def unknown(what: str, value: object, choices: Iterable[object], where: str = "") -> OptionError:
    """The error for a value that is not one of the choices, with the most similar choice. `where` follows the value.

    >>> print(unknown("composer", "sun", ["image", "sum"]))
    unknown composer 'sun'; did you mean 'sum'? choose from: image, sum
    >>> print(unknown("composer", "magic", ["image", "sum"]))
    unknown composer 'magic'; choose from: image, sum
    """
    names = [str(choice) for choice in choices]
    hint = did_you_mean(value, names) or ";"
    return OptionError(f"unknown {what} {str(value)[:MAX_NAME_CHARACTERS]!r}{where}{hint} choose from: {', '.join(names)}")


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """What a message about an unknown name appends: the most similar choice; nothing if none is similar.

    >>> did_you_mean("promt", ["image", "prompt"]), did_you_mean("TOP_K", ["image", "k"]), did_you_mean("x", ["image"])
    ("; did you mean 'prompt'?", "; did you mean 'k'?", '')
    """
    from difflib import get_close_matches  # only errors need it

    by_key = {_comparable(choice): choice for choice in choices}
    key = _comparable(str(value)[:MAX_NAME_CHARACTERS])
    key = next((name for name in SYNONYMS.get(key, ()) if name in by_key), key)
    close = get_close_matches(key, by_key, n=1, cutoff=MIN_SIMILARITY)
    return f"; did you mean {by_key[close[0]]!r}?" if close else ""


def checks_keywords(function: F) -> F:
    """Makes a function or a class raise KeywordError for a keyword that it does not have, with all that it has and the most similar one.

    >>> @checks_keywords
    ... def search(prompt, *, k=10): ...
    >>> try:
    ...     search("in red", top_k=3)
    ... except KeywordError as error:
    ...     print(error)
    unknown keyword 'top_k' of search; did you mean 'k'? choose from: prompt, k
    """
    if isinstance(function, type):
        function.__init__ = checks_keywords(function.__init__)  # type: ignore[misc]
        return function
    code, title = function.__code__, function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    keywords = [name for name in names if name not in ("self", "cls")]

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in keywords:
                raise KeywordError(str(unknown("keyword", name, keywords, where=f" of {title}")))
        return function(*args, **kwargs)

    return cast(F, checked)


def _comparable(name: str) -> str:
    return name.casefold().lstrip("-").replace("-", "_")


def optional_package(name: str) -> Any:
    """A package that only some features need. Raises MMRetrieveError, which says how to install it, if it is not there."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MMRetrieveError(f"this needs the package {name}; install it with: pip install {name}") from error
