"""The one error family. Every message says what came, what was expected and, where it helps, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class MMRetrieveError(ValueError):
    """Base of everything this library raises on purpose. The shell prints it as one line and exits with 1."""


class OptionError(MMRetrieveError):
    """An argument outside its choices or its range: wrong use. The shell exits with 2."""


class VectorError(MMRetrieveError):
    """An array that breaks the contract of `vectors`: wrong shape, not finite, or a zero row."""


class ImageError(MMRetrieveError):
    """An image that is missing, unreadable, not an image or too large; the message names it."""


class EncoderError(MMRetrieveError):
    """An encoder that cannot be loaded, or is not the one that was needed."""


class GalleryError(MMRetrieveError):
    """A folder that is not a gallery, or a gallery that is damaged, empty, locked or made by another encoder."""


class MissingError(GalleryError):
    """An id that no item of the gallery has."""


class VocabularyError(MMRetrieveError):
    """A tagger vocabulary that cannot be read or does not fit its own sentence."""


class EndpointError(MMRetrieveError):
    """A language model's endpoint that does not answer, or an answer that is not in the memory; the message says what is kept."""


class ExpiredError(MMRetrieveError):
    """A picture that was sent to the server once, and is not there any more."""


class BusyError(MMRetrieveError):
    """A server that has as much to do as it may take on."""


class SearchTimeoutError(MMRetrieveError):
    """A question whose answer took longer than the server may spend on one."""


def unknown(what: str, value: object, choices: Iterable[object]) -> OptionError:
    """The error for a value outside a closed list: `unknown("composer", "sun", ["image", "sum"])`."""
    return OptionError(f"unknown {what} {str(value)!r}; choose from: {', '.join(str(choice) for choice in choices)}")
