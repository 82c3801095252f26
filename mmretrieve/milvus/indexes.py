"""Which index a server may be asked for. A server that does not have one may take the name and say "Finished" all the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import sqrt

from mmretrieve.errors import OptionError
from mmretrieve.options import Choice

METRIC = "COSINE"
MAX_LISTS = 65_536  # the most that IVF may have


class ServerKind(Choice):
    """Who answers. Lite is one process for tests; Milvus is standalone or a cluster; Zilliz chooses by itself."""

    LITE = "milvus-lite"
    MILVUS = "Milvus"
    ZILLIZ = "Zilliz Cloud"


class MilvusIndexName(Choice):
    """Every index that is known to answer as it should on some server."""

    FLAT = "FLAT"
    IVF_FLAT = "IVF_FLAT"
    IVF_SQ8 = "IVF_SQ8"
    IVF_RABITQ = "IVF_RABITQ"
    HNSW = "HNSW"
    SCANN = "SCANN"
    DISKANN = "DISKANN"
    AUTOINDEX = "AUTOINDEX"


IVF = frozenset({MilvusIndexName.IVF_FLAT, MilvusIndexName.IVF_SQ8, MilvusIndexName.IVF_RABITQ, MilvusIndexName.SCANN})
LITE = (MilvusIndexName.FLAT, MilvusIndexName.IVF_FLAT, MilvusIndexName.IVF_SQ8, MilvusIndexName.HNSW)
SINCE = {  # the first version of Milvus that has each, with the metric used here
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
    """A server as it names itself."""

    kind: ServerKind
    number: tuple[int, int]
    said: str

    @classmethod
    def read(cls, said: str, kind: ServerKind | None = None) -> ServerVersion:
        """`"milvus_lite-3.2.2"` is Lite, `"v2.5.4"` Milvus; a version without numbers counts as the oldest."""
        found = re.search(r"(\d+)\.(\d+)", said)
        number = (int(found[1]), int(found[2])) if found else (0, 0)
        return cls(kind or (ServerKind.LITE if "lite" in said.lower() else ServerKind.MILVUS), number, said)

    @property
    def indexes(self) -> tuple[MilvusIndexName, ...]:
        """What it may be asked for, the default first."""
        if self.kind is ServerKind.LITE:
            return LITE
        if self.kind is ServerKind.ZILLIZ:
            return (MilvusIndexName.AUTOINDEX,)
        return tuple(name for name, since in SINCE.items() if since <= self.number) or (MilvusIndexName.FLAT,)

    def check(self, index: MilvusIndexName | str) -> MilvusIndexName:
        """The index of that name. OptionError, naming what there is, where this server does not have it."""
        name = str(index).upper()
        if name not in self.indexes:
            choices = ", ".join(self.indexes)
            raise OptionError(
                f"{self.kind} ({self.said}) has no index {str(index)!r} that is known to work; choose from: {choices}"
            )
        return MilvusIndexName(name)


def build_parameters(index: MilvusIndexName, items: int) -> dict[str, int]:
    """What an index is built with, for so many items."""
    if index in IVF:
        return {"nlist": max(1, min(MAX_LISTS, int(4 * sqrt(items))))}
    return {"M": 16, "efConstruction": 200} if index is MilvusIndexName.HNSW else {}


def search_parameters(index: str, k: int) -> dict[str, int]:
    """How hard an index looks for k items."""
    if index in IVF:
        return {"nprobe": 64}
    if index == MilvusIndexName.HNSW:
        return {"ef": max(128, 2 * k)}
    return {"search_list": max(100, 2 * k)} if index == MilvusIndexName.DISKANN else {}
