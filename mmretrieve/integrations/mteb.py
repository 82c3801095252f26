"""Composed image retrieval behind `mteb.evaluate`: any method of this library on mteb's tasks with images in the corpus."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

from mteb.models.model_meta import ModelMeta

from mmretrieve.composers import Parts
from mmretrieve.encoders.base import Encoder
from mmretrieve.encoders.loading import as_encoder, load_encoder
from mmretrieve.errors import OptionError
from mmretrieve.gallery.gallery import Gallery
from mmretrieve.options import BUILT_IN
from mmretrieve.retriever import Retriever

QUERIES_AT_ONCE = 64  # whose images are decoded


class MtebModel:
    """A model for `mteb.evaluate` that answers queries of an image and a text with a composed query.

    It implements mteb's `SearchProtocol`. A query without an image or without a text is searched with what it has.

    Parameters
    ----------
    encoder : str or Encoder, default="wardrobe"
        A name for `load_encoder`, or an encoder.
    parts : Parts, optional
        What composers are built of besides.
    **options : Any
        Keywords of `Retriever.search`: `composer`, `weights`, the parameters of PDV, and others.

    Raises
    ------
    OptionError
        The corpus of a task has no images, or the task ranks given candidates.

    Source
    ------
    mteb 2 (arXiv 2210.07316), `mteb.models.models_protocols.SearchProtocol`

    Examples
    --------
    >>> model = MtebModel("wardrobe", composer="sum")
    >>> model.mteb_model_meta.name
    'mmretrieve/wardrobe-composer-sum'
    """

    def __init__(self, encoder: str | Encoder = BUILT_IN, *, parts: Parts | None = None, **options: Any) -> None:
        self.encoder = load_encoder(encoder) if isinstance(encoder, str) else as_encoder(encoder)
        self._parts, self._options = parts, options

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The name, the encoder's hash as revision, and the modalities, for mteb's results."""
        identity = self.encoder.identity
        words = [identity.model, *(f"{name}-{value}" for name, value in self._options.items())]
        name = "".join(each if each.isalnum() or each in "-._" else "-" for each in "-".join(words))
        known = {"name": f"mmretrieve/{name}", "revision": identity.weights, "modalities": ["image", "text"]}
        return ModelMeta.create_empty(known | {"framework": ["PyTorch"], "embed_dim": self.encoder.dim})

    def index(self, corpus: Any, **_: Any) -> None:
        """Encodes the images of a corpus, a `datasets.Dataset` with the columns id and image."""
        if "image" not in corpus.column_names:
            raise OptionError(f"a corpus needs the column 'image', and this one has only: {', '.join(corpus.column_names)}")
        self._folder = TemporaryDirectory(prefix="mmretrieve-mteb-")
        vectors = self.encoder.encode_images(row["image"] for row in corpus)
        gallery = Gallery.from_vectors(f"{self._folder.name}/gallery", corpus["id"], vectors, encoder=self.encoder)
        self._retriever = Retriever(gallery, self.encoder, parts=self._parts)

    def search(self, queries: Any, *, top_k: int, top_ranked: Any = None, **_: Any) -> dict[str, dict[str, float]]:
        """Query id → id of the corpus → score, of the best `top_k`."""
        if top_ranked is not None:
            raise OptionError("this task ranks given candidates, which mmretrieve does not; choose a retrieval task")
        k = min(top_k, len(self._retriever.gallery))
        results: dict[str, dict[str, float]] = {}
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            rows = [queries[i] for i in range(start, min(start + QUERIES_AT_ONCE, len(queries)))]
            rankings = self._retriever.search_many([self._request(row) | {"k": k} for row in rows])
            results |= {row["id"]: {hit.id: hit.score for hit in ranking} for row, ranking in zip(rows, rankings, strict=True)}
        return results

    def _request(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"image": row.get("image"), "prompt": row.get("text") or None} | self._options
