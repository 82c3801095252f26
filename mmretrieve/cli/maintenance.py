"""The commands that inspect and maintain an existing gallery."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmretrieve.cli.runtime import (
    DONE,
    FAILED,
    load_named_encoder,
    print_messages,
    print_report,
    print_result,
    progress_bar,
    resolve_folder,
    resolve_gallery,
)
from mmretrieve.errors import OptionError, printable
from mmretrieve.options import load_json


def info(options: argparse.Namespace) -> int:
    """Prints what a gallery holds, its encoder and its index."""
    from mmretrieve.opening import open_gallery

    entries = open_gallery(resolve_gallery(options.gallery)).info()
    print_result(options, _format_entries(entries), entries)
    return DONE


def verify(options: argparse.Namespace) -> int:
    """Reads a gallery back and lists everything that is damaged."""
    from mmretrieve.opening import open_gallery

    gallery = open_gallery(resolve_gallery(options.gallery))
    problems = gallery.verify()
    print_messages(f"{gallery.path}/{line}" for line in problems)
    text = f"{gallery.path}: {len(gallery)} items, {'no problems found' if not problems else f'{len(problems)} problems'}"
    print_result(options, text, {"items": len(gallery), "problems": problems})
    return FAILED if problems else DONE


def delete(options: argparse.Namespace) -> int:
    """Removes items from a gallery, all or none."""
    from mmretrieve.opening import open_gallery

    gallery = open_gallery(resolve_gallery(options.gallery))
    gallery.delete(options.ids)
    text = f"{gallery.path}: {len(options.ids)} deleted, {len(gallery)} items"
    print_result(options, text, {"deleted": len(options.ids), "items": len(gallery)})
    return DONE


def compact(options: argparse.Namespace) -> int:
    """Frees the space of deleted and replaced items; ids and order stay."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(resolve_folder(options.gallery))
    with progress_bar(len(gallery), "items", options.quiet) as progress:
        freed = gallery.compact(progress.update)
    print_result(options, f"{gallery.path}: {freed} freed, {len(gallery)} items", {"freed": freed, "items": len(gallery)})
    return DONE


def merge(options: argparse.Namespace) -> int:
    """Copies galleries into one, which is created like the first if there is none; nothing is encoded."""
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.ingest import AddReport

    others = [Gallery.open(resolve_folder(name)) for name in options.others]
    gallery = Gallery.like(options.gallery, others[0])
    report = AddReport()
    with progress_bar(sum(map(len, others)), "items", options.quiet) as progress:
        for other in others:
            report += gallery.merge(other.path, progress=progress.update)
    return print_report(options, gallery.path, report, len(gallery))


def duplicates(options: argparse.Namespace) -> int:
    """Prints groups of items that are the same file, or near duplicates; one group per line."""
    from mmretrieve.opening import open_gallery

    gallery = open_gallery(resolve_gallery(options.gallery))
    with progress_bar(len(gallery), "items", options.quiet or options.min_score is None) as progress:
        groups = gallery.duplicates(options.min_score, progress=progress.update)
    for group in groups:
        print_result(options, "  ".join(map(printable, group)), list(group))
    print_messages([f"groups: {len(groups)}, with {sum(map(len, groups))} of {len(gallery)} items"])
    return DONE


def build(options: argparse.Namespace) -> int:
    """Builds the index of a gallery and tunes it to a recall."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(resolve_folder(options.gallery), device="cpu")
    with progress_bar(len(gallery), "items", options.quiet) as progress:
        index = gallery.build_index(options.index, recall=options.recall, memory=options.memory, progress=progress.update)
    print_result(options, f"{gallery.path}: {index['factory']}, recall@10 {index['recall']:.3f}; {index['reason']}", index)
    return DONE


def index_report(options: argparse.Namespace) -> int:
    """Measures the index with composed queries made from the gallery itself, and tunes it to a recall."""
    from mmretrieve.gallery.gallery import Gallery

    report = Gallery.open(resolve_folder(options.gallery), device="cpu").index_report(recall=options.recall)
    print_result(options, _format_entries(report), report)
    return DONE


def push(options: argparse.Namespace) -> int:
    """Copies a gallery into a collection of a Milvus server, which is created if there is none; can be repeated."""
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.milvus.transfer import push as push_to

    folder = resolve_folder(options.gallery)
    more = {"index": options.index, "update": options.update, "mirror": options.mirror}
    with progress_bar(len(Gallery.open(folder, device="cpu")), "items", options.quiet) as progress:
        report = push_to(folder, options.address, **more, progress=progress.update)
    return print_report(options, options.address, report)


def pull(options: argparse.Namespace) -> int:
    """Copies a collection of a Milvus server into a gallery, which is created if there is none; can be repeated."""
    from mmretrieve.milvus.transfer import pull_into
    from mmretrieve.opening import open_gallery

    with progress_bar(len(open_gallery(options.address)), "items", options.quiet) as progress:
        report = pull_into(options.gallery, options.address, progress=progress.update)
    return print_report(options, options.gallery, report)


def export(options: argparse.Namespace) -> int:
    """Writes the vectors and fields of a gallery in the layout of clip-retrieval."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(resolve_folder(options.gallery))
    with progress_bar(len(gallery), "items", options.quiet) as progress:
        count = gallery.export(options.folder, progress=progress.update)
    print_result(options, f"{options.folder}: {count} items of {gallery.path}", {"exported": count})
    return DONE


def import_(options: argparse.Namespace) -> int:
    """Adds vectors in the layout of clip-retrieval to a gallery, which is created if there is none."""
    from mmretrieve.gallery import transfer
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.manifest import Manifest

    folder = Path(options.folder)
    total, manifest = transfer.count(folder), transfer.read_manifest(folder)
    if manifest is None or options.encoder is not None:
        if options.encoder is None:
            raise OptionError(f"{folder}: does not name the encoder of its vectors; name it with --encoder")
        encoder = load_named_encoder(options, options.encoder)
        manifest = Manifest(encoder.identity, encoder.dim)
    gallery = Gallery.like(options.gallery, manifest)
    gallery.check_encoder(manifest.encoder)
    with progress_bar(total, "items", options.quiet) as progress:
        report = gallery.import_vectors(folder, progress=progress.update)
    return print_report(options, gallery.path, report, len(gallery))


def _format_entries(entries: Mapping[str, Any]) -> str:
    """Names and values in two columns, nested entries a line each; without empty ones."""
    rows = [row for name, value in entries.items() for row in _entry_rows(name, value)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _entry_rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, of_key in value.items():
            yield from _entry_rows(f"{name} {key}", of_key)
    elif value not in (None, "", [], ()):
        yield printable(name), printable(_format_value(value))


def _format_value(value: Any) -> str:
    if isinstance(value, str) and value.startswith("{"):  # the preprocessing of an encoder is JSON
        with suppress(ValueError, RecursionError):
            return _format_value(load_json(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_value(of_key)}" for key, of_key in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_format_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
