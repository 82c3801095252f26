"""An encoder that is loaded when it first encodes. Searches with stored vectors need neither its weights nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmretrieve.concurrency import once
from mmretrieve.encoders.base import EncoderIdentity, NamedEncoder, Progress, supports
from mmretrieve.encoders.checkpoints import encoder_folder
from mmretrieve.forks import fork_safe_lock
from mmretrieve.images import ImageLike
from mmretrieve.options import Modality
from mmretrieve.vectors import Float32

if TYPE_CHECKING:
    import torch


class DeferredEncoder:
    """An encoder of `load_encoder`, of which identity, dimension and folder are known before it is loaded.

    `load` returns the encoder. It is called once, when anything else is first used.
    """

    def __init__(self, identity: EncoderIdentity, dim: int, load: Callable[[], NamedEncoder]) -> None:
        self.identity, self.dim, self.folder = identity, dim, encoder_folder(identity.model)
        self._load, self.once_lock = load, fork_safe_lock()

    @once
    def loaded(self) -> NamedEncoder:
        """The encoder itself."""
        return self._load()

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the image tower; None until it is loaded, and compared with that of a gallery."""
        return self.loaded.dtype if "loaded" in self.__dict__ else None

    def supports(self, modality: str) -> bool:
        return supports(self.loaded, Modality(modality))

    def encode_images(self, images: Iterable[ImageLike], progress: Progress | None = None) -> Float32:
        return self.loaded.encode_images(images, progress)

    def feature_batches(self, batches: Iterable[Iterable[ImageLike]]) -> Iterator[Float32]:
        return self.loaded.feature_batches(batches)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return self.loaded.encode_texts(texts)

    @property
    def context_length(self) -> int:
        return self.loaded.context_length

    def fits_context(self, texts: Sequence[str]) -> list[bool]:
        return self.loaded.fits_context(texts)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of copies, which are made without `__init__`
            raise AttributeError(name)
        return getattr(self.loaded, name)
