"""What every gallery answers, wherever its items are held: in a folder (`gallery`) or on a server (`milvus`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from PIL import Image

from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.encoders.base import Encoder, EncoderIdentity, Progress
from mmretrieve.errors import GalleryError, ImageError
from mmretrieve.filters import Where, read_filter
from mmretrieve.gallery import search
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import UNSEEN, Item, StaleViewError
from mmretrieve.gallery.view import ItemPage, SearchOptions, StoredView
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.images import DEFAULT_IMAGE_SIZE, content_hash, open_image
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import DEFAULT_K, Decode
from mmretrieve.ranking import Ranking
from mmretrieve.vectors import Float32
from mmretrieve.weighting import Spread

MOVES = 8  # compactions that may come between a question and its answer
N = TypeVar("N", bound=StoredView)
T = TypeVar("T")


class GalleryBase(ABC, Generic[N]):
    """Vectors made by one encoder, and what can be asked of them. `_now` is what is held at the moment that this object knows."""

    _view: N
    _encoder: Encoder | None

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """The folder, or the address on a server."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether its vectors are on this machine, so that scoring every item is cheap."""

    @abstractmethod
    def thumbnail(self, id_: str) -> bytes:
        """A small JPEG picture of one item. ImageError where there is none and its file is gone."""

    @abstractmethod
    def refresh(self) -> None:
        """Sees what others have written since this object was made, or since it last wrote."""

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Removes items, all or none. GalleryError for an unknown id."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What the gallery is: items, dimensions, encoder, decoding, setting, fields, index."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Reads everything back; one line for each thing that is wrong, none when all is well."""

    def __len__(self) -> int:
        return len(self._view)

    @property
    def manifest(self) -> Manifest:
        """The encoder that made it, dimensions, decoding, setting, fields and the chosen vocabulary."""
        return self._view.manifest

    @property
    def encoder_identity(self) -> EncoderIdentity:
        return self.manifest.encoder

    @property
    def dim(self) -> int:
        return self.manifest.dim

    @property
    def decode(self) -> Decode:
        """How images are decoded before they are encoded."""
        return self.manifest.decode

    @property
    def setting(self) -> PDV | None:
        """The PDV weights that searches of this gallery start from, where it names any."""
        return self.manifest.setting

    @property
    def ids(self) -> tuple[str, ...]:
        """Every item, in insertion order."""
        return self._with_view(lambda view: view.ids)

    def check_encoder(self, encoder: Encoder) -> None:
        """GalleryError, naming both, unless `encoder` is the one that made this gallery."""
        self.check_made_by(encoder.identity)

    def check_made_by(self, identity: EncoderIdentity) -> None:
        """GalleryError, naming both, unless that encoder made this gallery."""
        if identity != self.encoder_identity:
            raise GalleryError(f"{self.path}: this gallery was made by {self.encoder_identity}, not by {identity}")

    def vectors(self, ids: Sequence[str] | None = None) -> Float32:
        """(n, dim) unit float32 of those ids, or of all, in insertion order. GalleryError for an unknown id."""
        return self._with_view(lambda view: view.vectors_of(view.rows if ids is None else view.rows_of(ids)))

    def item(self, id_: str) -> Item:
        """Place, content hash, size and fields of one item. GalleryError for an unknown id."""
        return self._with_view(lambda view: view.items_of(view.rows_of([id_]))[0])

    def items(self, ids: Sequence[str]) -> list[Item]:
        """The same of several, in that order."""
        return self._with_view(lambda view: view.items_of(view.rows_of(ids)))

    def listed(self, *, where: Where | None = None, offset: int = 0, limit: int = 50) -> ItemPage:
        """Up to `limit` of the items that fulfil a filter, from number `offset` on, in insertion order; and how many do.

        OptionError for what is no filter.
        """

        def listed(view: N) -> ItemPage:
            allowed = view.allowed(SearchOptions(1, where=read_filter(where)))
            return ItemPage(view.items_of(view.rows_allowed(allowed)[offset : offset + limit]), allowed.count)

        return self._with_view(listed)

    def picture(self, id_: str) -> Image.Image:
        """The picture of one item, decoded as it was when it was added. ImageError where it is gone or is another one now."""
        with self._unchanged(self.item(id_)) as file:
            return open_image(file, decode=self.decode, size=self._image_size)

    def has_picture(self, item: Item) -> bool:
        """Whether the picture of an item is still there, and the same as when it was added. Nothing is decoded."""
        try:
            with self._unchanged(item):
                return True
        except ImageError:
            return False

    @contextmanager
    def _unchanged(self, item: Item) -> Iterator[BinaryIO]:
        """The file of an item, as far as it is the one that was added."""
        with item.location.open() as file:
            if not item.hash.startswith(UNSEEN) and content_hash(file) != item.hash:
                raise ImageError(f"{item.path}: is not the picture any more that was added as {item.id!r}")
            file.seek(0)
            yield file

    def copies(self, content: str) -> list[str]:
        """The ids of all items whose picture has that content hash (`images.content_hash` of a file)."""
        return self.copies_of([content])[0]

    def copies_of(self, hashes: Sequence[str]) -> list[list[str]]:
        """The same of several content hashes, a list of ids for each."""
        return self._with_view(lambda view: view.copies(hashes))

    def duplicates(self, min_score: float | None = None, *, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Groups of ids that are the same file, or with `min_score` near enough, in insertion order.

        Near groups hang together by pairs whose vectors have at least that cosine. OptionError unless 0 < min_score ≤ 1.
        """
        if min_score is None:
            return self._with_view(lambda view: view.same_content())
        return self._with_view(lambda view: view.near(min_score, progress))

    def term_scores(self, composition: Composition) -> Float32:
        """(t, n) inner product of every term with every item, in insertion order: fold them with `rank`."""
        return self._with_view(lambda view: search.term_scores(view, composition, view.rows))

    def scores(self, vectors: Float32) -> Float32:
        """(m, dim) unit vectors → (m, n) inner products with every item, in insertion order."""
        return self._with_view(lambda view: view.scores(vectors, view.rows))

    @property
    def spread(self) -> Spread:
        """How the vectors lie about their mean; of a large gallery, those of a sample spread evenly over it."""
        return self._with_view(lambda view: view.spread)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the items' fields say of them: made of the fields that were chosen, else found automatically.

        It is found from the fields of at most 20,000 items spread evenly, and kept while the gallery has the same fields and
        its size changes by no more than 10 %. None where no field has words. Reading it writes nothing.
        """
        return self._gallery_vocabulary.vocabulary

    @property
    def vocabulary_fields(self) -> tuple[str, ...]:
        """The fields that the stored vocabulary was made of; empty where it was found automatically, or there is none."""
        return self._gallery_vocabulary.fields

    @property
    def _gallery_vocabulary(self) -> GalleryVocabulary:
        return self._with_view(lambda view: view.vocabulary)

    def search(
        self,
        composition: Composition,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
    ) -> Ranking:
        """The k best items under the query's score rule. Fewer where the gallery has fewer, or fewer reach `min_score`.

        A linear rule is one search of the index. Others score every item of a gallery of up to EXACT_ITEMS, and of a
        larger one the best POOL candidates of each term, which the ranking's note says. Equal scores keep insertion
        order. where: an SQL expression over the items' fields, such as "price < 20 AND colour = 'red'", or an
        `Expression` of `mmretrieve.filters`, or its structure.
        Raises OptionError for k < 1 or an expression that is none, VectorError for another dimension.
        """
        return self._with_view(
            lambda view: search.search(view, composition, SearchOptions(k, exclude, min_score, read_filter(where)))
        )

    def search_many(self, compositions: Sequence[Composition], options_of_each: Sequence[SearchOptions]) -> list[Ranking]:
        """A ranking for each composition under its own `SearchOptions`, as `search` gives it; linear ones are searched together."""
        return self._with_view(lambda view: search.search_many(view, compositions, options_of_each))

    def rank(
        self,
        composition: Composition,
        scores_tn: Float32,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
    ) -> Ranking:
        """The same ranking as `search`, folded from the `term_scores` of the same terms: nothing is searched again."""
        return self._with_view(
            lambda view: search.rank(
                view, composition, scores_tn, view.rows, SearchOptions(k, exclude, min_score, read_filter(where))
            )
        )

    @property
    def _image_size(self) -> int:
        return getattr(self._encoder, "image_size", DEFAULT_IMAGE_SIZE)

    def _with_view(self, ask: Callable[[N], T]) -> T:
        """The answer of the moment that this object knows; of a new one, where that was compacted away by others meanwhile."""
        for _ in range(MOVES):
            try:
                return ask(self._view)
            except StaleViewError:
                self.refresh()
        return ask(self._view)
