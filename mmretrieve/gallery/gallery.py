"""The gallery: keeps vectors of pictures and scores every term of a query against them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import ArrayLike
from PIL import Image

from mmretrieve.balance import Spread
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder, EncoderIdentity, Progress
from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.gallery import duplicates, searching
from mmretrieve.gallery.filling import transfer
from mmretrieve.gallery.filling.adding import add_source
from mmretrieve.gallery.filling.embedded import add_vectors
from mmretrieve.gallery.filling.intake import THUMBNAIL_SIDE, AddReport
from mmretrieve.gallery.filling.merging import add_gallery
from mmretrieve.gallery.held import Cut
from mmretrieve.gallery.index import deriving, stamp
from mmretrieve.gallery.index.gpu import resolved
from mmretrieve.gallery.index.plan import Device
from mmretrieve.gallery.snapshot import Snapshot
from mmretrieve.gallery.sources import read_source
from mmretrieve.gallery.sources.base import Source, Value
from mmretrieve.gallery.store import inspection
from mmretrieve.gallery.store.compaction import compact
from mmretrieve.gallery.store.records import UNSEEN, Item, MovedError
from mmretrieve.gallery.store.store import LEDGER, Store
from mmretrieve.images import DEFAULT_IMAGE_SIZE, content_hash, open_image, thumbnail
from mmretrieve.options import DEFAULT_K, DEFAULT_RECALL, Decode
from mmretrieve.ranking import Ranking
from mmretrieve.vectors import Float32

T = TypeVar("T")


class Gallery:
    """A folder of vectors made by one encoder. Open it with `open`, make it with `create`."""

    def __init__(self, store: Store, encoder: Encoder | None = None, device: Device = Device.AUTO) -> None:
        self._store, self._encoder, self._device = store, encoder, resolved(device)
        if encoder is not None:
            self.check_encoder(encoder)
        self._now = Snapshot(store, self._device)

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
        """The gallery at `path` as of its last commit. An encoder is needed only to add, and must be the one that made it.

        device: what searches, "cpu", "cuda" (all GPUs; GalleryError without one), or "auto", which takes a GPU where FAISS
        sees one and has a form of the index for it.
        """
        return cls(Store(Path(path)), encoder, Device(device))

    @classmethod
    def for_vectors(
        cls, path: str | Path, encoder: EncoderIdentity, dim: int, decode: Decode = Decode.EXACT, setting: PDV | None = None
    ) -> Gallery:
        """The gallery at `path`; where there is none, an empty one for vectors of `dim` that this encoder has made elsewhere."""
        if (Path(path) / LEDGER).exists():
            return cls.open(path)
        more = {} if setting is None else {"setting": asdict(setting)}
        return cls(Store.create(Path(path), encoder, dim, decode, **more))

    def __len__(self) -> int:
        return len(self._now)

    @property
    def path(self) -> Path:
        return self._store.folder

    @property
    def ids(self) -> tuple[str, ...]:
        """Every item, in insertion order."""
        return self._at_one_moment(lambda now: now.ids)

    @property
    def encoder_identity(self) -> EncoderIdentity:
        return self._store.identity

    @property
    def dim(self) -> int:
        return self._store.dim

    @property
    def decode(self) -> Decode:
        return self._store.decode

    @property
    def setting(self) -> PDV | None:
        """The PDV weights that searches of this gallery start from, where it names any."""
        stored = self._store.ledger.meta().get("setting")
        return None if stored is None else PDV(**stored)

    def check_encoder(self, encoder: Encoder) -> None:
        """GalleryError, naming both, unless `encoder` is the one that made this gallery."""
        self.check_made_by(encoder.identity)

    def check_made_by(self, identity: EncoderIdentity) -> None:
        """GalleryError, naming both, unless that encoder made this gallery."""
        if identity != self.encoder_identity:
            raise GalleryError(f"{self.path}: this gallery was made by {self.encoder_identity}, not by {identity}")

    def vectors(self, ids: Sequence[str] | None = None) -> Float32:
        """(n, dim) unit float32 of those ids, or of all, in insertion order. GalleryError for an unknown id."""
        return self._at_one_moment(lambda now: now.vectors_of(now.rows if ids is None else now.rows_of(ids)))

    def item(self, id_: str) -> Item:
        """Place, content hash, size and fields of one item. GalleryError for an unknown id."""
        return self._at_one_moment(lambda now: now.items_of(now.rows_of([id_]))[0])

    def picture(self, id_: str) -> Image.Image:
        """The picture of one item, decoded as it was when it was added. ImageError where it is gone or is another one now."""
        item = self.item(id_)
        with item.place.open() as file:
            if not item.hash.startswith(UNSEEN) and content_hash(file) != item.hash:
                raise ImageError(f"{item.path}: is not the picture any more that was added as {id_!r}")
            file.seek(0)
            return open_image(file, decode=self.decode, size=self._image_size)

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG picture of one item, made when it was added. ImageError where it is lost and the file gone too."""
        record = self._store.ledger.live([id_]).get(id_)
        kept = None if record is None else self._store.thumbnail(record.kept)
        return kept or thumbnail(self.picture(id_), THUMBNAIL_SIDE)

    def copies(self, content: str) -> list[str]:
        """The ids of all items whose picture has that content hash (`images.content_hash` of a file)."""
        return self._at_one_moment(lambda now: now.store.ledger.copies(content, now.moment))

    def duplicates(self, min_score: float | None = None, *, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Groups of ids that are the same file, or with `min_score` near enough, in insertion order.

        Near groups hang together by pairs whose vectors have at least that cosine. OptionError unless 0 < min_score ≤ 1.
        """
        if min_score is None:
            return self._at_one_moment(duplicates.same_content)
        return self._at_one_moment(lambda now: duplicates.near(now, min_score, progress))

    def refresh(self) -> None:
        """Sees what others have written since this object was made, or since it last wrote."""
        self._now = Snapshot(self._store, self._device, self._now)

    def add(self, source: str | Path | Source, *, update: bool = False, progress: Progress | None = None) -> AddReport:
        """Adds every picture of a source: whatever `read_source` reads, or an object that is one. Can be interrupted and run again.

        An item whose id and content are there already is skipped, and what the source says of it is noted. One whose content
        has changed is reported, or with `update` replaced; unreadable pictures are reported, the others go on.
        Raises GalleryError for an empty source, a full disk, or when another process is writing.
        """
        return self._take_in(source, update=update, vanish=False, progress=progress)

    def sync(self, source: str | Path | Source, *, progress: Progress | None = None) -> AddReport:
        """`add` with `update`; and what came from this source before, and is not in it any more, is deleted.

        Nothing is deleted where the source could not be read whole.
        """
        return self._take_in(source, update=True, vanish=True, progress=progress)

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
            return add_gallery(self._store, Store(Path(other)), progress)

    def export(self, folder: str | Path, *, progress: Progress | None = None) -> int:
        """Writes all vectors and what is known of them in the layout of clip-retrieval, into an empty folder; gives back how many."""
        setting = asdict(self.setting) if self.setting else None
        about = transfer.About(self.encoder_identity, self._store.dim, self.decode, setting)
        return self._at_one_moment(lambda now: transfer.export(now, Path(folder), about, progress))

    def import_vectors(self, folder: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Adds vectors in the layout of clip-retrieval, which must be of this gallery's encoder. Can be repeated.

        GalleryError, naming the file, for what does not fit together, other dimensions, or another encoder's export.
        """
        if (said := transfer.about(Path(folder))) is not None:
            self.check_made_by(said.encoder)
        with self._writing():
            return transfer.import_(self._store, Path(folder), progress)

    def build_index(
        self, factory: str | None = None, *, recall: float = DEFAULT_RECALL, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Builds the index that serves searches and tunes it to that recall@10 of composed queries; gives what `info` says of it.

        factory: a FAISS factory string such as "IVF4096,SQ8"; by default chosen by size and memory. Adding extends it.
        OptionError for a factory that cannot be built; GalleryError where another process builds.
        """
        self._at_one_moment(lambda now: deriving.build(self._store, now.moment, now.halves, factory, recall, progress))
        self.refresh()
        return stamp.state(self._store, self._now.moment)

    def index_report(self, *, recall: float = DEFAULT_RECALL) -> dict[str, Any]:
        """Tunes the index to that recall@10 and measures it with composed queries made from the gallery itself.

        recall@10 and @100 against exact search; milliseconds of one query alone (p50, p99) and of one among a hundred; bytes
        a vector; seconds of building. GalleryError where nothing was built yet.
        """
        made, found = self._at_one_moment(lambda now: deriving.measured(self._store, now.moment, now.halves, recall))
        effort = {name: value for name, value in made.effort.items() if value is not None}
        return {"factory": made.factory, "rows": made.rows, "target": recall, **effort, **asdict(found)}

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
            now = Snapshot(self._store)
            deriving.rebuild(self._store, now.moment, now.halves)
            return gone

    def term_scores(self, composition: Composition) -> Float32:
        """(t, n) inner product of every term with every item, in insertion order: fold them with `rank`."""
        return self._at_one_moment(lambda now: searching.term_scores(now, composition, now.rows))

    def scores(self, vectors: Float32) -> Float32:
        """(m, dim) unit vectors → (m, n) inner products with every item, in insertion order."""
        return self._at_one_moment(lambda now: now.scores(vectors, now.rows))

    @property
    def spread(self) -> Spread:
        """How the vectors lie about their mean; of a large gallery, those of a sample spread evenly over it."""
        return self._at_one_moment(lambda now: now.spread)

    def search(
        self,
        composition: Composition,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        where: str | None = None,
        min_score: float | None = None,
    ) -> Ranking:
        """The k best items under the query's score rule. Fewer where the gallery has fewer, or fewer reach `min_score`.

        A linear rule is one search of the index. Others score every item of a gallery of up to EXACT_ITEMS, and of a
        larger one the best POOL candidates of each term, which the ranking's note says. Equal scores keep insertion
        order. where: an SQL expression over the items' fields, such as "price < 20 AND colour = 'red'".
        Raises OptionError for k < 1 or an expression that is none, VectorError for another dimension.
        """
        return self._at_one_moment(lambda now: searching.search(now, composition, Cut(k, exclude, min_score, where)))

    def rank(
        self,
        composition: Composition,
        scores_tn: Float32,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        where: str | None = None,
        min_score: float | None = None,
    ) -> Ranking:
        """The same ranking as `search`, folded from the `term_scores` of the same terms: nothing is searched again."""
        return self._at_one_moment(
            lambda now: searching.rank(now, composition, scores_tn, now.rows, Cut(k, exclude, min_score, where))
        )

    def info(self) -> dict[str, Any]:
        """What the gallery is: items, dimensions, encoder, decoding, setting, fields, bytes of each of its files."""
        meta = self._store.ledger.meta()
        return {
            "path": str(self.path),
            "items": len(self),
            "deleted": len(self._now.moment.dead),
            "dim": self._store.dim,
            "encoder": asdict(self.encoder_identity),
            "decode": str(self.decode),
            "setting": asdict(self.setting) if self.setting else None,
            "fields": meta["fields"],
            "index": stamp.state(self._store, self._now.moment) | {"device": str(self._device)},
            "bytes": self._store.sizes() | deriving.sizes(self._store),
        }

    def verify(self) -> list[str]:
        """Reads everything back; one line for each thing that is wrong, none when all is well."""
        return [*inspection.problems(self._store), *deriving.problems(self._store)]

    @property
    def _image_size(self) -> int:
        return getattr(self._encoder, "image_size", DEFAULT_IMAGE_SIZE)

    def _take_in(self, source: str | Path | Source, *, update: bool, vanish: bool, progress: Progress | None) -> AddReport:
        encoder = self._encoder
        if encoder is None:
            raise GalleryError(
                f"{self.path}: adding needs the encoder: Gallery.open(path, encoder=load_encoder({self.encoder_identity.model!r}))"
            )
        pictures = read_source(source) if isinstance(source, str | Path) else source
        with self._writing():
            return add_source(self._store, encoder, pictures, update=update, vanish=vanish, progress=progress)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._store.writing():
            try:
                yield
            finally:
                self.refresh()
            deriving.grow(self._store, self._now.moment, lambda: self._now.halves)

    def _at_one_moment(self, ask: Callable[[Snapshot], T]) -> T:
        """The answer of the moment that this object knows; of a new one, where that was compacted away by others meanwhile."""
        try:
            return ask(self._now)
        except MovedError:
            self.refresh()
            return ask(self._now)
