"""The exceptions of the library. Every message says what was wrong, what was expected and, where it helps, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class MMRetrieveError(ValueError):
    """Base class of all exceptions that this library raises on purpose.

    The command line prints them as one line and exits with status 1 (OptionError: 2).

    Examples
    --------
    >>> import mmretrieve as mm
    >>> try:
    ...     mm.pdv_weights(beta=2)
    ... except mm.MMRetrieveError as error:
    ...     print(error)
    beta must be a number from 0 to 1, got 2
    """


class OptionError(MMRetrieveError):
    """An argument has the wrong type, is out of range or is not one of the choices. The command line exits with status 2."""


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


class ExpiredError(MMRetrieveError):
    """An image that was uploaded to the server is no longer stored there. Upload it again."""


class BusyError(MMRetrieveError):
    """The server is at its limit of concurrent requests."""


class SearchTimeoutError(MMRetrieveError):
    """A search took longer than the time limit of the server."""


def unknown(what: str, value: object, choices: Iterable[object]) -> OptionError:
    """The error for a value that is not one of the choices.

    >>> print(unknown("composer", "sun", ["image", "sum"]))
    unknown composer 'sun'; choose from: image, sum
    """
    return OptionError(f"unknown {what} {str(value)!r}; choose from: {', '.join(str(choice) for choice in choices)}")
