"""The `Encoder` protocol, and the identity by which a gallery recognizes its encoder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from PIL import Image

from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.options import Dtype, Modality, Preprocessing, load_json
from mmretrieve.vectors import Float32

if TYPE_CHECKING:
    import torch

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

    def without_folder(self) -> EncoderIdentity:
        """The same identity, with the name of a local folder or checkpoint in place of its path, for others to read.

        >>> EncoderIdentity("transformers:/home/me/models/siglip", "5f2c", "none").without_folder().model
        'transformers:siglip'
        """
        prefix, colon, spec = self.model.rpartition(":")
        architecture, _, weights = spec.partition("/")
        if os.path.isabs(spec) or os.path.isdir(spec):
            spec = Path(spec).name
        elif os.path.isabs(weights) or os.path.isfile(weights):
            spec = f"{architecture}/{Path(weights).name}"
        return replace(self, model=f"{prefix}{colon}{spec}")

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


@dataclass(frozen=True)
class EncoderContext:
    """What the factory of an encoder gets: the arguments of `load_encoder`, checked.

    Parameters
    ----------
    name : str
        The name that was asked for. The identity of the encoder has it as `model`, so that a gallery finds the encoder again.
    device : torch.device
        Where the encoder computes.
    dtype : str
        The dtype in which the image tower computes: a `Dtype`, or "auto".
    preprocessing : Preprocessing
        "plain" or "targetpad".
    """

    name: str
    device: torch.device
    dtype: str
    preprocessing: Preprocessing


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


def supports(encoder: object, modality: Modality) -> bool:
    """Whether an encoder encodes images, texts, pairs of both, or patches. One that does not tell encodes images and texts.

    >>> supports("an object without `supports`", Modality.TEXT), supports("another", Modality.PAIR)
    (True, False)
    """
    declared = getattr(encoder, "supports", None)
    return modality in (Modality.IMAGE, Modality.TEXT) if declared is None else bool(declared(modality.value))


def check_supports(encoder: object, modality: Modality, purpose: str) -> None:
    """Raises OptionError unless the encoder encodes what `purpose` needs, such as "the composer 'joint'"."""
    if not supports(encoder, modality):
        raise OptionError(
            f"{purpose} needs an encoder of {modality.description}, and {identity_of(encoder).model} does not encode them; use another encoder"
        )


def check_images(images: object) -> None:
    """Raises OptionError for one image in the place of a list of images."""
    if isinstance(images, str | Path | bytes | Image.Image) or getattr(images, "ndim", 4) < 4:
        raise OptionError(f"encode_images expects a list of images, got one: {type(images).__name__}")


def check_texts(texts: Any) -> list[str]:
    """The texts as a list. Raises OptionError for one text in the place of a list, and for a value that is no text."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise OptionError(f"encode_texts expects a list of texts, got {texts!r:.80}")
    several = list(texts)
    if others := [text for text in several if not isinstance(text, str)]:
        raise OptionError(f"encode_texts expects texts, got {others[0]!r:.80}")
    return several


@runtime_checkable
class Encoder(Protocol):
    """Turns images and texts into unit vectors of one space. Any object with these four members is an encoder.

    Optional members: `supports(modality)` for "image", "text", "pair" and "patches", if it does not encode both images and texts, or
    encodes pairs of them (`PairEncoder`) or patches (`PatchEncoder`); those of `BatchEncoder` and `ContextLimit`.

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


def warn_of_cut_texts(encoder: ContextLimit, name: str, texts: Sequence[str], stacklevel: int) -> None:
    """Warns, with the name of the encoder, if texts do not fit into its context. `stacklevel` is that of `warnings.warn` there."""
    too_long = [text for text, fits in zip(texts, encoder.fits_context(texts), strict=True) if not fits]
    if too_long:
        warnings.warn(
            f"{len(too_long)} of {len(texts)} texts were cut to the {encoder.context_length} tokens that {name} reads, "
            f"first: {too_long[0][:60]!r}…",
            PromptCutWarning,
            stacklevel=stacklevel + 1,
        )


class NamedEncoder(Encoder, BatchEncoder, ContextLimit, Protocol):
    """What `load_encoder` returns for a name: an encoder with these additions, and with the dtype of its image tower."""

    @property
    def dtype(self) -> torch.dtype: ...


@runtime_checkable
class PairEncoder(Protocol):
    """An optional addition to an encoder: it encodes an image and a text together, as joint embedders do.

    Such an encoder returns true for `supports("pair")`. The composer "joint" needs it.
    """

    def encode_pairs(self, images: Iterable[ImageLike], texts: Sequence[str]) -> Float32:
        """(n, dim) float32 unit rows for n images, each together with its text."""
        ...


@runtime_checkable
class PatchEncoder(Protocol):
    """An optional addition to an encoder: it encodes each patch of an image, as towers of CLIP's type can.

    Such an encoder returns true for `supports("patches")`. The judge "local" needs it.
    """

    def encode_patches(self, images: Iterable[ImageLike]) -> Float32:
        """(n, p, dim) float32 unit rows for the p patches of each of n images, row by row."""
        ...
