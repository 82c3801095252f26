"""The gallery: keeps vectors of pictures and scores every term of a query against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmretrieve import scoring
from mmretrieve.balance import Spread
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder, EncoderIdentity, Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery import searching
from mmretrieve.gallery.index import FaissIndex
from mmretrieve.gallery.intake import THUMBNAIL_SIDE, Intake
from mmretrieve.gallery.searching import Cut
from mmretrieve.gallery.snapshot import INDEX, PLAN, Snapshot
from mmretrieve.gallery.sources import read_source
from mmretrieve.gallery.sources.base import SourceItem
from mmretrieve.gallery.store import LEDGER, THUMBNAILS, VECTORS, Item, Store
from mmretrieve.images import DEFAULT_IMAGE_SIZE, open_image, thumbnail
from mmretrieve.options import DEFAULT_K, Decode
from mmretrieve.ranking import Ranking
from mmretrieve.vectors import Float32

CHUNK = 256  # files between two commits; fixed, so that an interrupted run repeats the same batches


@dataclass(frozen=True)
class AddReport:
    """What `add` did: how many items are new, how many were there already, and why the others failed (name → reason)."""

    added: int = 0
    skipped: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.added} added, {self.skipped} skipped, {len(self.failed)} failed"


class Gallery:
    """A folder of vectors made by one encoder. Open it with `open`, make it with `create`."""

    def __init__(self, store: Store, encoder: Encoder | None = None) -> None:
        self._store, self._encoder = store, encoder
        if encoder is not None:
            self.check_encoder(encoder)
        self._now = Snapshot(store)

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
    def open(cls, path: str | Path, *, encoder: Encoder | None = None) -> Gallery:
        """The gallery at `path` as of its last commit. An encoder is needed only to add, and must be the one that made it."""
        return cls(Store(Path(path)), encoder)

    def __len__(self) -> int:
        return len(self._now)

    @property
    def path(self) -> Path:
        return self._store.folder

    @property
    def ids(self) -> tuple[str, ...]:
        """Every item, in insertion order."""
        return self._now.ids

    @property
    def encoder_identity(self) -> EncoderIdentity:
        return self._store.identity

    @property
    def decode(self) -> Decode:
        return self._store.decode

    @property
    def setting(self) -> PDV | None:
        """The PDV weights that searches of this gallery start from, where it names any."""
        stored = self._store.meta().get("setting")
        return None if stored is None else PDV(**stored)

    def check_encoder(self, encoder: Encoder) -> None:
        """GalleryError, naming both, unless `encoder` is the one that made this gallery."""
        if encoder.identity != self.encoder_identity:
            raise GalleryError(f"{self.path}: this gallery was made by {self.encoder_identity}, not by {encoder.identity}")

    def vectors(self, ids: Sequence[str] | None = None) -> Float32:
        """(n, dim) unit float32 of those ids, or of all, in insertion order. GalleryError for an unknown id."""
        now = self._now
        return now.vectors.copy() if ids is None else now.vectors[now.positions(ids)]

    def item(self, id_: str) -> Item:
        """Path, content hash and size of one item. GalleryError for an unknown id."""
        return self._store.items([id_])[0]

    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG picture of one item, made when it was added. ImageError where it is lost and the file gone too."""
        item = self.item(id_)
        return self._store.thumbnail(item.hash) or thumbnail(open_image(item.path), THUMBNAIL_SIDE)

    def add(self, source: str | Path, *, progress: Progress | None = None) -> AddReport:
        """Adds every picture of a folder tree, or one file. Can be interrupted and run again.

        An item whose id and content are there already is skipped; unreadable pictures are reported, the others go on.
        Raises GalleryError for an empty source, a full disk, or when another process is writing.
        """
        encoder = self._encoder
        if encoder is None:
            raise GalleryError(
                f"{self.path}: adding needs the encoder: Gallery.open(path, encoder=load_encoder({self.encoder_identity.model!r}))"
            )
        items = [item for item in read_source(source) if isinstance(item, SourceItem)]
        report = AddReport()
        with self._store.writing():
            for start in range(0, len(items), CHUNK):
                chunk = items[start : start + CHUNK]
                report = _joined(report, self._add_chunk(chunk, encoder, progress))
        self._now = Snapshot(self._store)
        return report

    def delete(self, ids: Sequence[str]) -> None:
        """Removes items, all or none. GalleryError for an unknown id."""
        if isinstance(ids, str):
            raise OptionError(f"expected a list of ids, got one string {ids!r}")
        with self._store.writing():
            self._store.delete(ids)
        self._now = Snapshot(self._store)

    def term_scores(self, composition: Composition) -> Float32:
        """(t, n) inner product of every term with every item, in insertion order: fold them with `rank`."""
        return self._now.term_scores(composition)

    def scores(self, vectors: Float32) -> Float32:
        """(m, dim) unit vectors → (m, n) inner products with every item, in insertion order."""
        return scoring.term_scores(vectors, self._now.vectors)

    @property
    def spread(self) -> Spread:
        """How the vectors lie about their mean; of a large gallery, those of a sample spread evenly over it."""
        return self._now.spread

    def copies(self, content: str) -> list[str]:
        """The ids of all items whose picture has that content hash (`images.content_hash` of a file)."""
        return self._store.ids_of(content)

    def search(
        self,
        composition: Composition,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        min_score: float | None = None,
    ) -> Ranking:
        """The k best items under the query's score rule. Fewer where the gallery has fewer, or fewer reach `min_score`.

        A linear rule is one search of the index. Others score every item of a gallery of up to EXACT_ITEMS, and of a
        larger one the best POOL candidates of each term, which the ranking's note says. Equal scores keep insertion
        order. Raises OptionError for k < 1, VectorError for another dimension.
        """
        return searching.search(self._now, composition, Cut(k, exclude, min_score))

    def rank(
        self,
        composition: Composition,
        scores_tn: Float32,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        min_score: float | None = None,
    ) -> Ranking:
        """The same ranking as `search`, folded from the `term_scores` of the same terms: nothing is searched again."""
        return searching.rank(self._now, composition, scores_tn, Cut(k, exclude, min_score))

    def info(self) -> dict[str, Any]:
        """What the gallery is: items, dimensions, encoder, decoding, setting, bytes of each of its files."""
        files = {
            name: (self.path / name).stat().st_size
            for name in (LEDGER, VECTORS, INDEX, THUMBNAILS)
            if (self.path / name).exists()
        }
        return {
            "path": str(self.path),
            "items": len(self),
            "deleted": int(self._store.meta()["rows"]) - len(self),
            "dim": self._store.dim,
            "encoder": asdict(self.encoder_identity),
            "decode": str(self.decode),
            "setting": asdict(self.setting) if self.setting else None,
            "bytes": files,
        }

    def verify(self) -> list[str]:
        """Reads everything back; one line for each thing that is wrong, none when all is well."""
        said = self._store.problems()
        stamp = self._store.meta().get("index")
        if (self.path / INDEX).exists() and stamp and FaissIndex.load(self.path / INDEX, stamp["digest"], PLAN) is None:
            said.append(f"{INDEX}: is not the file that was written; it will be built again at the next search")
        return said

    def _add_chunk(self, chunk: list[SourceItem], encoder: Encoder, progress: Progress | None) -> AddReport:
        intake = Intake(self._store, getattr(encoder, "image_size", DEFAULT_IMAGE_SIZE), progress)
        vectors = intake.vectors(chunk, encoder.encode_images)
        if intake.items:
            self._store.append(intake.items, vectors, intake.thumbnails)
        return AddReport(len(intake.items), intake.skipped, intake.failed)


def _joined(a: AddReport, b: AddReport) -> AddReport:
    return AddReport(a.added + b.added, a.skipped + b.skipped, {**a.failed, **b.failed})
