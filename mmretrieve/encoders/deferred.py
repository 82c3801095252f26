"""An encoder that is loaded when it first encodes. Searches with stored vectors need neither its weights nor torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmretrieve.concurrency import once
from mmretrieve.encoders.base import BatchEncoder, ContextLimit, Encoder, EncoderIdentity, Progress, supports
from mmretrieve.encoders.checkpoints import encoder_folder
from mmretrieve.forks import fork_safe_lock
from mmretrieve.images import ImageLike
from mmretrieve.options import Modality
from mmretrieve.vectors import Float32

if TYPE_CHECKING:
    import torch


class DeferredEncoder:
    """An encoder of `load_encoder`, of which identity, dimension and folder are known before it is loaded.

    `load` returns the encoder. It is called once, when anything else is first used. An encoder that is neither a `BatchEncoder` nor a
    `ContextLimit` gets one call for each batch, and every text fits.
    """

    def __init__(self, identity: EncoderIdentity, dim: int, load: Callable[[], Encoder]) -> None:
        self.identity, self.dim, self.folder = identity, dim, encoder_folder(identity.model)
        self._load, self.once_lock = load, fork_safe_lock()

    @once
    def loaded(self) -> Encoder:
        """The encoder itself."""
        return self._load()

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the image tower; None until it is loaded, and compared with that of a gallery."""
        return getattr(self.loaded, "dtype", None) if "loaded" in self.__dict__ else None

    def supports(self, modality: str) -> bool:
        return supports(self.loaded, Modality(modality))

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        return self.loaded.encode_images(images, progress)

    def feature_batches(self, batches: Iterable[Iterable[ImageLike]]) -> Iterator[Float32]:
        encoder = self.loaded
        return encoder.feature_batches(batches) if isinstance(encoder, BatchEncoder) else map(encoder.encode_images, batches)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return self.loaded.encode_texts(texts)

    @property
    def context_length(self) -> int:
        return self.loaded.context_length if isinstance(self.loaded, ContextLimit) else sys.maxsize

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        return self.loaded.fits_context(texts) if isinstance(self.loaded, ContextLimit) else [True] * len(texts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of copies, which are made without `__init__`
            raise AttributeError(name)
        return getattr(self.loaded, name)
