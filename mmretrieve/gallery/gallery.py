"""A gallery in a folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder, EncoderIdentity, Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery import copying, transfer, vocabularies
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.gallery.index import index_manifest, manager
from mmretrieve.gallery.index.gpu import resolve_device
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.ingest import THUMBNAIL_SIDE, AddReport, add_source
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store import maintenance
from mmretrieve.gallery.store.records import find_field
from mmretrieve.gallery.store.store import Store, is_gallery
from mmretrieve.gallery.view import check_ids
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.images import thumbnail
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import DEFAULT_RECALL, Decode
from mmretrieve.sources import read_source
from mmretrieve.sources.base import Source, Value

logger = logging.getLogger(__name__)


class Gallery(GalleryBase[LocalView]):
    """A gallery in a folder: the vectors of images, made by one encoder, with their ids and fields.

    `Gallery.create` makes one and `Gallery.open` opens one. The folder holds `gallery.sqlite` (items and fields), `vectors.f16` (unit
    rows in float16), `thumbnails.bin` and, after `build_index`, `index.faiss`. Each write is committed whole or not at all. One process
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

    def __init__(self, store: Store, encoder: Encoder | None = None, device: Device = Device.AUTO) -> None:
        self._store, self._encoder, self._device = store, encoder, resolve_device(device)
        self._view = LocalView(store, self._device)
        if encoder is not None:
            self.check_encoder(encoder)

    @classmethod
    def create(
        cls, path: str | Path, *, encoder: Encoder, decode: Decode | str = Decode.EXACT, setting: PDV | None = None
    ) -> Gallery:
        """Creates an empty gallery.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist or is empty.
        encoder : Encoder
            The encoder of all images that will be added.
        decode : {"exact", "fast"}, default="exact"
            How all images are decoded.
        setting : PDV, optional
            The PDV parameters with which searches of this gallery start.

        Returns
        -------
        Gallery
            The empty gallery.

        Raises
        ------
        GalleryError
            If the folder is not empty or cannot be written.
        OptionError
            If `setting` is not a PDV or `decode` is unknown.

        Examples
        --------
        >>> import tempfile
        >>> import mmretrieve as mm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gallery = mm.Gallery.create(f"{folder}/g", encoder=mm.load_encoder("wardrobe"), setting=mm.PDV(beta=0.75))
        ...     len(gallery), gallery.dim
        (0, 128)
        """
        if setting is not None and not isinstance(setting, PDV):
            raise OptionError(f"setting must be a PDV, got {setting!r}")
        return cls(Manifest(encoder.identity, encoder.dim, Decode(decode), setting).create_store(Path(path)), encoder)

    @classmethod
    def open(cls, path: str | Path, *, encoder: Encoder | None = None, device: Device | str = Device.AUTO) -> Gallery:
        """Opens the gallery in a folder. `open_gallery` also opens one on a Milvus server.

        Parameters
        ----------
        path : str or Path
            The folder.
        encoder : Encoder, optional
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
        return cls(Store(Path(path)), encoder, Device(device))

    @classmethod
    def for_vectors(
        cls, path: str | Path, encoder: EncoderIdentity, dim: int, decode: Decode = Decode.EXACT, setting: PDV | None = None
    ) -> Gallery:
        """Opens the gallery in a folder, or creates one for vectors that were computed elsewhere.

        Parameters
        ----------
        path : str or Path
            The folder.
        encoder : EncoderIdentity
            What made the vectors: model, weights, preprocessing. Used only if the gallery is created.
        dim : int
            The dimension of the vectors. Used only if the gallery is created.
        decode : Decode, default=Decode.EXACT
            How the images were decoded.
        setting : PDV, optional
            The PDV parameters with which searches start.

        Returns
        -------
        Gallery
            The gallery.

        Raises
        ------
        GalleryError
            If the folder contains something else or cannot be written.
        """
        if is_gallery(path):
            return cls.open(path)
        return cls(Manifest(encoder, dim, decode, setting).create_store(Path(path)))

    @classmethod
    def like(cls, path: str | Path, other: GalleryBase[Any]) -> Gallery:
        """Opens the gallery in a folder, or creates an empty one with the encoder, decoding and setting of another gallery.

        Parameters
        ----------
        path : str or Path
            The folder.
        other : Gallery or MilvusGallery
            The gallery whose encoder, dimension, decoding and setting a new gallery gets.

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
        return cls.for_vectors(path, other.encoder_identity, other.dim, other.decode, other.setting)

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

    def refresh(self) -> None:
        if not self._view.is_current:
            self._view = LocalView(self._store, self._device, self._view)

    def add(self, source: str | Path | Source, *, update: bool = False, progress: Progress | None = None) -> AddReport:
        """Adds all images of a source.

        It can be interrupted and repeated: items that exist with the same content are skipped, and their changed locations and fields are
        updated. Images that cannot be read are reported, and the others are added.

        Parameters
        ----------
        source : str, Path or Source
            A folder, a tar file, a table or whatever else `read_source` reads; a `Source` object; or the folder of another gallery, which
            is merged (see `merge`).
        update : bool, default=False
            Whether items whose image has changed are replaced. Otherwise they are reported as failed.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added, updated and skipped, and which failed, with the reason.

        Raises
        ------
        GalleryError
            If the source is empty or cannot be read, the gallery was opened without an encoder, another process is writing, or the
            disk is full.

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
        """
        if isinstance(source, str | Path) and is_gallery(source):
            return self.merge(source, progress=progress)
        return self._add_source(source, update=update, remove=False, progress=progress)

    def sync(self, source: str | Path | Source, *, progress: Progress | None = None) -> AddReport:
        """Makes the gallery match a source: adds new images, replaces changed ones, deletes missing ones.

        Only items that came from this source are deleted, and none if the source could not be read completely.

        Parameters
        ----------
        source : str, Path or Source
            As in `add`.
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
        """
        return self._add_source(source, update=True, remove=True, progress=progress)

    def add_vectors(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        *,
        paths: Sequence[str] | None = None,
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
        paths : sequence of str, optional
            The image file of each item. By default its id.
        fields : sequence of mapping, optional
            Field name → text or number of each item. A field holds one type in the whole gallery.
        progress : callable, optional
            Called with the number of items that were processed since the last call.

        Returns
        -------
        AddReport
            How many items were added and skipped.

        Raises
        ------
        OptionError
            If a list has another length than `vectors`, or an id is not text.
        VectorError
            If `vectors` has another shape, or a row is zero or not finite.
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
            return copying.merge(self._store, Store(Path(other)), progress)

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
        return self._with_view(lambda view: transfer.export(view, Path(folder), progress))

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
        if (manifest := transfer.read_manifest(Path(folder))) is not None:
            self.check_encoder(manifest.encoder)
        with self._writing():
            return transfer.import_(self._store, Path(folder), progress)

    def build_index(
        self, factory: str | None = None, *, recall: float = DEFAULT_RECALL, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Builds the index that searches use and tunes it on composed queries. Later additions extend it.

        Parameters
        ----------
        factory : str, optional
            A FAISS factory string such as "IVF4096,SQ8". By default chosen by size and memory.
        recall : float, default=0.99
            The target: the share of the ten best items that the index must find, above 0 and up to 1.
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
            If the index cannot be built, or `recall` is out of range.
        GalleryError
            If the gallery is empty, another process is building, or the disk is full.
        """
        self._with_view(lambda view: manager.build(self._store, view.version, view.float16_rows, factory, recall, progress))
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
        with self._writing():
            removed = maintenance.compact(self._store, progress)
            view = LocalView(self._store)
            manager.rebuild(self._store, view.version, view.float16_rows)
            return removed

    def info(self) -> dict[str, Any]:
        return super().info() | {
            "index": index_manifest.describe_index(self._store, self._view.version) | {"device": str(self._device)},
            "deleted": len(self._view.version.dead),
            "bytes": self._store.sizes() | manager.sizes(self._store),
        }

    def verify(self) -> list[str]:
        return [*maintenance.problems(self._store), *manager.problems(self._store)]

    @property
    def _chosen_vocabulary(self) -> GalleryVocabulary | None:
        return Manifest.of(self._store).vocabulary

    def _add_source(self, source: str | Path | Source, *, update: bool, remove: bool, progress: Progress | None) -> AddReport:
        encoder = self._encoder
        if encoder is None:
            raise GalleryError(
                f"{self.path}: adding needs the encoder: Gallery.open(path, encoder=load_encoder({self.encoder_identity.model!r}))"
            )
        images = read_source(source) if isinstance(source, str | Path) else source
        with self._writing():
            return add_source(self._store, encoder, images, update=update, remove=remove, progress=progress)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._store.writing():
            try:
                yield
            finally:
                self.refresh()
            manager.grow(self._store, self._view.version, lambda: self._view.float16_rows)
