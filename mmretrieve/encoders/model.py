"""What encoders of models of other packages share: images opened ahead in threads, texts encoded once, and unit rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from mmretrieve.concurrency import LruCache, map_ahead, map_batches_ahead
from mmretrieve.encoders.base import EncoderIdentity, Progress, check_images, check_texts, warn_of_cut_texts
from mmretrieve.images import ImageLike, open_image, target_pad
from mmretrieve.options import Preprocessing
from mmretrieve.vectors import Float32, unit

IMAGE_BATCH_SIZE, TEXT_BATCH_SIZE = 32, 32
MAX_CACHED_TEXTS = 4096  # features: 16 MB of 1024 dimensions
P = TypeVar("P")


class ModelEncoder(ABC, Generic[P]):
    """An `Encoder` of a model, given the features of batches. `P` is what is prepared of an image in a thread.

    Attributes
    ----------
    identity : EncoderIdentity
        Identifies weights, preprocessing and prompts.
    dim : int
        The number of columns of the vectors.
    context_length : int
        The number of tokens of a text that the model reads, including start and end tokens.
    """

    identity: EncoderIdentity
    dim: int
    context_length: int

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.recent_texts = LruCache[Float32](MAX_CACHED_TEXTS)

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        """(n, dim) float32 unit rows for n paths, PIL images or binary files. Raises ImageError, naming an unreadable one."""
        check_images(images)
        return unit(self._features_of(map_ahead(self._prepare, images, IMAGE_BATCH_SIZE), progress), "image features")

    def feature_batches(self, batches: Iterable[Iterable[ImageLike]]) -> Iterator[Float32]:
        """Yields the image features of each batch, as `BatchEncoder` says."""
        return (self._features_of(images) for images in map_batches_ahead(self._prepare, batches, IMAGE_BATCH_SIZE))

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """(n, dim) float32 unit rows for n texts. A text that exceeds the context length is cut, with a PromptCutWarning."""
        texts = check_texts(texts)
        warn_of_cut_texts(self, self.identity.model, texts, stacklevel=2)
        rows = self.recent_texts.get_all(texts, self._features_of_texts)
        return unit(np.array(rows, np.float32).reshape(len(texts), self.dim), "text features")

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text fits completely. Texts are tokenized, not encoded."""
        return [count <= self.context_length for count in self._token_counts(texts)] if texts else []

    def _features_of(self, images: Iterator[P], progress: Progress | None = None) -> Float32:
        """(n, dim) features of n prepared images, of any length."""
        features = [np.empty((0, self.dim), np.float32)]
        while batch := list(islice(images, IMAGE_BATCH_SIZE)):
            features.append(self._image_features(batch))
            if progress is not None:
                progress(len(batch))
        return np.concatenate(features)

    def _open(self, image: ImageLike) -> Image.Image:
        """The image, padded where the preprocessing says so."""
        picture = open_image(image, copy=False)
        return target_pad(picture) if self.preprocessing is Preprocessing.TARGET_PAD else picture

    def _features_of_texts(self, texts: list[str]) -> list[Float32]:
        batches = (texts[start : start + TEXT_BATCH_SIZE] for start in range(0, len(texts), TEXT_BATCH_SIZE))
        return [row.copy() for batch in batches for row in self._text_features(batch)]

    @abstractmethod
    def _prepare(self, image: ImageLike) -> P:
        """What the model reads of an image."""

    @abstractmethod
    def _image_features(self, images: Sequence[P]) -> Float32:
        """(n, dim) features of n prepared images, of any length."""

    @abstractmethod
    def _text_features(self, texts: Sequence[str]) -> Float32:
        """(n, dim) features of n texts, of any length."""

    @abstractmethod
    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, uncut."""
