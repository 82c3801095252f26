"""One collection of one Milvus server, through `pymilvus`, and every way that it can fail, told in one line.

Nothing is asked before it is needed, nothing waits longer than its time-out, and a server that was away is found again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from threading import Lock
from typing import Any, cast

import numpy as np

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.view import Rows
from mmretrieve.milvus.address import TOKEN, MilvusAddress
from mmretrieve.milvus.indexes import METRIC, ServerKind, ServerVersion
from mmretrieve.vectors import Float32

ROW, ID, HASH, ITEM, GIVEN, VECTOR = "row", "id", "hash", "item", "given", "vector"
MANIFEST = "mmretrieve"  # the property in which a collection says what it is
MAX_TEXT_BYTES = 65_535  # the longest text that a Milvus column holds
MAX_FIELDS = 4_096  # the most fields that one item may have
CONNECT_SECONDS, CALL_SECONDS, LOAD_SECONDS = 5.0, 15.0, 600.0
MAX_PAGE_SIZE = 16_384  # the most rows that a server gives at once
MAX_MESSAGE_LENGTH = 400  # characters of what a server says: some repeat the whole of a long request
UNKNOWN_COLLECTION, NOT_LOADED, NO_CONNECTION = 100, 101, 2  # of Milvus' own codes
# a server that was away is looked for at once, not after the minutes that gRPC would wait by itself
CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 500,
    "grpc.keepalive_time_ms": 300_000,  # servers hang up on those who ping more often
}


class MilvusUnavailableError(GalleryError):
    """The server does not answer. What it has stored is not touched by that."""


class MilvusTimeoutError(MilvusUnavailableError):
    """The server is there, but does not answer in time."""


class CollectionNotFoundError(GalleryError):
    """The server answers, and has no such collection."""


class CollectionNotLoadedError(GalleryError):
    """The collection is there, but not in the server's memory: after a restart, say."""


@dataclass(frozen=True)
class ScoredRows:
    """Rows that a search proposes, best first, with the scores that the server gives them."""

    rows: Rows
    scores: Float32


class MilvusClient:
    """Every method raises MilvusUnavailableError where the server does not answer, GalleryError with its own words where it refuses."""

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address
        self._lock, self._client = Lock(), cast(Any, None)

    def version(self) -> ServerVersion:
        said = str(self._ask("get_server_version"))
        hosted = self._connected().get_server_type() != "milvus"
        return ServerVersion.read(said, ServerKind.ZILLIZ if hosted else None)

    def create(self, dim: int, manifest: str, index: str, parameters: Mapping[str, int]) -> None:
        """An empty collection for vectors of `dim`. GalleryError where there is one of that name."""
        kinds, schema = _pymilvus().DataType, _pymilvus().MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field(ROW, kinds.INT64, is_primary=True)
        for name in (ID, HASH, ITEM):
            schema.add_field(name, kinds.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field(GIVEN, kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=MAX_FIELDS, max_length=MAX_TEXT_BYTES)
        schema.add_field(VECTOR, kinds.FLOAT_VECTOR, dim=dim)
        indexes = _index(index, parameters)
        for name in (ID, HASH):
            indexes.add_index(name, index_type="INVERTED")
        more: dict[str, Any] = {
            "schema": schema,
            "index_params": indexes,
            "properties": {MANIFEST: manifest},
            "consistency_level": "Strong",
        }
        self._ask("create_collection", self.address.collection, **more)

    def manifest(self) -> str | None:
        """What the collection says that it is; None where it is not one of ours. CollectionNotFoundError where there is none."""
        told = self._ask("describe_collection", self.address.collection)
        return None if told is None else (told.get("properties") or {}).get(MANIFEST)

    def set_manifest(self, manifest: str) -> None:
        self._ask("alter_collection_properties", self.address.collection, {MANIFEST: manifest})

    def index(self) -> str:
        """The type of the index over the vectors."""
        told = self._ask("describe_index", self.address.collection, VECTOR) or {}
        return str(told.get("index_type", "FLAT"))

    def set_index(self, index: str, parameters: Mapping[str, int]) -> None:
        name = self.address.collection
        self._ask("release_collection", name)
        self._ask("drop_index", name, VECTOR)
        self._ask("create_index", name, _index(index, parameters), seconds=LOAD_SECONDS)
        self.load()

    def load(self) -> None:
        self._ask("load_collection", self.address.collection, seconds=LOAD_SECONDS)

    def count(self, where: str = "") -> int:
        (told,) = self._ask("query", self.address.collection, filter=where, output_fields=["count(*)"])
        return int(told["count(*)"])

    def get(self, where: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Those columns of the rows for which the expression holds, at most MAX_PAGE_SIZE of them, in no order."""
        found = self._ask("query", self.address.collection, filter=where, output_fields=list(names), limit=MAX_PAGE_SIZE)
        return [dict(row) for row in found]

    def rows(self, where: str = "") -> Rows:
        """(m,) all rows for which the expression holds, in order."""
        found = [row[ROW] for page in self.pages([ROW], where) for row in page]
        return np.sort(np.array(found, dtype=np.int64))

    def pages(self, names: Sequence[str], where: str = "", size: int = MAX_PAGE_SIZE) -> Iterator[list[dict[str, Any]]]:
        """Those columns of all rows for which the expression holds, some at a time."""
        more: dict[str, Any] = {"batch_size": size, "filter": where, "output_fields": list(names)}
        pages = self._ask("query_iterator", self.address.collection, **more)
        while page := self._translate_errors(pages.next):
            yield [dict(row) for row in page]
        self._translate_errors(pages.close)

    def search(self, query_d: Float32, k: int, where: str, parameters: Mapping[str, int]) -> ScoredRows:
        more: dict[str, Any] = {"anns_field": VECTOR, "limit": k, "filter": where, "output_fields": [ROW]}
        search = {"metric_type": METRIC, "params": dict(parameters)}
        (hits,) = self._ask("search", self.address.collection, data=[query_d.tolist()], search_params=search, **more)
        rows = np.array([hit[ROW] for hit in hits], dtype=np.int64)
        return ScoredRows(rows, np.array([hit["distance"] for hit in hits], dtype=np.float32))

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes whole rows, in the place of those that have their numbers: doing it twice is doing it once."""
        self._ask("upsert", self.address.collection, [dict(row) for row in rows])

    def delete_rows(self, rows: Sequence[int]) -> None:
        self._ask("delete", self.address.collection, filter=f"{ROW} in {list(rows)}")

    def remove(self) -> None:
        """The whole collection is gone."""
        self._ask("drop_collection", self.address.collection)

    def _ask(self, what: str, *given: Any, seconds: float | None = None, **more: Any) -> Any:
        """One call; once more where the collection has to be loaded first, or the connection is one that has died since."""

        def ask() -> Any:
            return getattr(self._connected(), what)(*given, timeout=seconds or CALL_SECONDS, **more)

        try:
            return self._translate_errors(ask)
        except MilvusTimeoutError:
            raise
        except MilvusUnavailableError:
            self._forget()
        except CollectionNotLoadedError:
            self.load()
        return self._translate_errors(ask)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                address, options = self.address, {"dedicated": True, "grpc_options": CHANNEL}
                self._client = _pymilvus().MilvusClient(
                    address.uri, token=address.token, db_name=address.database, timeout=CONNECT_SECONDS, **options
                )
            return self._client

    def _forget(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _translate_errors(self, ask: Any) -> Any:
        """What `ask` gives back, or what went wrong as an error of this library."""
        import grpc

        try:
            return ask()
        except (_pymilvus().MilvusException, grpc.RpcError) as error:
            raise failure(self.address, error, grpc.StatusCode) from error


def failure(address: MilvusAddress, error: Any, status: Any) -> GalleryError:
    """The error of this library for one of `pymilvus` or of gRPC, whose status codes are `status`."""
    cause = error if callable(error.code) else error.__cause__
    state = cause.code() if callable(getattr(cause, "code", None)) else None
    said = shorten(str(getattr(error, "message", None) or error.details()), MAX_MESSAGE_LENGTH, placeholder=" …")
    if state in (status.UNAUTHENTICATED, status.PERMISSION_DENIED) or "auth check failure" in said:
        return GalleryError(
            f"{address}: the server does not accept this user or token; set {TOKEN}, or name USER:PASSWORD@ in the address"
        )
    if state is status.DEADLINE_EXCEEDED:
        return MilvusTimeoutError(f"{address}: the server does not answer in time; what it has stored is safe, try again later")
    if state is status.UNAVAILABLE or error.code == NO_CONNECTION:
        return MilvusUnavailableError(
            f"{address}: the server does not answer; what it has stored is safe, try again when it is back"
        )
    if error.code == UNKNOWN_COLLECTION:
        return CollectionNotFoundError(f"{address}: the server has no such collection; `mmretrieve push` makes one")
    return (CollectionNotLoadedError if error.code == NOT_LOADED else GalleryError)(f"{address}: {said}")


def _index(index: str, parameters: Mapping[str, int]) -> Any:
    indexes = _pymilvus().MilvusClient.prepare_index_params()
    indexes.add_index(VECTOR, index_type=index, metric_type=METRIC, params=dict(parameters))
    return indexes


def _pymilvus() -> Any:
    """The package, when it is used. It writes tracebacks into the log of whatever we tell in one line: not any more."""
    try:
        import pymilvus
    except ImportError as error:
        raise GalleryError("a gallery on a Milvus server needs pymilvus: pip install 'mmretrieve[milvus]'") from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus
