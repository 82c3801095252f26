"""A gallery in a folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmretrieve.directions import PDV
from mmretrieve.encoders.base import (
    OWN_IDENTITY,
    Encoder,
    EncoderIdentity,
    Progress,
    check_supports,
    dtype_of,
    identity_of,
)
from mmretrieve.encoders.loading import EncoderLike, as_encoder, load_encoder
from mmretrieve.errors import GalleryError, OptionError, checks_keywords
from mmretrieve.gallery import copying, sharing, transfer, vocabularies
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.captions import CaptionBlend, CaptionedSource, Captions, read_captions
from mmretrieve.gallery.encoding import THUMBNAIL_SIDE
from mmretrieve.gallery.index import index_manifest, manager
from mmretrieve.gallery.index.gpu import resolve_device
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.ingest import AddReport, SyncRule, add_source
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.removal import check_allow_removal
from mmretrieve.gallery.store import maintenance
from mmretrieve.gallery.store.patches import Float16Patches, PatchCache, check_writable, remove_unused
from mmretrieve.gallery.store.records import UNSEEN, Item, find_field
from mmretrieve.gallery.store.store import Store, is_gallery
from mmretrieve.gallery.view import check_ids
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.images import thumbnail
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import DEFAULT_RECALL, Colors, Decode, Dtype, Modality, check_count, check_path
from mmretrieve.sources.base import Source, Value
from mmretrieve.sources.detect import as_source, read_sources
from mmretrieve.sources.items import ItemList, NewItem
from mmretrieve.vectors import Float32

PATCH_BATCH_SIZE = 64  # images whose patches are stored at once
logger = logging.getLogger(__name__)


class Gallery(GalleryBase[LocalView]):
    """A gallery in a folder: the vectors of images, made by one encoder, with their ids and fields.

    `Gallery.create` makes one and `Gallery.open` opens one. The folder holds `gallery.sqlite` (items and fields), `vectors.f16` (unit
    rows in float16), `thumbnails.bin`, after `build_index` `index.faiss`, and `patches.sqlite` if there are patches. Each write is committed whole or not at all. One process
    writes at a time; any number read.

    Parameters
    ----------
    store : Store
        The files of the gallery.
    encoder : Encoder, optional
        The encoder that made the gallery. Only `add` and `sync` need it.
    device : Device, default=Device.AUTO
        Where the index is searched.

    Raises
    ------
    GalleryError
        If another encoder made the gallery, or `device` is "cuda" and there is no GPU.

    Examples
    --------
    Images are added by `add`, which encodes them, and vectors that were computed elsewhere by `add_vectors`:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import mmretrieve as mm
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name)
    >>> gallery = mm.Gallery.for_vectors(path / "shop.gallery", mm.EncoderIdentity("model", "weights", "none"), dim=2)
    >>> print(gallery.add_vectors(["a", "b"], [[1, 0], [3, 4]], fields=[{"price": 1}, {"price": 2}]))
    2 added, 0 skipped, 0 failed
    >>> query = mm.Composition(("image",), gallery.vectors(["b"]), (1.0,))
    >>> gallery.search(query, k=1, where="price < 3").ids
    ('b',)

    A large gallery gets an index; small ones are searched without one:

    >>> index = gallery.build_index("Flat")
    >>> index["rows"], index["recall"], gallery.index_report()["recall_at_10"]
    (2, 1.0, 1.0)

    Galleries of one encoder can be merged, exported and imported. What was copied before is skipped:

    >>> other = mm.Gallery.like(path / "other.gallery", gallery)
    >>> print(other.merge(gallery.path))
    2 added, 0 skipped, 0 failed
    >>> gallery.export(path / "export")
    2
    >>> print(other.import_vectors(path / "export"))
    0 added, 2 skipped, 0 failed

    Deleting an item hides it at once; `compact` frees its bytes:

    >>> gallery.delete(["a"])
    >>> gallery.ids, gallery.compact()
    (('b',), 1)
    >>> folder.cleanup()
    """

    def __init__(self, store: Store, encoder: EncoderLike | None = None, device: Device = Device.AUTO) -> None:
        self._store, self._encoder, self._device = store, None, resolve_device(device)
        self._view = LocalView(store, self._device)
        if encoder is not None:
            self.use_encoder(encoder)

    @classmethod
    @checks_keywords
    def create(
        cls,
        path: str | Path,
        *,
        encoder: EncoderLike,
        decode: Decode | str = Decode.EXACT,
        colors: Colors | str = Colors.SRGB,
        setting: PDV | None = None,
        caption_field: str | None = None,
        caption_weight: float | None = None,
    ) -> Gallery:
        """Creates an empty gallery.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist or is empty.
        encoder : str, Path or Encoder
            The encoder of all images that will be added: what `load_encoder` takes, such as a name.
        decode : {"exact", "fast"}, default="exact"
            How all images are decoded.
        colors : {"srgb", "raw"}, default="srgb"
            Whether embedded color profiles count, as they do in viewers; papers encode raw values.
        setting : PDV, optional
            The PDV parameters with which searches of this gallery start.
        caption_field : str, optional
            The field of the items that holds captions, if captions count. By default "caption" if there is a weight.
        caption_weight : float, optional
            From 0 to 1: the vector of an item is that of its image times 1 − weight plus that of its caption times weight, normalized.
            By default 0.15 if there is a field. Without either, and with the weight 0, captions do not count.

        Returns
        -------
        Gallery
            The empty gallery.

        Raises
        ------
        GalleryError
            If the folder is not empty or cannot be written.
        OptionError
            If `setting` is not a PDV, `decode` or `colors` is unknown, or `caption_weight` is out of range.

        Source
        ------
        Blended captions: ImageScope (arXiv 2503.10166), XR (arXiv 2601.14245)

        Examples
        --------
        >>> import tempfile
        >>> import mmretrieve as mm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gallery = mm.Gallery.create(f"{folder}/g", encoder="wardrobe", setting=mm.PDV(beta=0.75))
        ...     len(gallery), gallery.dim
        (0, 128)
        """
        encoder = load_encoder(encoder) if isinstance(encoder, str | Path) else as_encoder(encoder)
        captions = CaptionBlend.of(caption_field, caption_weight)
        manifest = _new_manifest(encoder, getattr(encoder, "dim", None), decode, setting, colors, dtype_of(encoder), captions)
        return cls(manifest.create_store(check_path("path", path)), encoder)

    @classmethod
    @checks_keywords
    def open(cls, path: str | Path, *, encoder: EncoderLike | None = None, device: Device | str = Device.AUTO) -> Gallery:
        """Opens the gallery in a folder. `open_gallery` also opens one on a Milvus server.

        Parameters
        ----------
        path : str or Path
            The folder.
        encoder : Encoder, or an object that `load_encoder` takes, optional
            The encoder that made the gallery. Only `add` and `sync` need it.
        device : {"auto", "cpu", "cuda"}, default="auto"
            Where the index is searched. "cuda" uses all GPUs; "auto" uses them if FAISS finds one and supports the index there.

        Returns
        -------
        Gallery
            The gallery as of the last commit.

        Raises
        ------
        GalleryError
            If there is no gallery in the folder, it is damaged, another encoder made it, or no GPU is found for "cuda".
        OptionError
            If `device` is unknown.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> len(mm.Gallery.open(mm.wardrobe.gallery_folder()))
        2000
        """
        return cls(Store(check_path("path", path)), encoder, Device(device))

    @classmethod
    @checks_keywords
    def from_vectors(
        cls,
        path: str | Path,
        ids: Sequence[str],
        vectors: ArrayLike,
        *,
        fields: Sequence[Mapping[str, Value]] | None = None,
        paths: Sequence[str | Path] | None = None,
        encoder: Encoder | EncoderIdentity = OWN_IDENTITY,
        progress: Progress | None = None,
    ) -> Gallery:
        """Makes a gallery of vectors that were computed elsewhere. `gallery.search(vector)` searches it without an encoder.

        It can be repeated: ids that exist with the same vector are skipped. A row that is zero or not finite is left out, with a warning.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist or is empty, or that contains such a gallery.
        ids : sequence of str
            n ids.
        vectors : array-like of shape (n, dim)
            Rows of any positive length; they are normalized.
        fields : sequence of mapping, optional
            Field name → text or number of each item.
        paths : sequence of str or Path, optional
            The image file of each item. By default its id.
        encoder : Encoder or EncoderIdentity, optional
            What made the vectors. By default an identity named "own", which no encoder has. With an encoder,
            `Retriever.open(path, encoder=encoder)` searches the gallery with images and prompts.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        Gallery
            The gallery.

        Raises
        ------
        OptionError
            If a list has another length than `vectors`, or an id is not text; nothing is created.
        VectorError
            If `vectors` is not of shape (n, dim), or all rows are zero or not finite; nothing is created.
        GalleryError
            If the folder contains something else or the gallery of another encoder, or a field has another type in it.

        Examples
        --------
        >>> import tempfile
        >>> import mmretrieve as mm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gallery = mm.Gallery.from_vectors(f"{folder}/g", ["a", "b"], [[1, 0], [0, 1]], fields=[{"colour": "red"}, {}])
        ...     gallery.search([1, 1], where={"colour": "red"}).ids, gallery.encoder_identity.model
        (('a',), 'own')
        """
        rows, _ = copying.to_checked_rows(vectors, "vectors")
        copying.check_lists(len(rows), ids, paths, fields)
        gallery = cls.for_vectors(path, encoder, rows.shape[1])
        gallery.check_encoder(encoder)
        report = gallery.add_vectors(ids, vectors, paths=paths, fields=fields, progress=progress)
        if report.failed:
            id_, reason = next(iter(report.failed.items()))
            warnings.warn(f"{len(report.failed)} of {len(ids)} vectors were left out, first: {id_!r}: {reason}", stacklevel=3)
        return gallery

    @classmethod
    @checks_keywords
    def for_vectors(
        cls,
        path: str | Path,
        encoder: Encoder | EncoderIdentity,
        dim: int,
        decode: Decode | str = Decode.EXACT,
        setting: PDV | None = None,
        colors: Colors | str = Colors.SRGB,
        dtype: Dtype | str | None = None,
        captions: CaptionBlend | None = None,
    ) -> Gallery:
        """Opens the gallery in a folder, or creates one for vectors that were computed elsewhere.

        Parameters
        ----------
        path : str or Path
            The folder.
        encoder : Encoder or EncoderIdentity
            What made the vectors: model, weights, preprocessing. Used only if the gallery is created.
        dim : int
            The dimension of the vectors. Used only if the gallery is created.
        decode : Decode, default=Decode.EXACT
            How the images were decoded.
        setting : PDV, optional
            The PDV parameters with which searches start.
        colors : Colors, default=Colors.SRGB
            How the colors of the images were read.
        dtype : Dtype, optional
            The dtype in which the image tower of the encoder computed. By default it is not known.
        captions : CaptionBlend, optional
            How captions count in the vectors. By default they do not.

        Returns
        -------
        Gallery
            The gallery.

        Raises
        ------
        GalleryError
            If the folder contains something else or cannot be written.
        OptionError
            If `dim` is not a whole number of at least 1, or `encoder` is neither an encoder nor an identity.
        """
        folder, manifest = check_path("path", path), _new_manifest(encoder, dim, decode, setting, colors, dtype, captions)
        return cls.open(folder) if is_gallery(folder) else cls(manifest.create_store(folder))

    @classmethod
    def like(cls, path: str | Path, other: GalleryBase[Any] | Manifest) -> Gallery:
        """Opens the gallery in a folder, or creates an empty one with the encoder, decoding and setting of another gallery.

        Parameters
        ----------
        path : str or Path
            The folder.
        other : Gallery, MilvusGallery or Manifest
            The gallery, or its manifest, whose encoder, dimension, decoding and setting a new gallery gets.

        Returns
        -------
        Gallery
            The gallery.

        Raises
        ------
        GalleryError
            If the folder contains something else or cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> import mmretrieve as mm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     copy = mm.Gallery.like(f"{folder}/g", mm.open_gallery(mm.wardrobe.gallery_folder()))
        ...     len(copy), copy.encoder_identity.model
        (0, 'wardrobe')
        """
        made = other if isinstance(other, Manifest) else other.manifest
        return cls.for_vectors(path, made.encoder, made.dim, made.decode, made.setting, made.colors, made.dtype, made.captions)

    def __reduce__(self) -> tuple[Callable[..., Gallery], tuple[object, ...]]:
        """A process that is spawned opens the gallery again, without the encoder."""
        return _open_again, (type(self), self.path, str(self._device))

    @property
    def path(self) -> Path:
        return self._store.folder

    @property
    def is_local(self) -> bool:
        return True

    def thumbnail(self, id_: str) -> bytes:
        record = self._store.ledger.records_by_id([id_]).get(id_)
        stored = None if record is None else self._store.thumbnail(record.stored)
        return stored or thumbnail(self.picture(id_), THUMBNAIL_SIDE)

    def patches(self, ids: Sequence[str]) -> list[Float32 | None]:
        items, cache = self.items(ids), self._patch_cache()
        patches = cache.get([item.hash for item in items])
        try:
            patches |= self._encode_patches(cache, [item for item in items if item.hash not in patches], is_ahead=False)
        except GalleryError as error:
            logger.info("patches are not stored: %s", error)
        return [patches[item.hash].astype(np.float32) if item.hash in patches else None for item in items]

    @checks_keywords
    def store_patches(self, *, progress: Progress | None = None) -> AddReport:
        """Stores the patches of all images, ahead of the searches that read them. It can be interrupted and repeated.

        These are not limited in number: an image takes p × dim × 2 bytes, at most 64 KB for 512 dimensions.

        Parameters
        ----------
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many images got patches and had them, and which items failed, because their image is gone or was never read.

        Raises
        ------
        GalleryError
            If the gallery was opened without an encoder, can only be read, or the disk is full. Batches before the error are stored.
        OptionError
            If the encoder does not encode patches.

        Examples
        --------
        >>> import shutil, tempfile
        >>> import mmretrieve as mm
        >>> image = next(mm.wardrobe.pictures_folder().glob("*.png"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shutil.copy(image, folder)
        ...     gallery = mm.Gallery.create(f"{folder}/g", encoder=mm.load_encoder("wardrobe"))
        ...     _ = gallery.add(folder)
        ...     print(gallery.store_patches())
        ...     print(gallery.store_patches())
        1 added, 0 skipped, 0 failed
        0 added, 1 skipped, 0 failed
        """
        cache = self._patch_cache()
        check_writable(self.path)
        report, ids = AddReport(), self.ids
        for start in range(0, len(ids), PATCH_BATCH_SIZE):
            items = self.items(ids[start : start + PATCH_BATCH_SIZE])
            existing = cache.get([item.hash for item in items])
            missing = [item for item in items if item.hash not in existing]
            added = self._encode_patches(cache, missing, is_ahead=True)
            failed = {item.id: "there is no image to encode" for item in missing if item.hash not in added}
            report += AddReport(len(missing) - len(failed), len(items) - len(missing), failed)
            if progress is not None:
                progress(len(items))
        return report

    def refresh(self) -> None:
        if not self._view.is_current:
            self._view = LocalView(self._store, self._device, self._view)

    @checks_keywords
    def add(
        self,
        source: str | Path | Source | Sequence[str | Path | Source] | Any,
        *,
        captions: Captions | None = None,
        update: bool = False,
        exclude: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> AddReport:
        """Adds all images of a source, or of several. `add_items` adds single images, from memory as well.

        It can be interrupted and repeated: items that exist with the same content are skipped, and their changed locations and fields are
        updated. Images that cannot be read are reported, and the others are added.

        Parameters
        ----------
        source : str, Path, data frame, Arrow table, Dataset, Source or list of these
            A folder, a tar file, a table, an image or whatever else `read_source` reads, tables in memory included; a `Source` object; the folder of another gallery,
            which is merged (see `merge`); or a list of sources. The id of an image that is named by itself is its file name.
        captions : str, Path or mapping of str to str, optional
            The captions of a gallery with a caption weight, by the ids of items: a .json, .jsonl or .csv file, or a mapping. An item of
            which the caption is new or another is encoded again; one that has none here keeps its caption.
        update : bool, default=False
            Whether items whose image has changed are replaced. Otherwise they are reported as failed.
        exclude : sequence of str, optional
            Patterns of what is left out of folders and archives, as in `read_source`.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added, updated and skipped, which failed, with the reason, and how many files of which kind were left out.

        Raises
        ------
        GalleryError
            If the source is empty or cannot be read, the gallery was opened without an encoder, another process is writing, or the
            disk is full.
        OptionError
            If `captions` is neither such a file nor a mapping of texts, or the source is another gallery.

        Examples
        --------
        >>> import shutil, tempfile
        >>> import mmretrieve as mm
        >>> image = next(mm.wardrobe.pictures_folder().glob("*.png"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shutil.copy(image, folder)
        ...     gallery = mm.Gallery.create(f"{folder}/g", encoder=mm.load_encoder("wardrobe"))
        ...     print(gallery.add(folder))
        1 added, 0 skipped, 0 failed

        Captions count in the vectors of a gallery that was created with a weight for them:

        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shutil.copy(image, folder)
        ...     gallery = mm.Gallery.create(f"{folder}/g", encoder=mm.load_encoder("wardrobe"), caption_weight=0.15)
        ...     print(gallery.add(folder, captions={image.name: "a photo of a coat"}))
        ...     gallery.item(image.name).fields["caption"]
        1 added, 0 skipped, 0 failed
        'a photo of a coat'
        """
        if isinstance(source, str | Path) and is_gallery(source):
            if captions is not None:
                raise OptionError(f"{source}: vectors of another gallery are copied as they are; leave out captions")
            return self.merge(source, progress=progress)
        sources: Sequence[Any] = source if isinstance(source, list | tuple) else [source]
        return self._add_sources(lambda: read_sources(sources, exclude), SyncRule(update), progress, captions)

    def to_arrow(self, *, vectors: bool = False) -> Any:
        """Returns the items as an Arrow table, from which pandas, polars and others make data frames.

        Parameters
        ----------
        vectors : bool, default=False
            Whether there is a column of vectors.

        Returns
        -------
        pyarrow.Table
            A row for each item, in insertion order: id, image, the fields, and vector. An image is a struct of bytes and path, as in datasets
            of Hugging Face: the path of its file, the bytes of a part of an archive, or null if it was added from memory.

        Raises
        ------
        MMRetrieveError
            pyarrow is not installed.
        ImageError
            An archive is gone.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> table = mm.open_gallery(mm.wardrobe.gallery_folder()).to_arrow(vectors=True)
        >>> table.num_rows, table.column_names[:2], table.schema.field("vector").type.list_size
        (2000, ['id', 'image'], 128)
        """
        from mmretrieve.gallery import tables

        return tables.arrow_table(self, vectors=vectors)

    def to_dataset(self, *, vectors: bool = False) -> Any:
        """Returns the items as a dataset of Hugging Face, with the columns of `to_arrow`.

        Parameters
        ----------
        vectors : bool, default=False
            Whether there is a column of vectors.

        Returns
        -------
        datasets.Dataset
            Its images are decoded when they are read.

        Raises
        ------
        MMRetrieveError
            datasets is not installed.
        ImageError
            An archive is gone.
        """
        from mmretrieve.gallery import tables

        return tables.dataset(self, vectors=vectors)

    @checks_keywords
    def add_items(self, items: Iterable[NewItem], *, update: bool = False, progress: Progress | None = None) -> AddReport:
        """Adds single images with their ids and fields. It can be repeated: the same image under the same id is skipped.

        An image from memory is stored as its vector and its thumbnail; there is no file that `picture` could open.

        Parameters
        ----------
        items : iterable of tuple
            An id, a picture, and optionally a mapping of fields: ``(id, picture)`` or ``(id, picture, fields)``. A picture is a path, a PIL
            image, an array of shape (height, width[, channels]) and dtype uint8, the bytes of an image file, or an open file. An iterator
            is read once, 256 items at a time.
        update : bool, default=False
            Whether an item whose image has changed is replaced. Otherwise it is reported as failed. Fields are always updated.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added, updated and skipped, and which failed, with the reason.

        Raises
        ------
        OptionError
            If an entry is not an id with a picture. Batches before it are committed.
        GalleryError
            If the gallery was opened without an encoder, another process is writing, or the disk is full.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> import mmretrieve as mm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gallery = mm.Gallery.create(f"{folder}/g", encoder=mm.load_encoder("wardrobe"))
        ...     print(gallery.add_items([("gray", np.full((64, 64, 3), 128, np.uint8), {"price": 20})]))
        ...     gallery.item("gray").fields, len(gallery.thumbnail("gray")) > 0
        1 added, 0 skipped, 0 failed
        ({'price': 20}, True)
        """
        return self._add_sources(lambda: [ItemList(items)], SyncRule(update), progress)

    @checks_keywords
    def sync(
        self,
        source: str | Path | Source,
        *,
        captions: Captions | None = None,
        exclude: Sequence[str] = (),
        allow_removal: float | None = None,
        progress: Progress | None = None,
    ) -> AddReport:
        """Makes the gallery match a source: adds new images, replaces changed ones, deletes missing ones.

        Only items that came from this source are deleted, and none if the source could not be read completely or seems to be away: if over
        10 % of its items are missing, or all items of a sub-folder that had two or more. They are then counted as `not_removed`. A file that
        was moved or renamed is not missing. What has been deleted can be added again without encoding it, until `compact`.

        Parameters
        ----------
        source : str, Path or Source
            As in `add`, but not a list.
        captions : str, Path or mapping of str to str, optional
            As in `add`.
        exclude : sequence of str, optional
            As in `add`.
        allow_removal : float, optional
            The share of the items of the source, from 0 to 1, that may be deleted, whole sub-folders included.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added, updated, removed and skipped, and which failed, with the reason.

        Raises
        ------
        GalleryError
            If the source is empty or cannot be read, the gallery was opened without an encoder, another process is writing, or the
            disk is full.
        OptionError
            If `allow_removal` is not a number from 0 to 1.
        """
        rule = SyncRule(update=True, remove=True, allow_removal=check_allow_removal(allow_removal))
        return self._add_sources(lambda: [as_source(source, exclude)], rule, progress, captions)

    @checks_keywords
    def add_vectors(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        *,
        paths: Sequence[str | Path] | None = None,
        fields: Sequence[Mapping[str, Value]] | None = None,
        progress: Progress | None = None,
    ) -> AddReport:
        """Adds vectors that the encoder of this gallery computed elsewhere.

        It can be repeated: ids that exist with the same vector are skipped.

        Parameters
        ----------
        ids : sequence of str
            n ids.
        vectors : array-like of shape (n, dim)
            Rows of any positive length; they are normalized. Unit rows in float16 are stored bit for bit.
        paths : sequence of str or Path, optional
            The image file of each item. By default its id.
        fields : sequence of mapping, optional
            Field name → text or number of each item. A field holds one type in the whole gallery.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added and skipped, and the ids that failed, because their row is zero or not finite.

        Raises
        ------
        OptionError
            If a list has another length than `vectors`, or an id is not text.
        VectorError
            If `vectors` has another shape, or all rows are zero or not finite.
        GalleryError
            If an id exists with another vector, a field has another type, another process is writing, or the disk is full. Batches before
            the error are committed.
        """
        with self._writing():
            return copying.add_vectors(self._store, ids, vectors, paths, fields, progress)

    def merge(self, other: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Copies the items of another gallery that are missing here. Nothing is encoded. It can be repeated.

        Parameters
        ----------
        other : str or Path
            The folder of the other gallery.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added and skipped.

        Raises
        ------
        GalleryError
            If the other gallery has another encoder, decoding or dimension, or an id is another image there. Nothing is changed.
        """
        with self._writing():
            return copying.merge(self._store, Store(check_path("other", other)), progress)

    def export(self, folder: str | Path, *, progress: Progress | None = None) -> int:
        """Writes all items in the layout of clip-retrieval: numpy files of vectors and parquet files of metadata.

        Parameters
        ----------
        folder : str or Path
            A folder that does not exist or is empty.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        int
            The number of items.

        Raises
        ------
        GalleryError
            If the folder is not empty or cannot be written, or a field has a name that the layout uses.
        """
        target = check_path("folder", folder)
        return self._with_view(lambda view: transfer.export(view, target, progress))

    def import_vectors(self, folder: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Adds vectors in the layout of clip-retrieval. It can be repeated.

        Parameters
        ----------
        folder : str or Path
            A folder with `img_emb/img_emb_0.npy` and `metadata/metadata_0.parquet`, and so on.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added and skipped.

        Raises
        ------
        GalleryError
            If files are missing, damaged or do not fit together, the vectors have another dimension, or an export was made by another
            encoder. The message names the file.
        """
        source = check_path("folder", folder)
        if (manifest := transfer.read_manifest(source)) is not None:
            self.check_encoder(manifest.encoder)
        with self._writing():
            return transfer.import_(self._store, source, progress)

    @classmethod
    @checks_keywords
    def from_hub(cls, name: str, path: str | Path, *, revision: str | None = None, progress: Progress | None = None) -> Gallery:
        """Downloads a gallery that `push_to_hub` uploaded. It can be repeated: items that exist are skipped.

        Only JSON, numpy arrays without pickles and Parquet are downloaded; no code is executed.

        Parameters
        ----------
        name : str
            The name of the dataset on the Hugging Face Hub, `OWNER/NAME`.
        path : str or Path
            A folder that does not exist or is empty, or that contains a gallery of the same encoder.
        revision : str, optional
            A branch, tag or commit. By default the main branch.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        Gallery
            The gallery, with the same ids, vectors and fields. It has neither images nor thumbnails.

        Raises
        ------
        MMRetrieveError
            If the Hub cannot be reached and the dataset is not in its cache, or there is no such dataset.
        GalleryError
            If the dataset is not a gallery or is damaged, or the folder contains something else.
        """
        folder, manifest = sharing.pull(name, revision)
        gallery = cls.like(check_path("path", path), manifest)
        gallery.import_vectors(folder, progress=progress)
        return gallery

    @checks_keywords
    def push_to_hub(self, name: str, *, private: bool | None = None, progress: Progress | None = None) -> str:
        """Uploads ids, vectors and fields as a dataset of the Hugging Face Hub, with a card. Images, thumbnails and paths stay here.

        The card names the encoder, the number of items and the fields; a card that the dataset has already is kept.

        Parameters
        ----------
        name : str
            The name of the dataset, `OWNER/NAME`. It is created, or its files are replaced in one commit.
        private : bool, optional
            Whether a new dataset is private. By default as the owner's settings on the Hub say.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        str
            The address of the dataset.

        Raises
        ------
        MMRetrieveError
            If the Hub cannot be reached, or refuses the name or the token.
        GalleryError
            If a field has a name that the layout of `export` uses.
        """
        return self._with_view(lambda view: sharing.push(view, name, private=private, progress=progress))

    def build_index(
        self,
        factory: str | None = None,
        *,
        recall: float = DEFAULT_RECALL,
        memory: int | str | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Builds the index that searches use and tunes it on composed queries. Later additions extend it.

        By default it is the fastest that reaches the recall on this machine. Flat, IVF and graph indexes that fit into the memory are
        tried on 20,000 of the items, and the best is built and measured. An index that may miss items has to be 1.5 times as fast as
        scoring all vectors. If all vectors fit, nothing is missed with a `recall` of 1 or fewer than 20,000 items. If no index that fits
        reaches the recall, the most accurate one is built.

        Parameters
        ----------
        factory : str, optional
            A FAISS factory string such as "IVF4096,SQ8", which is built without trying others.
        recall : float, default=0.99
            The target: the share of the ten best items that the index must find, above 0 and up to 1.
        memory : int or str, optional
            The largest size of the index, in bytes or as text such as "4GB" or "500 MiB". By default 80 % of the free memory. The stored
            vectors, which rescore what the index proposes, are read from the disk and do not count.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        dict of str to object
            The description of the index, as in `info`: `factory`, `reason`, `rows`, `recall`, search parameters (`nprobe`, `ef`,
            `overfetch`), `uncovered`, `advice`.

        Raises
        ------
        OptionError
            If the index cannot be built, no index fits into `memory`, or `recall` or `memory` is out of range.
        GalleryError
            If the gallery is empty, another process is building, or the disk is full.
        """
        self._with_view(
            lambda view: manager.build(self._store, view.version, view.float16_rows, factory, recall, memory, progress)
        )
        self.refresh()
        return index_manifest.describe_index(self._store, self._view.version)

    def index_report(self, *, recall: float = DEFAULT_RECALL) -> dict[str, Any]:
        """Tunes the index to a recall and measures it on other composed queries, which are made from the gallery itself.

        Parameters
        ----------
        recall : float, default=0.99
            The target recall@10, above 0 and up to 1.

        Returns
        -------
        dict of str to object
            `recall_at_10` and `recall_at_100` against exact search; `p50_ms` and `p99_ms` of a single query and `batch_ms` of one in a batch
            of 100; `bytes_per_vector`; `build_seconds`; `factory`, `rows`, `target` and the search parameters.

        Raises
        ------
        GalleryError
            If no index was built.
        OptionError
            If `recall` is out of range.
        """
        manifest, report = self._with_view(lambda view: manager.measure(self._store, view.version, view.float16_rows, recall))
        return {
            "factory": manifest.factory,
            "rows": manifest.rows,
            "target": recall,
            **manifest.params.given(),
            **asdict(report),
        }

    def choose_vocabulary(self, fields: Sequence[str]) -> Vocabulary:
        """Makes the vocabulary from chosen fields and stores it, in place of the one that is detected automatically.

        It is made from at most 20,000 items, evenly spaced.

        Parameters
        ----------
        fields : sequence of str
            Names of text fields; upper and lower case are equal.

        Returns
        -------
        Vocabulary
            The stored vocabulary.

        Raises
        ------
        OptionError
            If no item has such a field, or a field contains no words.
        """
        with self._writing():
            self.refresh()
            chosen = self._with_view(
                lambda view: vocabularies.make_vocabulary(view.sample_fields(), view.manifest.fields, fields)
            )
            if chosen != self._chosen_vocabulary:
                self._store.ledger.set_meta(**{vocabularies.KEY: chosen.to_dict()})
        assert chosen.vocabulary is not None  # named fields make one, or raise
        return chosen.vocabulary

    def choose_title_field(self, field: str) -> None:
        """Stores the field that names the items, in place of the one that is detected automatically.

        Parameters
        ----------
        field : str
            The name of a field; upper and lower case are equal.

        Raises
        ------
        OptionError
            If no item has such a field.
        """
        with self._writing():
            self.refresh()
            chosen = find_field(self.manifest.fields, field)
            if chosen != self.manifest.title_field:
                self._store.ledger.set_meta(title_field=chosen)

    def renew_vocabulary(self) -> Vocabulary | None:
        """Makes the stored vocabulary again from the same fields.

        Returns
        -------
        Vocabulary or None
            The stored vocabulary; None if no fields were chosen. If the fields contain no words any more, it stays as it is and a warning
            is logged.
        """
        chosen = self._chosen_vocabulary
        if chosen is None:
            return None
        try:
            return self.choose_vocabulary(chosen.fields)
        except OptionError as error:
            logger.warning("%s: the vocabulary stays as it is: %s", self.path, error)
            return chosen.vocabulary

    def delete(self, ids: Sequence[str]) -> None:
        ids = list(check_ids(ids))
        with self._writing():
            self._store.delete(ids)

    def compact(self, progress: Progress | None = None) -> int:
        """Frees the space of deleted and replaced items. Ids and their order stay.

        Parameters
        ----------
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        int
            The number of rows that were removed.

        Raises
        ------
        GalleryError
            If another process is writing or the disk is full; the gallery is unchanged.
        """
        with self._writing(), self._store.writing_index():  # no index is built meanwhile, from rows that are renumbered
            freed = maintenance.compact(self._store, progress)
            if freed:
                remove_unused(self.path, self._store.ledger)
            return freed

    def info(self) -> dict[str, Any]:
        return super().info() | {
            "index": index_manifest.describe_index(self._store, self._view.version) | {"device": str(self._device)},
            "deleted": len(self._view.version.dead),
            "bytes": self._store.sizes() | index_manifest.sizes(self._store),
        }

    def verify(self) -> list[str]:
        return [*maintenance.problems(self._store), *manager.problems(self._store)]

    def _patch_cache(self) -> PatchCache:
        return PatchCache(self.path, self._required_encoder("patches need"))

    def _encode_patches(self, cache: PatchCache, items: Sequence[Item], *, is_ahead: bool) -> dict[str, Float16Patches]:
        """Encodes and stores the patches of items. Returns those of the images that exist, by their content."""
        by_content = {item.hash: item.id for item in items if not item.hash.startswith(UNSEEN)}
        return cache.encode(list(by_content), iter(self.pictures(list(by_content.values()))), is_ahead=is_ahead)

    @property
    def _chosen_vocabulary(self) -> GalleryVocabulary | None:
        return Manifest.of(self._store).vocabulary

    def _add_sources(
        self,
        sources: Callable[[], Sequence[Source]],
        rule: SyncRule,
        progress: Progress | None,
        captions: Captions | None = None,
    ) -> AddReport:
        """Adds the sources that `sources` opens, with the captions of their images. Without an encoder, they are not opened."""
        encoder, blend = self._required_encoder("adding needs"), self.manifest.captions
        report = AddReport()
        check_supports(encoder, Modality.IMAGE, "adding images")
        if blend is not None:
            check_supports(encoder, Modality.TEXT, "a gallery with captions")
        texts = None if captions is None else read_captions(captions)
        if blend is None and texts is not None:
            report += AddReport(notes=("captions have no weight in this gallery, so they were left out",))
        for source in sources():
            captioned = source if blend is None or texts is None else CaptionedSource(source, texts, blend.field)
            with self._writing():
                report += add_source(self._store, encoder, captioned, rule, progress)
        return report

    def _required_encoder(self, purpose: str) -> Encoder:
        if self._encoder is None:
            raise GalleryError(
                f"{self.path}: {purpose} the encoder: Gallery.open(path, encoder=load_encoder({self.encoder_identity.model!r}))"
            )
        return self._encoder

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._store.writing():
            try:
                yield
            finally:
                self.refresh()
            manager.maintain(self._store, self._view.version, lambda: self._view.float16_rows)


def _open_again(cls: type[Gallery], path: Path, device: str) -> Gallery:
    return cls.open(path, device=device)


def _new_manifest(
    encoder: Encoder | EncoderIdentity,
    dim: object,
    decode: Decode | str,
    setting: PDV | None,
    colors: Colors | str,
    dtype: Dtype | str | None,
    captions: CaptionBlend | None,
) -> Manifest:
    """The manifest of a gallery that is created. Raises OptionError for a wrong value."""
    if setting is not None and not isinstance(setting, PDV):
        raise OptionError(f"setting must be a PDV, got {setting!r}")
    made_in = None if dtype is None else Dtype(dtype)
    return Manifest(
        identity_of(encoder),
        check_count("dim", dim),
        Decode(decode),
        setting,
        colors=Colors(colors),
        dtype=made_in,
        captions=captions,
    )
