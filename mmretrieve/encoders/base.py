"""The `Encoder` protocol, and the identity by which a gallery recognizes its encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.options import Dtype, load_json
from mmretrieve.vectors import Float32

Progress = Callable[[int], object]
"""Called with the number of items that were completed since the last call, like `tqdm.update`."""


class PromptCutWarning(UserWarning):
    """A text was longer than the context of the encoder, and its end was cut."""


class DtypeWarning(UserWarning):
    """The image tower computes in another dtype than the one that made the vectors of a gallery."""


@dataclass(frozen=True)
class EncoderIdentity:
    """Identifies an encoder. Two identities are equal if weights and preprocessing are.

    Parameters
    ----------
    model : str
        The name with which `load_encoder` loads the model. It is not compared.
    weights : str
        A hash of the weights.
    preprocessing : str
        A description of the image preprocessing.

    Raises
    ------
    OptionError
        If one of them is not text.

    Examples
    --------
    >>> from mmretrieve import EncoderIdentity
    >>> EncoderIdentity("a name", "5f2c", "resize 224") == EncoderIdentity("another name", "5f2c", "resize 224")
    True
    """

    model: str = field(compare=False)
    weights: str
    preprocessing: str

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.model, self.weights, self.preprocessing)):
            raise OptionError(f"model, weights and preprocessing of an encoder must be text, got {vars(self)!r:.200}")

    def __str__(self) -> str:
        return f"{self.model} (weights {self.weights[:12]}, preprocessing {self.preprocessing})"

    def difference(self, other: EncoderIdentity) -> str:
        """What differs between two identities, in words; the value of this one is the first. Empty if they are equal.

        >>> one, other = EncoderIdentity("a", "5f2c", '{"size":224}'), EncoderIdentity("b", "5f2c", '{"size":336}')
        >>> one.difference(other)
        'preprocessing (size 224 and 336)'
        """
        parts = []
        if self.weights != other.weights:
            parts.append(f"weights ({self.weights[:12]} and {other.weights[:12]})")
        if self.preprocessing != other.preprocessing:
            parts.append(f"preprocessing ({_differences(self.preprocessing, other.preprocessing)})")
        return ", ".join(parts)


OWN_IDENTITY = EncoderIdentity("own", "own", "own")
"""The identity of vectors whose encoder is not known to this library."""


def _differences(one: str, other: str) -> str:
    """The entries of two descriptions of preprocessing that differ; both descriptions if they are not JSON objects."""
    try:
        first, second = load_json(one), load_json(other)
        names = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
        return ", ".join(f"{name} {first.get(name, 'none')} and {second.get(name, 'none')}" for name in names)
    except (ValueError, TypeError, AttributeError):
        return f"{one} and {other}"


def identity_of(encoder: object) -> EncoderIdentity:
    """The identity of an encoder, or the identity itself. Raises OptionError for anything else.

    >>> identity_of(EncoderIdentity("model", "weights", "none")).model
    'model'
    """
    identity = encoder if isinstance(encoder, EncoderIdentity) else getattr(encoder, "identity", None)
    if isinstance(identity, EncoderIdentity):
        return identity
    if identity is not None:
        raise OptionError(
            f"the identity of an encoder must be an EncoderIdentity(model, weights, preprocessing), got {identity!r:.80}"
        )
    expected = f"load_encoder({encoder!r})" if isinstance(encoder, str) else "what load_encoder returns"
    raise OptionError(f"expected an encoder or an EncoderIdentity, such as {expected}, got {encoder!r:.80}")


def dtype_of(encoder: object) -> Dtype | None:
    """The dtype in which the image tower of an encoder computes; None if it does not tell."""
    name = str(getattr(encoder, "dtype", "")).removeprefix("torch.")
    return Dtype(name) if name in list(Dtype) else None


@runtime_checkable
class Encoder(Protocol):
    """Turns images and texts into unit vectors of one space. Any object with these four members is an encoder.

    Attributes
    ----------
    identity : EncoderIdentity
        Identifies weights and preprocessing.
    dim : int
        The number of columns of the vectors.

    Examples
    --------
    >>> from mmretrieve import Encoder, load_encoder
    >>> encoder = load_encoder("wardrobe")
    >>> isinstance(encoder, Encoder)
    True
    >>> encoder.encode_texts(["a red dress"]).shape == (1, encoder.dim)
    True
    """

    @property
    def identity(self) -> EncoderIdentity: ...

    @property
    def dim(self) -> int: ...

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """Encodes images.

        Parameters
        ----------
        images : iterable of str, Path, PIL image, array, bytes or binary file
            n images.
        progress : callable, optional
            Called with the number of newly encoded images.

        Returns
        -------
        ndarray of shape (n, dim), float32
            Unit rows.

        Raises
        ------
        ImageError
            An image cannot be read. The message names it.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encodes texts. A text that exceeds the context length is cut, with a PromptCutWarning.

        Parameters
        ----------
        texts : sequence of str
            n texts.

        Returns
        -------
        ndarray of shape (n, dim), float32
            Unit rows.
        """
        ...


@runtime_checkable
class BatchEncoder(Protocol):
    """An optional addition to an encoder: it encodes batch after batch without a pause between them.

    Galleries index with it. Other encoders get one call of `encode_images` for each batch, which gives the same vectors.
    """

    def feature_batches(self, batches: Iterable[Iterable[ImageLike]]) -> Iterator[Float32]:
        """Yields (n, dim) image features of any length for each batch of n images. The next batch is prepared and begun meanwhile."""
        ...


@runtime_checkable
class ContextLimit(Protocol):
    """An optional addition to an encoder: it reports which texts fit into its context.

    Composers shorten captions for such an encoder so that the prompt is not cut. Other encoders get texts unchanged.
    """

    @property
    def context_length(self) -> int:
        """The number of tokens that the text tower reads, including start and end tokens."""
        ...

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text fits completely. Texts are tokenized, not encoded."""
        ...
