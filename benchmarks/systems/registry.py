"""The systems by name, what each needs installed, and where its class is."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import version_of
from benchmarks.systems.base import System


class Entry(NamedTuple):
    """The module to import and the distribution it belongs to; module and class of the system."""

    package: str
    distribution: str
    home: str

    @property
    def is_installed(self) -> bool:
        return find_spec(self.package) is not None

    @property
    def version(self) -> str:
        return version_of(self.distribution) or "of the checkout"


SYSTEMS = {
    "mmretrieve": Entry("mmretrieve", "mmretrieve", "gallery:GallerySystem"),
    "FAISS flat": Entry("faiss", "faiss-gpu", "faiss_index:Flat"),
    "FAISS IVF": Entry("faiss", "faiss-gpu", "faiss_index:Cells"),
    "FAISS HNSW": Entry("faiss", "faiss-gpu", "faiss_index:Graph"),
    "autofaiss": Entry("autofaiss", "autofaiss", "autofaiss_index:AutofaissSystem"),
    "hnswlib": Entry("hnswlib", "hnswlib", "hnswlib_index:HnswlibSystem"),
    "usearch": Entry("usearch", "usearch", "usearch_index:UsearchSystem"),
    "LanceDB IVF_PQ": Entry("lancedb", "lancedb", "lance:LanceSystem"),
    "LanceDB HNSW_SQ": Entry("lancedb", "lancedb", "lance:LanceGraphSystem"),
    "milvus-lite": Entry("milvus_lite", "milvus-lite", "milvus:MilvusSystem"),
}


def make_system(name: str, folder: Path) -> System:
    module, _, class_name = SYSTEMS[name].home.partition(":")
    system: System = getattr(import_module(f"benchmarks.systems.{module}"), class_name)(folder)
    return system
