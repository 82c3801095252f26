"""Opens galleries by their address, and loads the encoder that made one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmretrieve.encoders.base import NamedEncoder
from mmretrieve.encoders.deferred import DeferredEncoder
from mmretrieve.encoders.loading import EncoderLike, load_encoder
from mmretrieve.errors import GalleryError, MMRetrieveError, OptionError, checks_keywords
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.gallery.index.plan import Device as IndexDevice
from mmretrieve.milvus.address import is_address
from mmretrieve.milvus.gallery import MilvusGallery
from mmretrieve.options import AUTO, Dtype

AnyGallery = GalleryBase[Any]
"""A gallery in a folder (`Gallery`) or on a server (`MilvusGallery`)."""


@checks_keywords
def open_gallery(
    address: str | Path, *, encoder: EncoderLike | None = None, device: IndexDevice | str = IndexDevice.AUTO
) -> AnyGallery:
    """Opens the gallery in a folder or on a Milvus server.

    Parameters
    ----------
    address : str or Path
        A folder, or ``"milvus://[USER:PASSWORD@]HOST[:PORT]/[DATABASE/]COLLECTION"`` (``milvuss://`` over TLS).
    encoder : Encoder, or an object that `load_encoder` takes, optional
        The encoder that made the gallery. Only adding needs it.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where the index of a folder is searched (see `Gallery.open`). A Milvus server ignores it.

    Returns
    -------
    Gallery or MilvusGallery
        The gallery.

    Raises
    ------
    GalleryError
        If there is no gallery, it is damaged, another encoder made it, or the server does not answer.
    OptionError
        If the address or `device` is invalid.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> len(mm.open_gallery(mm.wardrobe.gallery_folder()))
    2000
    """
    if is_address(address):
        return MilvusGallery.open(str(address), encoder=encoder)
    return Gallery.open(address, encoder=encoder, device=device)


def index_device(device: str) -> IndexDevice:
    """The device of the index for a device of torch: FAISS uses all GPUs of the machine or none, and does not support MPS."""
    kind = str(device).partition(":")[0]
    return IndexDevice(kind) if kind in (IndexDevice.AUTO, IndexDevice.CUDA) else IndexDevice.CPU


def load_gallery_encoder(gallery: AnyGallery, device: str, dtype: str, name: str | Path | None = None) -> NamedEncoder:
    """The encoder of a gallery, by the name that the gallery stores or by another one, in the dtype of the gallery.

    Raises GalleryError if the stored name cannot be loaded, and what `load_encoder` raises for another one.
    """
    from mmretrieve.encoders.openclip import preprocessing_of  # torch only where an encoder is not given

    dtype = _dtype(gallery, device, dtype)
    identity = gallery.encoder_identity
    if name is not None:
        return load_encoder(name, device=device, dtype=dtype, preprocessing=preprocessing_of(identity))
    try:
        return load_encoder(identity.model, device=device, dtype=dtype, preprocessing=preprocessing_of(identity))
    except OptionError as error:  # the name is not one of `load_encoder`
        raise GalleryError(
            f"{gallery.path}: this gallery was made by {identity.model!r}, which load_encoder does not know; pass encoder=, "
            "its name, its folder (--encoder in the shell) or the object that made it, or search with vectors: open_gallery(path).search(vector)"
        ) from error
    except MMRetrieveError as error:
        raise GalleryError(
            f"{gallery.path}: the encoder that made this gallery cannot be loaded; name its folder with --encoder, or pass encoder=: {error}"
        ) from error


def defer_gallery_encoder(gallery: AnyGallery, device: str, dtype: str) -> DeferredEncoder:
    """The encoder of a gallery, not loaded yet. A device or a dtype that is named is checked at once, with torch."""
    if (device, dtype) != (AUTO, AUTO):
        _dtype(gallery, device, dtype)

    def load() -> NamedEncoder:
        encoder = load_gallery_encoder(gallery, device, dtype)
        gallery.check_encoder(encoder)
        return encoder

    return DeferredEncoder(gallery.encoder_identity, gallery.dim, load)


def _dtype(gallery: AnyGallery, device: str, dtype: str) -> Dtype:
    """The dtype for a gallery. Raises OptionError or GalleryError if it, or the device, is not available."""
    from mmretrieve.encoders import dtypes, openclip

    return dtypes.dtype_of_gallery(dtype, openclip.resolve_device(device), gallery.dtype, gallery.path)
