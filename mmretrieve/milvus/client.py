"""One collection of a Milvus server, through `pymilvus`; every error becomes one line, without a password.

The client connects at the first call. No call waits longer than its timeout, and a server that was restarted is found again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from threading import Lock
from typing import Any, cast

import numpy as np

from mmretrieve.errors import GalleryError
from mmretrieve.filters.milvus import GIVEN
from mmretrieve.gallery.view import Rows
from mmretrieve.milvus.address import TOKEN, MilvusAddress
from mmretrieve.milvus.indexes import METRIC, ServerKind, ServerVersion
from mmretrieve.vectors import Float32

ROW, ID, HASH, ITEM, VECTOR = "row", "id", "hash", "item", "vector"
MANIFEST = "mmretrieve"  # the property with the manifest of a collection
MAX_TEXT_BYTES = 65_535  # the longest text of a Milvus column
MAX_FIELDS = 4_096  # of one item
CONNECT_SECONDS, CALL_SECONDS, LOAD_SECONDS = 5.0, 15.0, 600.0
MAX_PAGE_SIZE = 16_384  # the most rows that a server returns at once
MAX_MESSAGE_LENGTH = 400  # of a message of the server, which may repeat a long request
UNKNOWN_COLLECTION, NOT_LOADED, NO_CONNECTION = 100, 101, 2  # of Milvus' own codes
# reconnect at once, not after the minutes that gRPC waits by default
CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 500,
    "grpc.keepalive_time_ms": 300_000,  # servers close connections with more frequent pings
}


class MilvusUnavailableError(GalleryError):
    """The server does not answer. Its data is not affected."""


class MilvusTimeoutError(MilvusUnavailableError):
    """The server does not answer in time."""


class CollectionNotFoundError(GalleryError):
    """The server has no such collection."""


class CollectionNotLoadedError(GalleryError):
    """The collection is not in the memory of the server, for example after a restart."""


@dataclass(frozen=True)
class ScoredRows:
    """Rows that a search proposes, best first, with the scores of the server."""

    rows: Rows
    scores: Float32


class MilvusClient:
    """Every method raises MilvusUnavailableError if the server does not answer, and GalleryError with its message if it refuses."""

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address
        self._lock, self._client = Lock(), cast(Any, None)

    def version(self) -> ServerVersion:
        """Returns the version of the server."""
        version = str(self._call("get_server_version"))
        hosted = self._connect().get_server_type() != "milvus"
        return ServerVersion.read(version, ServerKind.ZILLIZ if hosted else None)

    def create(self, dim: int, manifest: str, index: str, parameters: Mapping[str, int]) -> None:
        """Creates an empty collection for vectors of `dim`. Raises GalleryError if it exists."""
        kinds, schema = _pymilvus().DataType, _pymilvus().MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field(ROW, kinds.INT64, is_primary=True)
        for name in (ID, HASH, ITEM):
            schema.add_field(name, kinds.VARCHAR, max_length=MAX_TEXT_BYTES)
        schema.add_field(GIVEN, kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=MAX_FIELDS, max_length=MAX_TEXT_BYTES)
        schema.add_field(VECTOR, kinds.FLOAT_VECTOR, dim=dim)
        indexes = _index(index, parameters)
        for name in (ID, HASH):
            indexes.add_index(name, index_type="INVERTED")
        self._call(
            "create_collection",
            self.address.collection,
            schema=schema,
            index_params=indexes,
            properties={MANIFEST: manifest},
            consistency_level="Strong",
        )

    def manifest(self) -> str | None:
        """Returns the manifest as text; None if the collection is not a gallery. Raises CollectionNotFoundError."""
        description = self._call("describe_collection", self.address.collection)
        return None if description is None else (description.get("properties") or {}).get(MANIFEST)

    def set_manifest(self, manifest: str) -> None:
        self._call("alter_collection_properties", self.address.collection, {MANIFEST: manifest})

    def index(self) -> str:
        """Returns the type of the index over the vectors."""
        description = self._call("describe_index", self.address.collection, VECTOR) or {}
        return str(description.get("index_type", "FLAT"))

    def set_index(self, index: str, parameters: Mapping[str, int]) -> None:
        name = self.address.collection
        self._call("release_collection", name)
        self._call("drop_index", name, VECTOR)
        self._call("create_index", name, _index(index, parameters), seconds=LOAD_SECONDS)
        self.load()

    def load(self) -> None:
        self._call("load_collection", self.address.collection, seconds=LOAD_SECONDS)

    def count(self, where: str = "") -> int:
        (row,) = self._call("query", self.address.collection, filter=where, output_fields=["count(*)"])
        return int(row["count(*)"])

    def get(self, where: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Returns columns of the rows that match an expression, at most MAX_PAGE_SIZE of them, in no order."""
        rows = self._call("query", self.address.collection, filter=where, output_fields=list(names), limit=MAX_PAGE_SIZE)
        return [dict(row) for row in rows]

    def rows(self, where: str = "") -> Rows:
        """Returns (m,) rows that match an expression, in order."""
        rows = [row[ROW] for page in self.pages([ROW], where) for row in page]
        return np.sort(np.array(rows, dtype=np.int64))

    def pages(self, names: Sequence[str], where: str = "", size: int = MAX_PAGE_SIZE) -> Iterator[list[dict[str, Any]]]:
        """Yields columns of all rows that match an expression, a page at a time."""
        pages = self._call("query_iterator", self.address.collection, batch_size=size, filter=where, output_fields=list(names))
        while page := self._translate_errors(pages.next):
            yield [dict(row) for row in page]
        self._translate_errors(pages.close)

    def search(self, query_d: Float32, k: int, where: str, parameters: Mapping[str, int]) -> ScoredRows:
        """Returns the k best rows of a query among those that match an expression."""
        (hits,) = self._call(
            "search",
            self.address.collection,
            data=[query_d.tolist()],
            anns_field=VECTOR,
            limit=k,
            filter=where,
            output_fields=[ROW],
            search_params={"metric_type": METRIC, "params": dict(parameters)},
        )
        rows = np.array([hit[ROW] for hit in hits], dtype=np.int64)
        return ScoredRows(rows, np.array([hit["distance"] for hit in hits], dtype=np.float32))

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes whole rows and replaces those with the same numbers. Writing twice has the effect of writing once."""
        self._call("upsert", self.address.collection, [dict(row) for row in rows])

    def delete_rows(self, rows: Sequence[int]) -> None:
        self._call("delete", self.address.collection, filter=f"{ROW} in {list(rows)}")

    def remove(self) -> None:
        """Drops the collection."""
        self._call("drop_collection", self.address.collection)

    def _call(self, method: str, *args: Any, seconds: float | None = None, **options: Any) -> Any:
        """Makes a call; repeats it once after loading the collection or renewing a broken connection."""

        def call() -> Any:
            return getattr(self._connect(), method)(*args, timeout=seconds or CALL_SECONDS, **options)

        try:
            return self._translate_errors(call)
        except MilvusTimeoutError:
            raise
        except MilvusUnavailableError:
            self._disconnect()
        except CollectionNotLoadedError:
            self.load()
        return self._translate_errors(call)

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                address, options = self.address, {"dedicated": True, "grpc_options": CHANNEL}
                self._client = _pymilvus().MilvusClient(
                    address.uri, token=address.token, db_name=address.database, timeout=CONNECT_SECONDS, **options
                )
            return self._client

    def _disconnect(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _translate_errors(self, call: Callable[[], Any]) -> Any:
        """Makes a call and turns errors of pymilvus and gRPC into those of this library."""
        import grpc

        try:
            return call()
        except (_pymilvus().MilvusException, grpc.RpcError) as error:
            raise failure(self.address, error, grpc.StatusCode) from error


def failure(address: MilvusAddress, error: Any, status: Any) -> GalleryError:
    """Returns the error of this library for one of `pymilvus` or gRPC, whose status codes are `status`."""
    cause = error if callable(error.code) else error.__cause__
    state = cause.code() if callable(getattr(cause, "code", None)) else None
    message = shorten(str(getattr(error, "message", None) or error.details()), MAX_MESSAGE_LENGTH, placeholder=" ...")
    if state in (status.UNAUTHENTICATED, status.PERMISSION_DENIED) or "auth check failure" in message:
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
    return (CollectionNotLoadedError if error.code == NOT_LOADED else GalleryError)(f"{address}: {message}")


def _index(index: str, parameters: Mapping[str, int]) -> Any:
    indexes = _pymilvus().MilvusClient.prepare_index_params()
    indexes.add_index(VECTOR, index_type=index, metric_type=METRIC, params=dict(parameters))
    return indexes


def _pymilvus() -> Any:
    """Imports the package at first use and disables its logging, which writes tracebacks of errors that are reported anyway."""
    try:
        import pymilvus
    except ImportError as error:
        raise GalleryError("a gallery on a Milvus server needs pymilvus: pip install 'mmretrieve[milvus]'") from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus
