"""What an encoder returns for texts and references is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.errors import EncoderError


class Double:
    """The wardrobe's encoder, some of whose methods are replaced."""

    def __init__(self, inner: mm.Encoder, **methods: Callable[..., Any]) -> None:
        self.identity, self.dim = inner.identity, inner.dim
        self.encode_images = methods.get("encode_images", inner.encode_images)
        self.encode_texts = methods.get("encode_texts", inner.encode_texts)


def fails(*_: Any) -> Any:
    raise RuntimeError("out of\nmemory")


NAME = "encoder 'wardrobe'"
CASES: dict[str, tuple[Callable[..., Any], str]] = {
    "fails": (fails, f"{NAME} failed: RuntimeError: out of memory"),
    "one row": (lambda _: np.eye(1, 128), rf"{NAME} returned shape \(1, 128\) for \d+ (texts|images); expected an array"),
    "narrow": (lambda given: np.eye(len(list(given)), 64), rf"{NAME} returned shape \(\d+, 64\) for "),
    "long": (lambda given: np.ones((len(list(given)), 128)), f"{NAME} returned a row of length 11.3137 for (texts|images); "),
    "prose": (lambda _: "red", f"{NAME} returned a str, which is no array of numbers, for "),
}


@pytest.mark.parametrize("method", ["encode_texts", "encode_images"])
@pytest.mark.parametrize("case", CASES)
def test_wrong_rows_are_an_error_of_the_encoder(retriever: mm.Retriever, method: str, case: str) -> None:
    wrong, line = CASES[case]
    other = mm.Retriever(retriever.gallery, Double(retriever.encoder, **{method: wrong}))
    images = [retriever.gallery.picture(retriever.gallery.ids[row]) for row in (0, 1)]
    with pytest.raises(EncoderError, match=line) as caught:
        other.search_many([{"image": image, "prompt": "in red"} for image in images])
    assert "\n" not in str(caught.value)


def test_a_text_without_a_direction_is_named(retriever: mm.Retriever) -> None:
    encoder = retriever.encoder

    def blind(texts: Any) -> Any:
        return np.where([["red dress" in text] for text in texts], np.nan, encoder.encode_texts(texts))

    other = mm.Retriever(retriever.gallery, Double(encoder, encode_texts=blind))
    assert len(other.search(prompt="a blue dress")) == 10
    with pytest.raises(
        EncoderError, match=r"encoder 'wardrobe' cannot encode '.*red dress.*': its vector contains NaN or infinity"
    ):
        other.search(prompt="a red dress")


def test_rows_that_are_numbers_of_another_kind_are_taken(retriever: mm.Retriever) -> None:
    encoder = retriever.encoder
    as_lists = Double(encoder, encode_texts=lambda texts: encoder.encode_texts(texts).astype(np.float64).tolist())
    other = mm.Retriever(retriever.gallery, as_lists)
    assert other.search(prompt="a red dress").ids == retriever.search(prompt="a red dress").ids


def test_errors_of_this_library_and_exhausted_memory_stay_what_they_are(retriever: mm.Retriever) -> None:
    for error in (MemoryError("no memory"), mm.errors.OptionError("a text is too long")):

        def fails(_: Any, error: Exception = error) -> Any:
            raise error

        other = mm.Retriever(retriever.gallery, Double(retriever.encoder, encode_texts=fails))
        with pytest.raises(type(error), match=str(error)):
            other.search(prompt="a red dress")
