"""A gallery as a retriever of LlamaIndex."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

from mmretrieve.integrations.hits import described
from mmretrieve.retriever import Retriever


class LlamaIndexRetriever(BaseRetriever):
    """Image nodes for a prompt, a reference image, or both: `retrieve(QueryBundle("in red", image_path="dress.jpg"))`.

    The text of a node is the title of its item; the metadata are its fields, id, title, path, score
    and contributions; a field with one of these names is called "field NAME".

    Parameters
    ----------
    retriever : Retriever
        Searches the gallery.
    **options : Any
        Keywords of `Retriever.search`, such as `k`.

    Raises
    ------
    OptionError
        A keyword is unknown or wrong, when it retrieves.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> retriever = LlamaIndexRetriever(mm.Retriever.open(mm.wardrobe.gallery_folder()), k=3)
    >>> [node.metadata["colour"] for node in retriever.retrieve("a red dress")]
    ['red', 'red', 'red']
    """

    def __init__(self, retriever: Retriever, **options: Any) -> None:
        self._retriever, self._options = retriever, options
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = {"prompt": query_bundle.query_str or None, "image": query_bundle.image_path}
        ranking = self._retriever.search(**query | self._options)
        return [
            NodeWithScore(node=ImageNode(id_=hit.id, text=title, image_path=hit.path, metadata=metadata), score=hit.score)
            for hit, title, metadata in described(self._retriever, ranking)
        ]
