"""The gallery: keeps vectors of pictures and scores every term of a query against them."""

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
from mmretrieve.gallery.embeddings import add_vectors
from mmretrieve.gallery.index import index_manifest, manager
from mmretrieve.gallery.index.gpu import resolved
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.ingest import THUMBNAIL_SIDE, AddReport, add_source
from mmretrieve.gallery.local_view import LocalView, read_manifest
from mmretrieve.gallery.store import inspection
from mmretrieve.gallery.store.compaction import compact
from mmretrieve.gallery.store.store import Store, is_gallery
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.images import thumbnail
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import DEFAULT_RECALL, Decode
from mmretrieve.sources import read_source
from mmretrieve.sources.base import Source, Value

logger = logging.getLogger(__name__)


class Gallery(GalleryBase[LocalView]):
    """A folder of vectors made by one encoder. Open it with `open`, make it with `create`."""

    def __init__(self, store: Store, encoder: Encoder | None = None, device: Device = Device.AUTO) -> None:
        self._store, self._encoder, self._device = store, encoder, resolved(device)
        self._view = LocalView(store, self._device)
        if encoder is not None:
            self.check_encoder(encoder)

    @classmethod
    def create(
        cls, path: str | Path, *, encoder: Encoder, decode: Decode | str = Decode.EXACT, setting: PDV | None = None
    ) -> Gallery:
        """An empty gallery at `path`, which must not exist or be an empty folder.

        decode: "exact" or "fast", for every picture that will ever be added. setting: the PDV weights that searches of
        this gallery start from. Raises GalleryError where the place is taken.
        """
        if setting is not None and not isinstance(setting, PDV):
            raise OptionError(f"setting must be a PDV, got {setting!r}")
        more = {} if setting is None else {"setting": asdict(setting)}
        store = Store.create(Path(path), encoder.identity, encoder.dim, Decode(decode), **more)
        return cls(store, encoder)

    @classmethod
    def open(cls, path: str | Path, *, encoder: Encoder | None = None, device: Device | str = Device.AUTO) -> Gallery:
        """The gallery in the folder `path` as of its last commit (see `open_gallery` for one on a Milvus server).

        An encoder is needed only to add, and must be the one that made it.

        device: what searches, "cpu", "cuda" (all GPUs; GalleryError without one), or "auto", which takes a GPU where FAISS
        sees one and has a form of the index for it.
        """
        return cls(Store(Path(path)), encoder, Device(device))

    @classmethod
    def for_vectors(
        cls, path: str | Path, encoder: EncoderIdentity, dim: int, decode: Decode = Decode.EXACT, setting: PDV | None = None
    ) -> Gallery:
        """The gallery at `path`; where there is none, an empty one for vectors of `dim` that this encoder has made elsewhere."""
        if is_gallery(path):
            return cls.open(path)
        more = {} if setting is None else {"setting": asdict(setting)}
        return cls(Store.create(Path(path), encoder, dim, decode, **more))

    @classmethod
    def like(cls, path: str | Path, other: GalleryBase[Any]) -> Gallery:
        """The gallery at `path`; where there is none, an empty one for the vectors of the encoder that made `other`."""
        return cls.for_vectors(path, other.encoder_identity, other.dim, other.decode, other.setting)

    @property
    def path(self) -> Path:
        return self._store.folder

    @property
    def is_local(self) -> bool:
        return True

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG picture of one item, made when it was added. ImageError where it is lost and the file gone too."""
        record = self._store.ledger.live([id_]).get(id_)
        stored = None if record is None else self._store.thumbnail(record.stored)
        return stored or thumbnail(self.picture(id_), THUMBNAIL_SIDE)

    def refresh(self) -> None:
        """Sees what others have written since this object was made, or since it last wrote; keeps what it knows where nothing was."""
        if not self._view.is_current:
            self._view = LocalView(self._store, self._device, self._view)

    def add(self, source: str | Path | Source, *, update: bool = False, progress: Progress | None = None) -> AddReport:
        """Adds every picture of a source: whatever `read_source` reads, an object that is one, or another gallery (see `merge`).

        Can be interrupted and run again.
        An item whose id and content are there already is skipped, and what the source says of it is noted. One whose content
        has changed is reported, or with `update` replaced; unreadable pictures are reported, the others go on.
        Raises GalleryError for an empty source, a full disk, or when another process is writing.
        """
        if isinstance(source, str | Path) and is_gallery(source):
            return self.merge(source, progress=progress)
        return self._add_source(source, update=update, remove=False, progress=progress)

    def sync(self, source: str | Path | Source, *, progress: Progress | None = None) -> AddReport:
        """`add` with `update`; and what came from this source before, and is not in it any more, is deleted.

        Nothing is deleted where the source could not be read whole.
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
        """Adds (n, dim) vectors of any length that this gallery's encoder has made elsewhere, under n ids; known ones are skipped.

        paths: where their pictures are. fields: what is known of each. OptionError for lists of other lengths, GalleryError
        for an id that has another vector here.
        """
        with self._writing():
            return add_vectors(self._store, ids, vectors, paths, fields, progress)

    def merge(self, other: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Copies the items of another gallery that are not here yet, without encoding anything. Can be repeated.

        GalleryError, with nothing changed, where that was made by another encoder, or an id names another picture there.
        """
        with self._writing():
            return copying.merge(self._store, Store(Path(other)), progress)

    def export(self, folder: str | Path, *, progress: Progress | None = None) -> int:
        """Writes all vectors and what is known of them in the layout of clip-retrieval, into an empty folder; gives back how many."""
        return self._with_view(lambda view: transfer.export(view, Path(folder), progress))

    def import_vectors(self, folder: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Adds vectors in the layout of clip-retrieval, which must be of this gallery's encoder. Can be repeated.

        GalleryError, naming the file, for what does not fit together, other dimensions, or another encoder's export.
        """
        if (manifest := transfer.read_manifest(Path(folder))) is not None:
            self.check_made_by(manifest.encoder)
        with self._writing():
            return transfer.import_(self._store, Path(folder), progress)

    def build_index(
        self, factory: str | None = None, *, recall: float = DEFAULT_RECALL, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Builds the index that serves searches and tunes it to that recall@10 of composed queries; gives what `info` says of it.

        factory: a FAISS factory string such as "IVF4096,SQ8"; by default chosen by size and memory. Adding extends it.
        OptionError for a factory that cannot be built; GalleryError where another process builds.
        """
        self._with_view(lambda view: manager.build(self._store, view.version, view.float16_rows, factory, recall, progress))
        self.refresh()
        return index_manifest.state(self._store, self._view.version)

    def index_report(self, *, recall: float = DEFAULT_RECALL) -> dict[str, Any]:
        """Tunes the index to that recall@10 and measures it with composed queries made from the gallery itself.

        recall@10 and @100 against exact search; milliseconds of one query alone (p50, p99) and of one among a hundred; bytes
        a vector; seconds of building. GalleryError where nothing was built yet.
        """
        made, found = self._with_view(lambda view: manager.measured(self._store, view.version, view.float16_rows, recall))
        effort = {name: value for name, value in made.effort.items() if value is not None}
        return {"factory": made.factory, "rows": made.rows, "target": recall, **effort, **asdict(found)}

    def choose_vocabulary(self, fields: Sequence[str]) -> Vocabulary:
        """Stores the vocabulary made of exactly these fields, instead of the one that is found automatically.

        It is made of at most 20,000 items spread evenly; `renew_vocabulary` makes it again. OptionError, naming the fields
        that there are, for a name that no item has, and for a field without words.
        """
        with self._writing():
            self.refresh()
            chosen = self._with_view(lambda view: vocabularies.make_vocabulary(view, self._store.ledger.kinds(), fields))
            if chosen != self._chosen_vocabulary:
                self._store.ledger.set_meta(**{vocabularies.KEY: chosen.to_dict()})
        assert chosen.vocabulary is not None  # named fields make one, or raise
        return chosen.vocabulary

    def renew_vocabulary(self) -> Vocabulary | None:
        """Makes the stored vocabulary again from the same fields, as the items are now. None where no fields were chosen.

        Where they have no words any more, a warning says so and the vocabulary stays as it is.
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
        """Removes items, all or none. GalleryError for an unknown id. Their bytes go when the gallery is compacted."""
        if isinstance(ids, str):
            raise OptionError(f"expected a list of ids, got one string {ids!r}")
        with self._writing():
            self._store.delete(ids)

    def compact(self, progress: Progress | None = None) -> int:
        """Frees the room of deleted and replaced items, and says how many there were. Ids and order stay."""
        with self._writing():
            gone = compact(self._store, progress)
            view = LocalView(self._store)
            manager.rebuild(self._store, view.version, view.float16_rows)
            return gone

    def info(self) -> dict[str, Any]:
        """What the gallery is: items, dimensions, encoder, decoding, setting, fields, vocabulary, bytes of each of its files."""
        meta = self._store.ledger.meta()
        return {
            "path": str(self.path),
            "items": len(self),
            "deleted": len(self._view.version.dead),
            "dim": self._store.dim,
            "encoder": asdict(self.encoder_identity),
            "decode": str(self.decode),
            "setting": asdict(self.setting) if self.setting else None,
            "fields": meta["fields"],
            "vocabulary": str(self._gallery_vocabulary),
            "index": index_manifest.state(self._store, self._view.version) | {"device": str(self._device)},
            "bytes": self._store.sizes() | manager.sizes(self._store),
        }

    def verify(self) -> list[str]:
        """Reads everything back; one line for each thing that is wrong, none when all is well."""
        return [*inspection.problems(self._store), *manager.problems(self._store)]

    @property
    def _chosen_vocabulary(self) -> GalleryVocabulary | None:
        return read_manifest(self._store).vocabulary

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
