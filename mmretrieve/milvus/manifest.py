"""The manifest of a collection, stored as JSON in one of its properties."""

from __future__ import annotations

import json
from dataclasses import replace

from mmretrieve.errors import GalleryError
from mmretrieve.filters.expression import fold_case
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.milvus.client import CollectionNotFoundError, MilvusClient
from mmretrieve.milvus.indexes import MilvusIndexName, build_parameters
from mmretrieve.options import load_json

FORMAT = 1


def to_text(manifest: Manifest) -> str:
    return json.dumps({**manifest.to_dict(), "format": FORMAT}, ensure_ascii=False)


def from_text(text: str | None, location: object) -> Manifest:
    """Parses a manifest. Raises GalleryError, with the address, if the collection is not a gallery or has another format."""
    if text is None:
        raise GalleryError(
            f"{location}: this collection is not a gallery of mmretrieve; name another, `mmretrieve push` makes it"
        )
    try:
        data = load_json(text)
        format_ = data["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"{location}: the manifest cannot be read ({error})") from error
    if format_ != FORMAT:
        raise GalleryError(f"{location}: gallery format {format_}, this version reads format {FORMAT}; push it again")
    return Manifest.from_dict(data, location)


def read_manifest(server: MilvusClient) -> Manifest:
    """Reads the manifest of a collection. Raises CollectionNotFoundError, and GalleryError as `from_text` does."""
    return from_text(server.manifest(), server.address)


def open_collection(server: MilvusClient, view: LocalView, index: MilvusIndexName | str | None) -> Manifest:
    """Returns the manifest of the collection to which a gallery is pushed; creates the collection if there is none.

    Raises GalleryError if another encoder or decoding made it, OptionError for an index that the server does not have.
    """
    version = server.version()
    name = version.check(version.indexes[0] if index is None else index)
    try:
        existing = read_manifest(server)
    except CollectionNotFoundError:
        empty = replace(view.manifest, fields={}, vocabulary=None, title_field=None)
        server.create(empty.dim, to_text(empty), name, build_parameters(name, len(view)))
        server.load()
        return empty
    existing.check_same_vectors(server.address, view.manifest, view.name)
    server.load()
    if index is not None and server.index() != name:
        server.set_index(name, build_parameters(name, len(view)))
    return existing


def add_choices(server: MilvusClient, manifest: Manifest, pushed: Manifest) -> Manifest:
    """Adds the chosen vocabulary, the title field and the fields of a pushed gallery to the manifest of the collection, before any item has them.

    Raises GalleryError for a field that has another type there.
    """
    fields = dict(manifest.fields)
    for name, kind in pushed.fields.items():
        there = next((field for field in fields if fold_case(field) == fold_case(name)), name)
        if fields.setdefault(there, kind) is not kind:
            raise GalleryError(
                f"{server.address}: field {there!r} holds {fields[there]}s in the collection, but {kind}s in the folder"
            )
    vocabulary, title_field = pushed.vocabulary or manifest.vocabulary, pushed.title_field or manifest.title_field
    updated = replace(manifest, fields=fields, vocabulary=vocabulary, title_field=title_field)
    if updated != manifest:
        server.set_manifest(to_text(updated))
    return updated
