"""Retrievers of LangChain and LlamaIndex, against the real packages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import QueryBundle

import mmretrieve as mm
from mmretrieve.errors import OptionError
from mmretrieve.integrations import langchain, llama_index

REFERENCE = mm.wardrobe.pictures_folder() / "red-checked-dress-1815.png"


@pytest.fixture(scope="module")
def retriever() -> mm.Retriever:
    return mm.Retriever.open(mm.wardrobe.gallery_folder())


def expected(retriever: mm.Retriever, **query: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in retriever.search(**query)]


def test_langchain_gets_the_hits_of_a_search(retriever: mm.Retriever) -> None:
    own = langchain.LangChainRetriever(retriever=retriever, options={"k": 4})
    documents = own.invoke("in blue", image=REFERENCE, exclude_reference=True)
    hits = expected(retriever, image=REFERENCE, prompt="in blue", k=4, exclude_reference=True)
    assert [(document.id, document.metadata["score"]) for document in documents] == hits
    item = retriever.gallery.item(hits[0][0])
    assert documents[0].page_content == retriever.gallery.title(item.id, item.fields)
    assert documents[0].metadata.items() >= item.fields.items()
    assert sum(documents[0].metadata["contributions"].values()) == pytest.approx(hits[0][1], abs=1e-6)
    alone = own.invoke("", image=REFERENCE, k=2)
    assert [document.id for document in alone] == [id_ for id_, _ in expected(retriever, image=REFERENCE, k=2)]


def test_langchain_retrievers_are_runnables(retriever: mm.Retriever) -> None:
    own = langchain.LangChainRetriever(retriever=retriever, options={"k": 3})
    chain = own | RunnableLambda(lambda documents: [document.id for document in documents])
    ids = [id_ for id_, _ in expected(retriever, prompt="a red dress", k=3)]
    assert chain.invoke("a red dress") == ids == asyncio.run(chain.ainvoke("a red dress"))
    assert [all(isinstance(one, Document) for one in many) for many in own.batch(["a coat", "a top"])] == [True, True]
    with pytest.raises(OptionError, match="the query is empty"):
        own.invoke("")


def test_llama_index_gets_the_hits_of_a_search(retriever: mm.Retriever) -> None:
    own = llama_index.LlamaIndexRetriever(retriever, k=4, exclude_reference=True)
    bundle = QueryBundle("in blue", image_path=str(REFERENCE))
    hits = expected(retriever, image=REFERENCE, prompt="in blue", k=4, exclude_reference=True)
    for nodes in (own.retrieve(bundle), asyncio.run(own.aretrieve(bundle))):
        assert [(node.node.node_id, node.score) for node in nodes] == hits
    item = retriever.gallery.item(hits[0][0])
    assert nodes[0].node.metadata.items() >= item.fields.items()
    assert nodes[0].node.get_content() == retriever.gallery.title(item.id, item.fields)
    assert nodes[0].node.image_path == nodes[0].metadata["path"] == str(mm.wardrobe.pictures_folder() / item.id)
    words = llama_index.LlamaIndexRetriever(retriever, k=2).retrieve("a red dress")
    assert [node.node.node_id for node in words] == [id_ for id_, _ in expected(retriever, prompt="a red dress", k=2)]
