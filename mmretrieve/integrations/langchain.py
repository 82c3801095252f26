"""A gallery as a retriever of LangChain."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from mmretrieve.integrations.hits import described


class LangChainRetriever(BaseRetriever):
    """Documents for a prompt, a reference image, or both: `invoke("in red", image="dress.jpg")`.

    The text of a document is the title of its item; the metadata are its fields, id, title, path, score
    and contributions; a field with one of these names is called "field NAME".

    Parameters
    ----------
    retriever : Retriever
        Searches the gallery.
    options : dict of str to Any, optional
        Keywords of `Retriever.search`, such as `k`. Those of `invoke` take precedence.

    Raises
    ------
    OptionError
        A keyword is unknown or wrong, when it is invoked.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> retriever = LangChainRetriever(retriever=mm.Retriever.open(mm.wardrobe.gallery_folder()), options={"k": 3})
    >>> [document.metadata["colour"] for document in retriever.invoke("a red dress")]
    ['red', 'red', 'red']
    """

    retriever: Any
    options: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  LangChain passes it by name
        **keywords: Any,
    ) -> list[Document]:
        ranking = self.retriever.search(**{"prompt": query or None} | self.options | keywords)
        return [Document(title, id=hit.id, metadata=metadata) for hit, title, metadata in described(self.retriever, ranking)]
