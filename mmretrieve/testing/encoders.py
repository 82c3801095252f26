"""The contract of encoders (`mmretrieve.encoders.base`)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmretrieve.encoders.base import BatchEncoder, ContextLimit, Encoder, EncoderIdentity, PromptCutWarning, supports
from mmretrieve.errors import ImageError
from mmretrieve.images import ImageLike
from mmretrieve.options import Modality
from mmretrieve.testing.clauses import DEFAULT_TOLERANCE, TEXTS, check_clauses, require, require_close, sample_images
from mmretrieve.vectors import UNIT_TOLERANCE, Float32, unit

METHODS = {Modality.IMAGE: "encode_images", Modality.TEXT: "encode_texts", Modality.PAIR: "encode_pairs"}
"""What an encoder can support → the method that encodes it in one row each."""
PATCHES = "encode_patches"
MAX_CONTEXT_LENGTH = 100_000  # texts beyond a longer context are not tried


@dataclass(frozen=True)
class _Encoding:
    """A method that encodes, as a function of a list of inputs, and inputs that differ."""

    name: str
    encode: Callable[[Sequence[Any]], Float32]
    inputs: Sequence[Any]


@dataclass(frozen=True)
class _EncoderCase:
    """An encoder, the tolerance between vectors of one input, and an empty folder."""

    encoder: Any
    tolerance: float
    folder: Path

    def supports(self, modality: Modality) -> bool:
        return supports(self.encoder, modality)

    @property
    def encodings(self) -> list[_Encoding]:
        """The methods for what the encoder supports, with new inputs."""
        encoder, images = self.encoder, sample_images()
        functions: dict[Modality, tuple[Callable[[Sequence[Any]], Float32], Sequence[Any]]] = {
            Modality.IMAGE: (lambda images: encoder.encode_images(images), images),
            Modality.TEXT: (lambda texts: encoder.encode_texts(texts), list(TEXTS)),
            Modality.PAIR: (
                lambda pairs: encoder.encode_pairs([image for image, _ in pairs], [text for _, text in pairs]),
                list(zip(images, TEXTS, strict=True)),
            ),
        }
        return [_Encoding(METHODS[kind], *functions[kind]) for kind in METHODS if self.supports(kind)]

    def patches_of(self, images: Sequence[Any]) -> Float32:
        """What `encode_patches` returns. Raises AssertionError unless it is an array of three axes."""
        patches = self.encoder.encode_patches(images)
        require(isinstance(patches, np.ndarray), f"it returned a {type(patches).__name__}, expected an ndarray")
        require(patches.ndim == 3, f"it returned shape {patches.shape}, expected (n, p, dim)")
        return np.asarray(patches)


def check_encoder(encoder: Encoder, *, tolerance: float = DEFAULT_TOLERANCE) -> None:
    """Checks that an encoder keeps the contract of `Encoder`, `BatchEncoder`, `ContextLimit` and `PatchEncoder`.

    It encodes some small images and texts, each several times. An encoder with a method `supports` is checked for those of "image", "text",
    "pair" and "patches" for which it is true; one without it for images and texts.

    Parameters
    ----------
    encoder : Encoder
        What is checked.
    tolerance : float, default=1e-3
        The greatest length of the difference between two vectors of one input, such as alone and in a batch.

    Raises
    ------
    AssertionError
        A clause is violated. The message is one line that names it.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> class Doubled:
    ...     def __init__(self, encoder):
    ...         self.identity, self.dim, self._encoder = encoder.identity, encoder.dim, encoder
    ...     def encode_images(self, images, progress=None):
    ...         return 2 * self._encoder.encode_images(images, progress)
    ...     def encode_texts(self, texts):
    ...         return self._encoder.encode_texts(texts)
    >>> wardrobe = mm.load_encoder("wardrobe")
    >>> mm.testing.check_encoder(wardrobe)
    >>> try:
    ...     mm.testing.check_encoder(Doubled(wardrobe))
    ... except AssertionError as error:
    ...     print(error)
    encoder Doubled violates "rows have length 1": row 0 of encode_images has length 2
    """
    subject = f"encoder {type(encoder).__name__}"
    with TemporaryDirectory() as folder:
        case = _EncoderCase(encoder, tolerance, Path(folder))
        check_clauses(subject, case, CLAUSES)
        for kind, clauses in MORE_CLAUSES.items():
            if case.supports(kind):
                check_clauses(subject, case, clauses)


def identity_has_its_type(case: _EncoderCase) -> None:
    identity = case.encoder.identity
    require(isinstance(identity, EncoderIdentity), f"expected an EncoderIdentity, got {identity!r:.80}")


def dim_is_a_positive_whole_number(case: _EncoderCase) -> None:
    dim = case.encoder.dim
    require(type(dim) is int and dim > 0, f"got {dim!r:.80}")


def what_it_supports_has_a_method(case: _EncoderCase) -> None:
    require(any(map(case.supports, METHODS)), f"it supports none of {', '.join(METHODS)}")
    for kind, method in (METHODS | {Modality.PATCHES: PATCHES}).items():
        if case.supports(kind):
            require(callable(getattr(case.encoder, method, None)), f"it supports {str(kind)!r} without {method}")
    if getattr(case.encoder, "supports", None) is None:
        for method in (METHODS[Modality.PAIR], PATCHES):
            require(not hasattr(case.encoder, method), f"it has {method}, but no supports(…) that says so")


def rows_have_shape_n_dim(case: _EncoderCase) -> None:
    for one in case.encodings:
        rows, expected = one.encode(one.inputs), (len(one.inputs), case.encoder.dim)
        require(isinstance(rows, np.ndarray), f"{one.name} returned a {type(rows).__name__}, expected an ndarray")
        require(rows.shape == expected, f"{one.name} returned shape {rows.shape}, expected {expected}")


def rows_are_contiguous_float32(case: _EncoderCase) -> None:
    for one in case.encodings:
        rows = one.encode(one.inputs)
        require(rows.dtype == np.float32, f"{one.name} returned {rows.dtype}")
        require(rows.flags.c_contiguous, f"{one.name} returned rows that are not C-contiguous")


def rows_are_finite(case: _EncoderCase) -> None:
    for one in case.encodings:
        finite = np.isfinite(one.encode(one.inputs)).all(axis=1)
        require(finite.all(), f"row {finite.argmin()} of {one.name} contains NaN or infinity")


def rows_have_length_1(case: _EncoderCase) -> None:
    for one in case.encodings:
        lengths = np.linalg.norm(one.encode(one.inputs), axis=1)
        worst = int(np.abs(lengths - 1).argmax())
        require(abs(lengths[worst] - 1) <= UNIT_TOLERANCE, f"row {worst} of {one.name} has length {lengths[worst]:.6g}")


def no_inputs_give_no_rows(case: _EncoderCase) -> None:
    for one in case.encodings:
        rows = one.encode([])
        got, expected = (np.shape(rows), getattr(rows, "dtype", None)), ((0, case.encoder.dim), np.float32)
        require(got == expected, f"{one.name}([]) has shape {got[0]} and dtype {got[1]}, expected {expected[0]} and float32")


def equal_inputs_have_equal_rows(case: _EncoderCase) -> None:
    for one in case.encodings:
        require_close(one.encode(one.inputs), one.encode(one.inputs), case.tolerance, f"{one.name}, called twice")


def rows_are_in_the_order_of_inputs(case: _EncoderCase) -> None:
    for one in case.encodings:
        rows, of_reversed = one.encode(one.inputs), one.encode(one.inputs[::-1])
        require_close(of_reversed[::-1], rows, case.tolerance, f"{one.name} of reversed inputs")


def rows_do_not_depend_on_the_batch(case: _EncoderCase) -> None:
    for one in case.encodings:
        alone = np.concatenate([one.encode([each]) for each in one.inputs])
        require_close(alone, one.encode(one.inputs), case.tolerance, f"{one.name} of one input")


def different_inputs_have_different_rows(case: _EncoderCase) -> None:
    for one in case.encodings:
        rows = one.encode(one.inputs)
        distances = np.linalg.norm(rows[:, None] - rows, axis=2) + 2 * np.eye(len(rows))
        first, second = np.unravel_index(distances.argmin(), distances.shape)
        require(distances.min() > case.tolerance, f"rows {first} and {second} of {one.name} are equal")


def inputs_are_not_changed(case: _EncoderCase) -> None:
    for one in case.encodings:
        inputs = list(one.inputs)
        before = list(map(_content, inputs))
        one.encode(inputs)
        require(list(map(_content, inputs)) == before, f"{one.name} changed them")


def identity_and_dim_do_not_change(case: _EncoderCase) -> None:
    before = case.encoder.identity, case.encoder.dim
    for one in case.encodings:
        one.encode(one.inputs)
    after = case.encoder.identity, case.encoder.dim
    require(after == before, f"they were {before[0]} and {before[1]}, and are {after[0]} and {after[1]}")


def images_are_equal_in_every_form(case: _EncoderCase) -> None:
    image, path = sample_images()[0], case.folder / "image.png"
    image.save(path)
    expected = case.encoder.encode_images([image])
    with path.open("rb") as file:
        forms: dict[str, ImageLike] = {
            "a path": path,
            "a path as str": str(path),
            "an array": np.asarray(image),
            "bytes": path.read_bytes(),
            "an open file": file,
            "a file in memory": io.BytesIO(path.read_bytes()),
        }
        for name, form in forms.items():
            require_close(case.encoder.encode_images([form]), expected, case.tolerance, f"an image given as {name}")


def images_can_come_from_an_iterator(case: _EncoderCase) -> None:
    images = sample_images()
    expected = case.encoder.encode_images(images)
    require_close(case.encoder.encode_images(iter(images)), expected, case.tolerance, "encode_images(iter(images))")


def progress_counts_every_image(case: _EncoderCase) -> None:
    images, counts = sample_images(), list[int]()
    case.encoder.encode_images(images, counts.append)
    require(sum(counts) == len(images), f"{len(images)} images were reported as {counts}")


def an_unreadable_image_is_an_error_that_names_it(case: _EncoderCase) -> None:
    path = case.folder / "unreadable.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    try:
        case.encoder.encode_images([*sample_images(), path])
    except ImageError as error:
        require(path.name in str(error), f"its message is {error}")
        return
    raise AssertionError("encode_images raised nothing")


def feature_batches_agree_with_encode_images(case: _EncoderCase) -> None:
    encoder = case.encoder
    if not isinstance(encoder, BatchEncoder):
        return
    images = sample_images()
    batches = [images[:3], images[3:]]
    features = list(encoder.feature_batches(iter(map(iter, batches))))
    require(len(features) == len(batches), f"{len(batches)} batches gave {len(features)}")
    for one, batch in zip(features, batches, strict=True):
        require_close(unit(one), case.encoder.encode_images(batch), case.tolerance, f"the features of {len(batch)} images")


def patches_have_shape_n_p_dim(case: _EncoderCase) -> None:
    images = sample_images()
    patches, of_none = case.patches_of(images), case.patches_of([])
    count, dim = patches.shape[1], case.encoder.dim
    require(patches.shape == (len(images), count, dim) and count, f"{len(images)} images have shape {patches.shape}")
    require(of_none.shape == (0, count, dim), f"no images have shape {of_none.shape}, expected {(0, count, dim)}")


def patches_are_contiguous_float32(case: _EncoderCase) -> None:
    patches = case.patches_of(sample_images())
    require(patches.dtype == np.float32, f"got {patches.dtype}")
    require(patches.flags.c_contiguous, "they are not C-contiguous")


def patches_have_length_1(case: _EncoderCase) -> None:
    errors = np.abs(np.linalg.norm(case.patches_of(sample_images()), axis=2) - 1)
    for image, patch in np.argwhere(~(errors <= UNIT_TOLERANCE)):  # NaN is wrong, too
        raise AssertionError(f"patch {patch} of image {image} is {errors[image, patch]:.2g} off")


def patches_do_not_depend_on_the_batch(case: _EncoderCase) -> None:
    images = sample_images()
    together = case.patches_of(images)
    for i, image in enumerate(images):
        require_close(case.patches_of([image])[0], together[i], case.tolerance, f"the patches of image {i} alone")


def patches_of_an_image_differ(case: _EncoderCase) -> None:
    patches = case.patches_of(sample_images())
    spread = np.linalg.norm(patches - patches[:, :1], axis=2).max()
    require(patches.shape[1] == 1 or spread > case.tolerance, "each image has one vector for all of its patches")


def fits_context_tells_which_texts_are_cut(case: _EncoderCase) -> None:
    encoder = case.encoder
    if not isinstance(encoder, ContextLimit):
        return
    length = encoder.context_length
    texts = ["red"] if length > MAX_CONTEXT_LENGTH else ["red", "red " * length]
    expected = [True, False][: len(texts)]
    fits = encoder.fits_context(texts)
    require(list(fits) == expected, f"of {len(texts)} texts with 1 and {length} words it says {fits}")
    for text, does_fit in zip(texts, expected, strict=True):
        warned = _warns_of_cut(case.encoder, text)
        require(warned is not does_fit, f"{text[:20]!r} {'fits' if does_fit else 'is cut'}, and PromptCutWarning was {warned}")


CLAUSES = (
    identity_has_its_type,
    dim_is_a_positive_whole_number,
    what_it_supports_has_a_method,
    rows_have_shape_n_dim,
    rows_are_contiguous_float32,
    rows_are_finite,
    rows_have_length_1,
    no_inputs_give_no_rows,
    equal_inputs_have_equal_rows,
    rows_are_in_the_order_of_inputs,
    rows_do_not_depend_on_the_batch,
    different_inputs_have_different_rows,
    inputs_are_not_changed,
    identity_and_dim_do_not_change,
)
IMAGE_CLAUSES = (
    images_are_equal_in_every_form,
    images_can_come_from_an_iterator,
    progress_counts_every_image,
    an_unreadable_image_is_an_error_that_names_it,
    feature_batches_agree_with_encode_images,
)
TEXT_CLAUSES = (fits_context_tells_which_texts_are_cut,)
PATCH_CLAUSES = (
    patches_have_shape_n_p_dim,
    patches_are_contiguous_float32,
    patches_have_length_1,
    patches_do_not_depend_on_the_batch,
    patches_of_an_image_differ,
)
MORE_CLAUSES = {Modality.IMAGE: IMAGE_CLAUSES, Modality.TEXT: TEXT_CLAUSES, Modality.PATCHES: PATCH_CLAUSES}
"""The clauses for an encoder that supports each of these."""


def _content(value: Any) -> Any:
    """What can be compared of an input: texts as they are, the mode, size and pixels of images."""
    if isinstance(value, tuple):
        return tuple(map(_content, value))
    return value if isinstance(value, str) else (value.mode, value.size, value.tobytes())


def _warns_of_cut(encoder: Encoder, text: str) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder.encode_texts([text])
    return any(issubclass(warning.category, PromptCutWarning) for warning in caught)
