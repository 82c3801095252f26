"""Which index types a server supports. A server may accept a name that it does not support and report success."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt

from mmretrieve.errors import OptionError
from mmretrieve.options import OptionEnum

METRIC = "COSINE"
MAX_LISTS = 65_536  # of IVF


class ServerKind(OptionEnum):
    """The kind of server. Lite is one process for tests; Milvus is standalone or a cluster; Zilliz chooses the index itself."""

    LITE = "milvus-lite"
    MILVUS = "Milvus"
    ZILLIZ = "Zilliz Cloud"


class MilvusIndexName(OptionEnum):
    """The index types that are known to work on some server."""

    FLAT = "FLAT"
    IVF_FLAT = "IVF_FLAT"
    IVF_SQ8 = "IVF_SQ8"
    IVF_RABITQ = "IVF_RABITQ"
    HNSW = "HNSW"
    SCANN = "SCANN"
    DISKANN = "DISKANN"
    AUTOINDEX = "AUTOINDEX"


IVF_INDEXES = frozenset({MilvusIndexName.IVF_FLAT, MilvusIndexName.IVF_SQ8, MilvusIndexName.IVF_RABITQ, MilvusIndexName.SCANN})
LITE_INDEXES = (MilvusIndexName.FLAT, MilvusIndexName.IVF_FLAT, MilvusIndexName.IVF_SQ8, MilvusIndexName.HNSW)
FIRST_VERSION = {  # the first version of Milvus with each, for the metric used here
    MilvusIndexName.FLAT: (2, 3),
    MilvusIndexName.IVF_FLAT: (2, 3),
    MilvusIndexName.IVF_SQ8: (2, 3),
    MilvusIndexName.HNSW: (2, 3),
    MilvusIndexName.SCANN: (2, 3),
    MilvusIndexName.AUTOINDEX: (2, 3),
    MilvusIndexName.DISKANN: (2, 3),
    MilvusIndexName.IVF_RABITQ: (2, 6),
}


@dataclass(frozen=True)
class ServerVersion:
    """The kind and the version of a server, and its version text."""

    kind: ServerKind
    number: tuple[int, int]
    text: str

    @classmethod
    def read(cls, text: str, kind: ServerKind | None = None) -> ServerVersion:
        """`"milvus_lite-3.2.2"` is Lite, `"v2.5.4"` Milvus. A version without numbers counts as the oldest."""
        match = re.search(r"(\d+)\.(\d+)", text)
        number = (int(match[1]), int(match[2])) if match else (0, 0)
        return cls(kind or (ServerKind.LITE if "lite" in text.lower() else ServerKind.MILVUS), number, text)

    @property
    def indexes(self) -> tuple[MilvusIndexName, ...]:
        """The index types of the server, the default first."""
        if self.kind is ServerKind.LITE:
            return LITE_INDEXES
        if self.kind is ServerKind.ZILLIZ:
            return (MilvusIndexName.AUTOINDEX,)
        return tuple(name for name, version in FIRST_VERSION.items() if version <= self.number) or (MilvusIndexName.FLAT,)

    def check(self, index: MilvusIndexName | str) -> MilvusIndexName:
        """Returns the index of that name. Raises OptionError, with all names, if the server does not have it."""
        name = str(index).upper()
        if name not in self.indexes:
            choices = ", ".join(self.indexes)
            raise OptionError(
                f"{self.kind} ({self.text}) has no index {str(index)!r} that is known to work; choose from: {choices}"
            )
        return MilvusIndexName(name)


def build_parameters(index: MilvusIndexName, items: int) -> dict[str, int]:
    """Returns the build parameters of an index for a number of items."""
    if index in IVF_INDEXES:
        return {"nlist": max(1, min(MAX_LISTS, int(4 * sqrt(items))))}
    return {"M": 16, "efConstruction": 200} if index is MilvusIndexName.HNSW else {}


def search_parameters(index: str, k: int) -> dict[str, int]:
    """Returns the search parameters of an index for k items."""
    if index in IVF_INDEXES:
        return {"nprobe": 64}
    if index == MilvusIndexName.HNSW:
        return {"ef": max(128, 2 * k)}
    return {"search_list": max(100, 2 * k)} if index == MilvusIndexName.DISKANN else {}
