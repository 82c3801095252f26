"""Every way that a server can fail, told in one line, and never with a password in it."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.milvus.address import TOKEN, MilvusAddress

SAID = 400  # characters of what a server says: some repeat the whole of a long request
UNKNOWN_COLLECTION, NOT_LOADED, NO_CONNECTION = 100, 101, 2  # of Milvus' own codes


class MilvusUnavailableError(GalleryError):
    """The server does not answer. What it has stored is not touched by that."""


class MilvusTimeoutError(MilvusUnavailableError):
    """The server is there, but does not answer in time."""


class CollectionNotFoundError(GalleryError):
    """The server answers, and has no such collection."""


class CollectionNotLoadedError(GalleryError):
    """The collection is there, but not in the server's memory: after a restart, say."""


def failure(address: MilvusAddress, error: Any, status: Any) -> GalleryError:
    """The error of this library for one of `pymilvus` or of gRPC, whose status codes are `status`."""
    cause = error if callable(error.code) else error.__cause__
    state = cause.code() if callable(getattr(cause, "code", None)) else None
    said = shorten(str(getattr(error, "message", None) or error.details()), SAID, placeholder=" …")
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
