"""The gallery: keeps vectors of pictures and scores every term of a query against them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve import scoring
from mmretrieve.balance import Spread
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder, EncoderIdentity, Progress
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery.index import FlatIndex
from mmretrieve.gallery.intake import THUMBNAIL_SIDE, Intake
from mmretrieve.gallery.sources import SourceItem, read_source
from mmretrieve.gallery.store import LEDGER, THUMBNAILS, VECTORS, Item, Live, Store
from mmretrieve.images import DEFAULT_IMAGE_SIZE, open_image, thumbnail
from mmretrieve.options import DEFAULT_K, Decode
from mmretrieve.ranking import Hit, Ranking
from mmretrieve.vectors import Float32

INDEX = "index.faiss"
EXACT_ITEMS = 500_000  # up to here a rule that is not linear scores every item
SAMPLE = 50_000  # items that say how the whole gallery spreads
POOL = 2_000  # candidates of each term beyond
CHUNK = 256  # files between two commits; fixed, so that an interrupted run repeats the same batches
logger = logging.getLogger(__name__)


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

    _spread: Spread | None

    def __init__(self, store: Store, encoder: Encoder | None = None) -> None:
        self._store, self._encoder = store, encoder
        if encoder is not None:
            self.check_encoder(encoder)
        self._refresh()

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
        return len(self._live.ids)

    @property
    def path(self) -> Path:
        return self._store.folder

    @property
    def ids(self) -> tuple[str, ...]:
        """Every item, in insertion order."""
        return self._live.ids

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
        return self._loaded().copy() if ids is None else self._loaded()[self._positions(ids)]

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
        items = read_source(source)
        report = AddReport()
        with self._store.writing():
            for start in range(0, len(items), CHUNK):
                chunk = items[start : start + CHUNK]
                report = _joined(report, self._add_chunk(chunk, encoder, progress))
        self._refresh()
        return report

    def delete(self, ids: Sequence[str]) -> None:
        """Removes items, all or none. GalleryError for an unknown id."""
        if isinstance(ids, str):
            raise OptionError(f"expected a list of ids, got one string {ids!r}")
        with self._store.writing():
            self._store.delete(ids)
        self._refresh()

    def term_scores(self, composition: Composition) -> Float32:
        """(t, n) inner product of every term with every item, in insertion order: fold them with `rank`."""
        self._check_dim(composition)
        return scoring.term_scores(composition.terms, self._loaded())

    def scores(self, vectors: Float32) -> Float32:
        """(m, dim) unit vectors → (m, n) inner products with every item, in insertion order."""
        return scoring.term_scores(vectors, self._loaded())

    @property
    def spread(self) -> Spread:
        """How the vectors lie about their mean; of a large gallery, those of SAMPLE items spread evenly over it."""
        if self._spread is None:
            every = max(1, len(self) // SAMPLE)
            self._spread = Spread.of(self._loaded()[::every])
        return self._spread

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
        k = scoring.check_k(k)
        self._check_dim(composition)
        if not composition.is_linear and len(self) <= EXACT_ITEMS:
            return self.rank(composition, self.term_scores(composition), k, exclude=exclude, min_score=min_score)
        if composition.is_linear and not composition.direction.any():
            raise OptionError("the weighted terms cancel: nothing is left to search by")
        hidden = self._hidden(exclude)
        depth = k if composition.is_linear else max(k, POOL)
        queries = [composition.direction] if composition.is_linear else [composition.direction, *composition.terms]
        pool = self._pool(queries, min(depth + len(hidden), len(self)))
        positions = pool[~np.isin(pool, hidden)]
        vectors = self._vectors[positions] if self._vectors is not None else self._store.read(self._live.rows[positions])
        scores = scoring.term_scores(composition.terms, vectors)
        seen = None if composition.is_linear else len(positions)
        return self._ranking(composition, positions, scores, _Cut(k, min_score, len(hidden), seen))

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
        k = scoring.check_k(k)
        if scores_tn.shape != (len(composition.names), len(self)):
            raise GalleryError(
                f"term scores of shape {scores_tn.shape} do not fit {len(composition.names)} terms × {len(self)} items; the gallery has changed, score again"
            )
        positions = np.delete(np.arange(len(self)), self._hidden(exclude))
        cut = _Cut(k, min_score, len(self) - len(positions))
        return self._ranking(composition, positions, scores_tn[:, positions], cut)

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
        if (self.path / INDEX).exists() and stamp and FlatIndex.load(self.path / INDEX, stamp["digest"]) is None:
            said.append(f"{INDEX}: is not the file that was written; it will be built again at the next search")
        return said

    def _add_chunk(self, chunk: list[SourceItem], encoder: Encoder, progress: Progress | None) -> AddReport:
        intake = Intake(self._store, getattr(encoder, "image_size", DEFAULT_IMAGE_SIZE), progress)
        vectors = intake.vectors(chunk, encoder.encode_images)
        if intake.items:
            self._store.append(intake.items, vectors, intake.thumbnails)
        return AddReport(len(intake.items), intake.skipped, intake.failed)

    def _refresh(self) -> None:
        self._live: Live = self._store.live()
        self._vectors: Float32 | None = None  # read when first scored
        self._index: FlatIndex | None = None  # opened or built when first searched
        self._spread = None  # measured when first asked
        self._place: dict[str, int] | None = None  # id → position, made when first asked

    def _loaded(self) -> Float32:
        if self._vectors is None:
            self._vectors = self._store.read(self._live.rows)
        return self._vectors

    def _get_index(self) -> FlatIndex:
        """The index of what is live: from its file where that fits, else built and, where possible, written."""
        if self._index is None:
            stamp = self._store.meta().get("index") or {}
            if stamp.get("generation") == self._live.generation:
                self._index = FlatIndex.load(self.path / INDEX, stamp["digest"])
        if self._index is None:
            self._index = FlatIndex.build(self._loaded())
            try:
                self._store.set_meta(index={"generation": self._live.generation, "digest": self._index.save(self.path / INDEX)})
            except (OSError, RuntimeError, GalleryError) as error:
                logger.info("%s: the index stays in memory (%s)", self.path, error)
        return self._index

    def _positions(self, ids: Collection[str]) -> list[int]:
        if isinstance(ids, str):
            raise OptionError(f"expected a list of ids, got one string {ids!r}")
        if not isinstance(ids, Collection) or not all(isinstance(id_, str) for id_ in ids):
            raise OptionError(f"expected a list of ids, got {ids!r}")
        if self._place is None:
            self._place = {id_: position for position, id_ in enumerate(self.ids)}
        if absent := [id_ for id_ in ids if id_ not in self._place]:
            raise GalleryError(f"{self.path}: no item {absent[0]!r} in this gallery")
        return [self._place[id_] for id_ in ids]

    def _hidden(self, exclude: Collection[str]) -> list[int]:
        return sorted(set(self._positions(exclude)))

    def _check_dim(self, composition: Composition) -> None:
        if composition.terms.shape[1] != self._store.dim:
            raise GalleryError(
                f"{self.path}: holds vectors of {self._store.dim} dimensions, the query has {composition.terms.shape[1]}"
            )

    def _pool(self, queries: Sequence[Float32], wanted: int) -> NDArray[np.int64]:
        """Positions, in order, that hold the `wanted` best of each query."""
        if not wanted:
            return np.empty(0, np.int64)
        return np.unique(np.concatenate([self._get_index().candidates(query, wanted) for query in queries]))

    def _ranking(self, composition: Composition, positions: NDArray[np.int64], scores_tn: Float32, cut: _Cut) -> Ranking:
        gave = composition.contributions(scores_tn)
        totals = gave.sum(axis=0)
        order = scoring.top_k(totals, cut.k) if len(positions) else np.empty(0, np.intp)
        kept = order if cut.min_score is None else order[totals[order] >= cut.min_score]
        ids = [self.ids[position] for position in positions[kept]]
        hits = tuple(
            Hit(
                rank,
                item.id,
                float(totals[column]),
                dict(zip(composition.names, map(float, gave[:, column]), strict=True)),
                item.path,
            )
            for rank, (item, column) in enumerate(zip(self._store.items(ids), kept, strict=True), start=1)
        )
        notes = (composition.remark, cut.pool_note(composition), cut.shortfall(len(hits), len(order)))
        return Ranking(
            hits,
            cut.k,
            len(self) - cut.hidden,
            composition.weighing,
            composition.words,
            "; ".join(filter(None, notes)) or None,
            composition.rule.name,
            cut.pool,
        )


@dataclass(frozen=True)
class _Cut:
    """What ends a ranking: k, a lowest score, what is hidden; and how many candidates were scored where not all were."""

    k: int
    min_score: float | None
    hidden: int
    pool: int | None = None

    def pool_note(self, composition: Composition) -> str | None:
        if self.pool is None:
            return None
        return (
            f"the {composition.rule.name.value} rule scored the {self.pool} best candidates of its terms, not the whole gallery"
        )

    def shortfall(self, found: int, above: int) -> str | None:
        if found >= self.k:
            return None
        if found < above:
            return f"{found} of the {self.k} asked for: the others score below {self.min_score:g}"
        return f"{found} of the {self.k} asked for: the gallery holds no more" + (
            f" ({self.hidden} excluded)" if self.hidden else ""
        )


def _joined(a: AddReport, b: AddReport) -> AddReport:
    return AddReport(a.added + b.added, a.skipped + b.skipped, {**a.failed, **b.failed})
