"""The methods that all galleries share, whether their items are in a folder (`gallery`) or on a server (`milvus`)."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from numpy.typing import ArrayLike
from PIL import Image

from mmretrieve import notebook
from mmretrieve.composition import Composition, as_composition, check_composition
from mmretrieve.concurrency import map_ahead
from mmretrieve.directions import PDV, Term
from mmretrieve.encoders.base import DtypeWarning, Encoder, EncoderIdentity, Progress, dtype_of, identity_of
from mmretrieve.encoders.loading import EncoderLike, as_encoder
from mmretrieve.errors import GalleryError, ImageError, MissingError, MMRetrieveError, checks_keywords
from mmretrieve.filters import Where, read_filter
from mmretrieve.gallery import search
from mmretrieve.gallery.manifest import Manifest, detect_title_field, readable_id
from mmretrieve.gallery.store.records import RESTORE, UNSEEN, Item, StaleViewError
from mmretrieve.gallery.view import ItemPage, Rows, SearchOptions, StoredView
from mmretrieve.gallery.vocabularies import GalleryVocabulary
from mmretrieve.images import DEFAULT_IMAGE_SIZE, content_hash, open_image
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.options import DEFAULT_K, Colors, Decode, Dtype, check_count
from mmretrieve.ranking import Ranking
from mmretrieve.sources.base import Value
from mmretrieve.vectors import Float32
from mmretrieve.weighting import Spread

MAX_OPEN_PICTURES = 16  # that are decoded ahead
SHOWN_ITEMS = 8  # in notebooks
SAME_PICTURE = 0.9995  # the cosine from which two vectors count as one picture's
MAX_REFRESHES = 8  # compactions by others during one call
View = TypeVar("View", bound=StoredView)
T = TypeVar("T")


class GalleryBase(ABC, Generic[View]):
    """Vectors made by one encoder, with ids, fields and images. `Gallery` and `MilvusGallery` implement it.

    A gallery object reads one version of its items. After a write by this object it reads the new version; `refresh` reads what
    other processes have written.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
    >>> len(gallery), gallery.dim, gallery.encoder_identity.model
    (2000, 128, 'wardrobe')
    """

    _view: View
    _encoder: Encoder | None

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """The folder, or the address of the collection on a server, without the password."""

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether the vectors are on this machine, so that scoring every item is cheap."""

    @abstractmethod
    def thumbnail(self, id_: str) -> bytes:
        """Returns a JPEG thumbnail of an item. A folder stores those of the images that were added; others are made from the image file.

        Parameters
        ----------
        id_ : str
            The id of the item.

        Returns
        -------
        bytes
            The JPEG file; its longer side has at most 320 pixels.

        Raises
        ------
        GalleryError
            If there is no such item.
        ImageError
            If no thumbnail is stored and the image file is missing on this machine or has changed.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> gallery.thumbnail(gallery.ids[0])[:2]
        b'\\xff\\xd8'
        """

    @abstractmethod
    def refresh(self) -> None:
        """Reads the current version, with the writes of other processes."""

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Deletes items. In a folder, `compact` frees their bytes.

        Parameters
        ----------
        ids : sequence of str
            The ids of the items.

        Raises
        ------
        GalleryError
            If an id is unknown; nothing is deleted. Also if another process is writing to the folder.
        OptionError
            If `ids` is not a list of strings.
        """

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {len(self):,} items, {self.encoder_identity.model}, {self.dim} dimensions: {self.path}>"
        )

    def _repr_html_(self) -> str:
        fields = ", ".join(f"{name} ({kind})" for name, kind in self.manifest.fields.items())
        rows = [
            ("items", f"{len(self):,}"),
            ("encoder", f"{self.encoder_identity.model}, {self.dim} dimensions"),
            ("fields", fields or "none"),
            ("path", str(self.path)),
        ]
        try:
            first = self.list_items(limit=SHOWN_ITEMS).items
        except MMRetrieveError as error:  # such as a gallery whose folder is gone
            return notebook.fragment(notebook.table(rows), remarks=[str(error)])
        cards = [notebook.card(self.thumbnail, item.id, self.title(item.id, item.fields)) for item in first]
        return notebook.fragment(notebook.table(rows), cards)

    def info(self) -> dict[str, Any]:
        """Describes the gallery.

        Returns
        -------
        dict of str to object
            `path`, `items`, `dim`, `encoder`, `decode`, `colors`, `dtype`, `captions`, `setting`, `fields`, `title_field`, `vocabulary` and
            `index`, as JSON can represent them. A folder also has `deleted` and `bytes` (the size of each file).

        Examples
        --------
        >>> import mmretrieve as mm
        >>> info = mm.open_gallery(mm.wardrobe.gallery_folder()).info()
        >>> info["items"], info["index"]["factory"]
        (2000, 'SQfp16')
        """
        return {
            "path": str(self.path),
            "items": len(self),
            "dim": self.dim,
            "encoder": asdict(self.encoder_identity),
            "decode": str(self.decode),
            "colors": str(self.colors),
            "dtype": None if self.dtype is None else str(self.dtype),
            "captions": None if (captions := self.manifest.captions) is None else asdict(captions),
            "setting": None if self.setting is None else asdict(self.setting),
            "fields": {name: str(kind) for name, kind in self.manifest.fields.items()},
            "title_field": self.title_field,
            "vocabulary": str(self._gallery_vocabulary),
        }

    @abstractmethod
    def verify(self) -> list[str]:
        """Checks all stored data: in a folder every file against its checksums, in a collection every row.

        Returns
        -------
        list of str
            One line for each problem; empty if there is none.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> mm.open_gallery(mm.wardrobe.gallery_folder()).verify()
        []
        """

    def __len__(self) -> int:
        return len(self._view)

    def __contains__(self, id_: object) -> bool:
        """Whether an item has this id, whichever form of Unicode it is in."""
        try:
            return isinstance(id_, str) and bool(len(self._with_view(lambda view: view.rows_of([id_]))))
        except MissingError:
            return False

    @property
    def manifest(self) -> Manifest:
        """The encoder, the dimension, the decoding, the PDV setting, the fields and the chosen vocabulary."""
        return self._view.manifest

    @property
    def encoder_identity(self) -> EncoderIdentity:
        """The identity of the encoder that made the vectors."""
        return self.manifest.encoder

    @property
    def dim(self) -> int:
        """The dimension of the vectors."""
        return self.manifest.dim

    @property
    def decode(self) -> Decode:
        """How images are decoded before they are encoded."""
        return self.manifest.decode

    @property
    def dtype(self) -> Dtype | None:
        """The dtype in which the image tower of the encoder computed; None if it is not known."""
        return self.manifest.dtype

    @property
    def colors(self) -> Colors:
        """How the colors of images are read before they are encoded."""
        return self.manifest.colors

    @property
    def setting(self) -> PDV | None:
        """The PDV parameters with which searches of this gallery start; None if the gallery has none."""
        return self.manifest.setting

    @property
    def title_field(self) -> str | None:
        """The field that names the items: the chosen one, else the first text field named title, name, product, label, headline, caption
        or description. None if there is none.
        """
        return self.manifest.title_field or detect_title_field(self.manifest.fields)

    def title(self, id_: str, fields: Mapping[str, Value]) -> str:
        """Returns the title of an item: the value of its title field, or its id as readable words.

        Parameters
        ----------
        id_ : str
            The id of the item.
        fields : mapping of str to text or number
            The fields of the item.

        Returns
        -------
        str
            The title.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> gallery.title("beige-checked-coat-0051.png", {"colour": "beige"})
        'beige checked coat 0051'
        """
        value = fields.get(self.title_field) if self.title_field else None
        return str(value) if value not in (None, "") else readable_id(id_)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all items, in insertion order."""
        return self._with_view(lambda view: view.ids)

    @property
    def rows(self) -> Rows:
        """The row numbers of all items, in insertion order: the order of term scores. After a write it is another array."""
        return self._with_view(lambda view: view.rows)

    def check_encoder(self, encoder: Encoder | EncoderIdentity) -> None:
        """Raises GalleryError, with both identities, unless this encoder made the gallery; OptionError if it is no encoder.

        Warns if it computes in another dtype.
        """
        identity = identity_of(encoder)
        if identity != self.encoder_identity:
            raise GalleryError(
                f"{self.path}: this gallery was made by {self.encoder_identity.model}, not by {identity.model}; they differ in "
                f"{self.encoder_identity.difference(identity)}; use the encoder that made it, or index the images again into another "
                "gallery"
            )
        if (dim := getattr(encoder, "dim", self.dim)) != self.dim:
            raise GalleryError(
                f"{self.path}: its vectors have {self.dim} numbers, those of its encoder {dim}: the gallery is damaged; {RESTORE}"
            )

        if (dtype := dtype_of(encoder)) is not None and self.dtype not in (None, dtype):
            warnings.warn(
                f"{self.path}: its vectors were computed in {self.dtype}, and this encoder computes in {dtype}, so equal images get "
                "slightly different vectors",
                DtypeWarning,
                stacklevel=2,
            )

    def use_encoder(self, encoder: EncoderLike) -> Encoder:
        """Adds images with this encoder, unless the gallery was opened with one, and returns it, made of a model of another package.

        Raises GalleryError unless it made the gallery.
        """
        checked = as_encoder(encoder)
        self.check_encoder(checked)
        if self._encoder is None:
            self._encoder = checked
        return checked

    def vectors(self, ids: Sequence[str] | None = None) -> Float32:
        """Returns the vectors of some items, or of all.

        Parameters
        ----------
        ids : sequence of str, optional
            The ids of n items. By default all, in insertion order.

        Returns
        -------
        array of shape (n, dim), float32
            Unit rows, in the order of `ids`.

        Raises
        ------
        GalleryError
            If an id is unknown.
        OptionError
            If `ids` is not a list of strings.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> gallery.vectors(gallery.ids[:2]).shape
        (2, 128)
        """
        return self._with_view(lambda view: view.vectors_of(view.rows if ids is None else view.rows_of(ids)))

    def item(self, id_: str) -> Item:
        """Returns the location, content hash, size and fields of an item.

        Parameters
        ----------
        id_ : str
            The id of the item.

        Returns
        -------
        Item
            `id`, `path`, `location`, `hash`, `width`, `height`, `fields`, `source`, `fingerprint`.

        Raises
        ------
        GalleryError
            If there is no such item.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> item = mm.open_gallery(mm.wardrobe.gallery_folder()).item("beige-checked-coat-0051.png")
        >>> item.width, item.height, item.fields["colour"]
        (224, 224, 'beige')
        """
        return self._with_view(lambda view: view.items_of(view.rows_of([id_]))[0])

    def items(self, ids: Sequence[str]) -> list[Item]:
        """Returns the items of some ids.

        Parameters
        ----------
        ids : sequence of str
            The ids of n items.

        Returns
        -------
        list of Item
            n items, in the order of `ids`.

        Raises
        ------
        GalleryError
            If an id is unknown.
        OptionError
            If `ids` is not a list of strings.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> [item.fields["kind"] for item in gallery.items(gallery.ids[:2])]
        ['coat', 'coat']
        """
        return self._with_view(lambda view: view.items_of(view.rows_of(ids)))

    @checks_keywords
    def list_items(self, *, where: Where | None = None, offset: int = 0, limit: int = 50) -> ItemPage:
        """Lists the items that match a filter, in insertion order, one page at a time.

        Parameters
        ----------
        where : str, mapping or Expression, optional
            The filter, as for `search`. By default all items match.
        offset : int, default=0
            The number of matching items to skip.
        limit : int, default=50
            The maximum number of items to return.

        Returns
        -------
        ItemPage
            `items`, a list of Item, and `total`, the number of items that match.

        Raises
        ------
        OptionError
            If `where` is not a valid filter, or `offset` or `limit` is not a whole number of at least 0.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> page = mm.open_gallery(mm.wardrobe.gallery_folder()).list_items(where="colour = 'red'", limit=2)
        >>> len(page.items), page.total
        (2, 125)
        """

        offset, limit = check_count("offset", offset, low=0), check_count("limit", limit, low=0)

        def read_page(view: View) -> ItemPage:
            allowed = view.matching(read_filter(where))
            return ItemPage(view.items_of(view.rows_allowed(allowed)[offset : offset + limit]), allowed.count)

        return self._with_view(read_page)

    def picture(self, id_: str) -> Image.Image:
        """Opens the image of an item, decoded in the same way as when it was added.

        Parameters
        ----------
        id_ : str
            The id of the item.

        Returns
        -------
        PIL.Image.Image
            The image, upright, in RGB.

        Raises
        ------
        GalleryError
            If there is no such item.
        ImageError
            If the file is missing or has changed since it was added.
        """
        with self._open_unchanged(self.item(id_)) as file:
            is_fast = self.decode is Decode.FAST  # only this reads the size, for which an encoder may have to be loaded
            size = getattr(self._encoder, "image_size", DEFAULT_IMAGE_SIZE) if is_fast else DEFAULT_IMAGE_SIZE
            return open_image(file, decode=self.decode, size=size, colors=self.colors)

    def pictures(self, ids: Sequence[str]) -> Iterator[Image.Image | None]:
        """Yields the image of each item, as `picture` opens it. The next ones are decoded meanwhile.

        Parameters
        ----------
        ids : sequence of str
            The ids of n items.

        Yields
        ------
        PIL.Image.Image or None
            None for an item whose image file is gone or has changed, and for an item that was deleted.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> [picture and picture.size for picture in gallery.pictures([gallery.ids[0], "no such item"])]
        [(224, 224), None]
        """
        return map_ahead(self._picture_or_none, ids, MAX_OPEN_PICTURES)

    def _picture_or_none(self, id_: str) -> Image.Image | None:
        try:
            return self.picture(id_)
        except (ImageError, GalleryError):
            return None

    def patches(self, ids: Sequence[str]) -> list[Float32 | None]:
        """Returns the vectors of the patches of images, as the encoder's `encode_patches` makes them, rounded to float16.

        In a folder they are stored once they are computed, so that no image is opened or encoded again, and images that are gone keep
        theirs. A gallery on a server stores none.

        Parameters
        ----------
        ids : sequence of str
            The ids of n items.

        Returns
        -------
        list of n ndarrays of shape (p, dim), float32, or None
            None for an item whose patches are neither stored nor can be computed and stored: its image is gone or was never read, or the
            gallery can only be read.

        Raises
        ------
        GalleryError
            If an id is unknown, or the gallery was opened without an encoder.
        OptionError
            If the encoder does not encode patches.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.Retriever.open(mm.wardrobe.gallery_folder()).gallery
        >>> gallery.patches(gallery.ids[:2])[0].shape
        (64, 128)
        """
        return [None] * len(self.items(ids))

    def has_picture(self, item: Item) -> bool:
        """Returns whether the file of an item exists and has not changed since it was added.

        Its content is read only if its size or time changed. Nothing is decoded.
        """
        try:
            if item.location.fingerprint() == item.fingerprint:
                return True
            with self._open_unchanged(item):
                return True
        except ImageError:
            return False

    @contextmanager
    def _open_unchanged(self, item: Item) -> Iterator[BinaryIO]:
        """Opens the file of an item. ImageError if it is not the one that was added."""
        with item.location.open() as file:
            if not item.hash.startswith(UNSEEN) and content_hash(file) != item.hash:
                raise ImageError(f"{item.path}: the file has changed since it was added as {item.id!r}; add it again")
            file.seek(0)
            yield file

    def copies(self, content: str) -> list[str]:
        """Returns the ids of all items with the same image file.

        Parameters
        ----------
        content : str
            The hash of a file: `item(id).hash`, or `images.content_hash` of an open file.

        Returns
        -------
        list of str
            Ids in insertion order; empty if no item has this content.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> gallery.copies(gallery.item("beige-checked-coat-0051.png").hash)
        ['beige-checked-coat-0051.png']
        """
        return self.copies_of([content])[0]

    def copies_of(self, hashes: Sequence[str]) -> list[list[str]]:
        """Returns `copies` of several hashes: one list of ids for each."""
        return self._with_view(lambda view: view.copies(hashes))

    def duplicates(self, min_score: float | None = None, *, progress: Progress | None = None) -> list[tuple[str, ...]]:
        """Finds groups of items that show the same image.

        Parameters
        ----------
        min_score : float, optional
            The smallest cosine of two near duplicates, above 0 and up to 1. Groups are the connected components of all such
            pairs. By default only files with equal bytes are duplicates.
        progress : callable, optional
            Called with the number of items that were compared since the last call.

        Returns
        -------
        list of tuple of str
            The ids of each group, in insertion order.

        Raises
        ------
        OptionError
            If `min_score` is not a number above 0 and up to 1.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> mm.open_gallery(mm.wardrobe.gallery_folder()).duplicates()
        []
        """
        if min_score is None:
            return self._with_view(lambda view: view.same_content())
        return self._with_view(lambda view: view.near(min_score, progress))

    def term_scores(self, composition: Composition) -> Float32:
        """Scores every item under every term of a composition. `rank` combines the scores.

        Parameters
        ----------
        composition : Composition
            t terms of dimension `dim`.

        Returns
        -------
        array of shape (t, n), float32
            Inner products of terms and items, from -1 to 1; items in insertion order.

        Raises
        ------
        GalleryError
            If the terms have another dimension.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> composition = mm.Composition(("a", "b"), gallery.vectors(gallery.ids[:2]), (0.5, 0.5))
        >>> gallery.term_scores(composition).shape
        (2, 2000)
        """
        check_composition(composition)
        return self._with_view(lambda view: search.term_scores(view, composition, view.rows))

    def approximate_term_scores(self, composition: Composition) -> Float32:
        """Computes the term scores of all items for `rank`, with errors of about 1e-7: in a large gallery, in a third of the time.

        Parameters
        ----------
        composition : Composition
            t terms of dimension `dim`.

        Returns
        -------
        array of shape (t, n), float32
            As `term_scores`, which gives the exact ones.

        Raises
        ------
        GalleryError
            If the terms have another dimension.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> composition = mm.Composition(("a", "b"), gallery.vectors(gallery.ids[:2]), (0.7, 0.3))
        >>> gallery.rank(composition, gallery.approximate_term_scores(composition)) == gallery.search(composition)
        True
        """
        check_composition(composition)
        return self._with_view(lambda view: search.term_scores(view, composition, view.rows, exact=False))

    def scores(self, vectors: Float32) -> Float32:
        """Returns the inner products of (m, dim) unit vectors with all items: (m, n) float32, items in insertion order."""
        return self._with_view(lambda view: view.scores(vectors, view.rows))

    @property
    def spread(self) -> Spread:
        """The mean and the covariance of the vectors; in a large gallery, of an evenly spaced sample."""
        return self._with_view(lambda view: view.spread)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the fields use for the items: of the chosen fields, otherwise detected automatically.

        Detection reads the fields of at most 20,000 items, evenly spaced. The result is reused while the gallery has the same
        fields and its size changes by at most 10 %. None if no field contains words. Reading it writes nothing.
        """
        return self._gallery_vocabulary.vocabulary

    @property
    def vocabulary_fields(self) -> tuple[str, ...]:
        """The fields that were chosen for the vocabulary; empty if it was detected automatically or there is none."""
        return self._gallery_vocabulary.fields

    @property
    def _gallery_vocabulary(self) -> GalleryVocabulary:
        return self._with_view(lambda view: view.vocabulary)

    @checks_keywords
    def search(
        self,
        composition: Composition | ArrayLike,
        k: int = DEFAULT_K,
        *,
        exclude: Collection[str] = (),
        where: Where | None = None,
        min_score: float | None = None,
    ) -> Ranking:
        """Finds the k best items under the score rule of a composition.

        A linear rule is one search of the index. Another rule scores every item of a gallery of up to 500,000 items; in a larger
        one it scores the 2,000 best candidates of each term, and the note of the ranking says so. Items with equal scores stay in
        insertion order.

        Parameters
        ----------
        composition : Composition or array of shape (dim,)
            Terms of dimension `dim`, their weights and the score rule; or one vector of any length, whose scores are cosines.
        k : int, default=10
            The number of hits, at least 1. There are fewer if fewer items match.
        exclude : collection of str, optional
            Ids of items that must not appear.
        where : str, mapping or Expression, optional
            A filter over the fields: SQL such as ``"price < 20 AND colour = 'red'"``; a mapping of fields to a value, to a list of
            values or to None for no value, such as ``{"colour": "red"}``; an `Expression` of `mmretrieve.filters`, or its JSON form.
        min_score : float, optional
            The lowest score of a hit.

        Returns
        -------
        Ranking
            At most k hits, best first.

        Raises
        ------
        OptionError
            If k is less than 1, `where` is not a valid filter, the weighted terms cancel, all weights are 0, or `composition` is
            neither a composition nor a vector.
        VectorError
            If a vector has another dimension, is zero or is not finite.
        GalleryError
            If an id in `exclude` is unknown, or the terms have another dimension.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> composition = mm.Composition(("image",), gallery.vectors(["beige-checked-coat-0051.png"]), (1.0,))
        >>> ranking = gallery.search(composition, k=3, where="colour = 'beige'")
        >>> ranking[0].id, round(ranking[0].score, 3), len(ranking)
        ('beige-checked-coat-0051.png', 1.0, 3)
        >>> gallery.search(gallery.vectors()[50], k=1).ids == (gallery.ids[50],)
        True
        """
        query, options = as_composition(composition, self.dim), SearchOptions(k, exclude, min_score, read_filter(where))
        return self._found([self._with_view(lambda view: search.search(view, query, options))])[0]

    def search_many(self, compositions: Sequence[Composition], options: Sequence[SearchOptions]) -> list[Ranking]:
        """Searches for several compositions. The rankings are those of `search`; linear ones share one search of the index.

        Parameters
        ----------
        compositions : sequence of Composition
            The q queries.
        options : sequence of SearchOptions
            k, `exclude`, `min_score` and `where` (an Expression) of each query.

        Returns
        -------
        list of Ranking
            q rankings, in the order of the queries.

        Raises
        ------
        OptionError, GalleryError
            As `search` raises them.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> from mmretrieve.gallery.view import SearchOptions
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> queries = [mm.Composition(("image",), gallery.vectors([id_]), (1.0,)) for id_ in gallery.ids[:2]]
        >>> rankings = gallery.search_many(queries, [SearchOptions(k=1)] * 2)
        >>> [ranking[0].id for ranking in rankings] == list(gallery.ids[:2])
        True
        """
        return self._found(self._with_view(lambda view: search.search_many(view, compositions, options)))

    def rank(
        self,
        composition: Composition,
        scores_tn: Float32,
        options: SearchOptions = SearchOptions(),  # noqa: B008 - immutable
    ) -> Ranking:
        """Combines the term scores of all items into a ranking, without a search. It equals the ranking of `search`.

        Parameters
        ----------
        composition : Composition
            t terms, with any weights and rule.
        scores_tn : array of shape (t, n), float32
            What `term_scores` or `approximate_term_scores` returns for the same terms. The exact scores of the best items decide.
        options : SearchOptions, optional
            k, `exclude`, `min_score` and `where` (an Expression). By default the ten best of all items.

        Returns
        -------
        Ranking
            At most k hits, best first.

        Raises
        ------
        GalleryError
            If the shape of the scores does not fit the terms and the items, or an id is unknown.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> composition = mm.Composition(("a", "b"), gallery.vectors(gallery.ids[:2]), (0.7, 0.3))
        >>> gallery.rank(composition, gallery.term_scores(composition)) == gallery.search(composition)
        True
        """
        return self._found([self._with_view(lambda view: search.rank(view, composition, scores_tn, view.rows, options))])[0]

    def _found(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """The rankings, which know this gallery, so that they can show themselves."""
        return [replace(ranking, gallery=self) for ranking in rankings]

    def fields_near(self, vectors: Float32, n: int) -> list[list[Mapping[str, Value]]]:
        """Returns the fields of the items nearest to each vector, without items that are the same picture.

        Parameters
        ----------
        vectors : array of shape (q, dim), float32
            Unit rows, such as those of reference images.
        n : int
            The number of items for each, at least 1.

        Returns
        -------
        list of list of mapping
            For each vector the fields of at most n items, nearest first.

        Raises
        ------
        GalleryError
            If the vectors have another dimension.

        Examples
        --------
        >>> import mmretrieve as mm
        >>> gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
        >>> (near,) = gallery.fields_near(gallery.vectors(["beige-checked-coat-0051.png"]), 2)
        >>> [fields["kind"] for fields in near]
        ['coat', 'coat']
        """
        queries = [Composition((Term.IMAGE,), vector[None], (1.0,)) for vector in vectors]
        rankings = self.search_many(queries, [SearchOptions(n + 1)] * len(queries))
        ids_of_each = [[hit.id for hit in ranking if hit.score < SAME_PICTURE][:n] for ranking in rankings]
        items = iter(self.items([id_ for ids in ids_of_each for id_ in ids]))
        return [[item.fields for item in islice(items, len(ids))] for ids in ids_of_each]

    def _with_view(self, read: Callable[[View], T]) -> T:
        """Calls `read` with the current view; with a new one if another process has compacted the gallery."""
        for _ in range(MAX_REFRESHES):
            try:
                return read(self._view)
            except StaleViewError:
                self.refresh()
        return read(self._view)
