"""The shell's commands for a gallery that is there: what it holds, whether it is well, and what it needs over the years."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from mmretrieve.cli import arguments
from mmretrieve.cli.runtime import DONE, FAILED, bar, folder_named, gallery_named, load, out, tell
from mmretrieve.errors import OptionError


def info(options: argparse.Namespace) -> int:
    """Says what a gallery holds, which encoder made it, and which index serves it."""
    from mmretrieve.retriever import open_gallery

    known = open_gallery(gallery_named(options.gallery)).info()
    lines = [
        f"{name:>10}  {value if not isinstance(value, dict) else ', '.join(f'{k} {v}' for k, v in value.items())}"
        for name, value in known.items()
    ]
    out(options, "\n".join(lines), known)
    return DONE


def verify(options: argparse.Namespace) -> int:
    """Reads a gallery back and names whatever is damaged."""
    from mmretrieve.retriever import open_gallery

    gallery = open_gallery(gallery_named(options.gallery))
    problems = gallery.verify()
    tell(f"{gallery.path}/{line}" for line in problems)
    said = f"{gallery.path}: {len(gallery)} items, {'all well' if not problems else f'{len(problems)} problems'}"
    out(options, said, {"items": len(gallery), "problems": problems})
    return FAILED if problems else DONE


def delete(options: argparse.Namespace) -> int:
    """Removes items from a gallery, all or none."""
    from mmretrieve.retriever import open_gallery

    gallery = open_gallery(gallery_named(options.gallery))
    gallery.delete(options.ids)
    said = f"{gallery.path}: {len(options.ids)} deleted, {len(gallery)} items"
    out(options, said, {"deleted": len(options.ids), "items": len(gallery)})
    return DONE


def compact(options: argparse.Namespace) -> int:
    """Frees the room of deleted and replaced items; ids and order stay."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(folder_named(options.gallery))
    with bar(len(gallery), "items", options.quiet) as progress:
        gone = gallery.compact(progress.update)
    out(options, f"{gallery.path}: {gone} freed, {len(gallery)} items", {"freed": gone, "items": len(gallery)})
    return DONE


def merge(options: argparse.Namespace) -> int:
    """Copies galleries into one, which is made like the first where there is none; nothing is encoded."""
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.ingest import AddReport

    others = [Gallery.open(folder_named(name)) for name in options.others]
    gallery = Gallery.like(options.gallery, others[0])
    report = AddReport()
    with bar(sum(map(len, others)), "items", options.quiet) as progress:
        for other in others:
            report += gallery.merge(other.path, progress=progress.update)
    told = {"added": report.added, "skipped": report.skipped, "items": len(gallery)}
    out(options, f"{gallery.path}: {report.added} added, {report.skipped} skipped, {len(gallery)} items", told)
    return DONE


def duplicates(options: argparse.Namespace) -> int:
    """Prints groups of items that are the same file, or near enough; one group a line."""
    from mmretrieve.retriever import open_gallery

    gallery = open_gallery(gallery_named(options.gallery))
    with bar(len(gallery), "items", options.quiet or options.min_score is None) as progress:
        groups = gallery.duplicates(options.min_score, progress=progress.update)
    for group in groups:
        out(options, "  ".join(map(arguments.printable, group)), list(group))
    tell([f"{len(groups)} groups, {sum(map(len, groups))} items of {len(gallery)}"])
    return DONE


def build(options: argparse.Namespace) -> int:
    """Builds the index that serves searches, and tunes how hard it looks."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(folder_named(options.gallery), device="cpu")
    with bar(len(gallery), "items", options.quiet) as progress:
        made = gallery.build_index(options.index, recall=options.recall, progress=progress.update)
    out(options, f"{gallery.path}: {made['factory']}, recall@10 {made['recall']:.3f}; {made['reason']}", made)
    return DONE


def index_report(options: argparse.Namespace) -> int:
    """Measures the index with composed queries made from the gallery itself, and tunes it to a recall."""
    from mmretrieve.gallery.gallery import Gallery

    found = Gallery.open(folder_named(options.gallery), device="cpu").index_report(recall=options.recall)
    width = max(map(len, found))
    lines = (
        f"{name:>{width}}  {value:.4g}" if isinstance(value, float) else f"{name:>{width}}  {value}"
        for name, value in found.items()
    )
    out(options, "\n".join(lines), found)
    return DONE


def push(options: argparse.Namespace) -> int:
    """Copies a gallery into a collection of a Milvus server, which is made where there is none; can be repeated."""
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.milvus.gallery import push as push_to

    folder = folder_named(options.gallery)
    more = {"index": options.index, "update": options.update, "mirror": options.mirror}
    with bar(len(Gallery.open(folder, device="cpu")), "items", options.quiet) as progress:
        report = push_to(folder, options.address, **more, progress=progress.update)
    out(options, f"{options.address}: {report}", asdict(report))
    return DONE


def pull(options: argparse.Namespace) -> int:
    """Copies a collection of a Milvus server into a gallery, which is made where there is none; can be repeated."""
    from mmretrieve.milvus.gallery import pull_into
    from mmretrieve.retriever import open_gallery

    with bar(len(open_gallery(options.address)), "items", options.quiet) as progress:
        report = pull_into(options.gallery, options.address, progress=progress.update)
    out(options, f"{options.gallery}: {report}", asdict(report))
    return DONE


def export(options: argparse.Namespace) -> int:
    """Writes a gallery's vectors and what is known of them in the layout of clip-retrieval."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(folder_named(options.gallery))
    with bar(len(gallery), "items", options.quiet) as progress:
        count = gallery.export(options.folder, progress=progress.update)
    out(options, f"{options.folder}: {count} items of {gallery.path}", {"exported": count})
    return DONE


def import_(options: argparse.Namespace) -> int:
    """Adds vectors in the layout of clip-retrieval to a gallery, which is made first where there is none."""
    from mmretrieve.gallery import transfer
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.manifest import Manifest

    folder = Path(options.folder)
    total, said = transfer.count(folder), transfer.read_manifest(folder)
    if said is None or options.encoder is not None:
        if options.encoder is None:
            raise OptionError(f"{folder}: does not say which encoder made it; name it with --encoder")
        encoder = load(options, options.encoder)
        said = Manifest(encoder.identity, encoder.dim)
    gallery = Gallery.for_vectors(options.gallery, said.encoder, said.dim, said.decode, said.setting)
    gallery.check_made_by(said.encoder)
    with bar(total, "items", options.quiet) as progress:
        report = gallery.import_vectors(folder, progress=progress.update)
    told = {"added": report.added, "skipped": report.skipped, "items": len(gallery)}
    out(options, f"{gallery.path}: {report.added} added, {report.skipped} skipped, {len(gallery)} items", told)
    return DONE
