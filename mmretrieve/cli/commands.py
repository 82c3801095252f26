"""The commands that fill, search and serve galleries."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve.cli import arguments, runtime
from mmretrieve.cli.runtime import (
    DONE,
    load_encoder_for,
    load_named_encoder,
    open_retriever,
    print_messages,
    print_report,
    print_result,
    progress_bar,
)
from mmretrieve.errors import OptionError, printable
from mmretrieve.inversion.recipe import PhiRecipe
from mmretrieve.options import DEFAULT_CAPTION_FIELD, DEFAULT_ENCODER, NO_MATCH, Colors, ComposerName, Decode
from mmretrieve.ranking import files
from mmretrieve.registry import COMPOSERS
from mmretrieve.request import SearchRequest

if TYPE_CHECKING:
    from mmretrieve.gallery.base import GalleryBase
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.ingest import AddReport
    from mmretrieve.ranking import Ranking
    from mmretrieve.sources.base import Source

WHOLE_FORMATS: Mapping[str, Callable[[Ranking], str]] = {
    "csv": lambda ranking: files.csv_text(ranking, ranking.fields),
    "trec": lambda ranking: ranking.to_trec("1"),
}
PART_OPTIONS = ("captioner", "rewriter", "paraphraser", "compiler", "describer", "editor", "phi", "vocabulary")


def index(options: argparse.Namespace) -> int:
    """Adds images to a gallery, which is created if there is none."""
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.ingest import Shard
    from mmretrieve.gallery.store.store import is_gallery

    if is_gallery(options.source):
        _check_no_captions(options)
        other = Gallery.open(options.source)
        with progress_bar(len(other), "items", options.quiet) as progress:
            gallery = Gallery.like(options.gallery, other)
            if options.patches:
                gallery.use_encoder(load_encoder_for(options, gallery))
            return _finish_write(options, gallery, gallery.merge(other.path, progress=progress.update))
    source, captions = _source(options), _captions(options)  # a wrong source must not leave an empty gallery behind
    gallery = _gallery_to_fill(options)
    shared = source if options.shard is None else Shard(source, *options.shard)
    with progress_bar(len(shared), "images", options.quiet) as progress:
        report = gallery.add(shared, captions=captions, update=options.update, progress=progress.update)
        return _finish_write(options, gallery, report)


def sync(options: argparse.Namespace) -> int:
    """Makes a gallery equal to its source: adds new images, replaces changed ones, deletes removed ones."""
    source, captions = _source(options), _captions(options)
    gallery = _gallery_to_fill(options)
    with progress_bar(len(source), "images", options.quiet) as progress:
        report = gallery.sync(source, captions=captions, allow_removal=options.allow_removal, progress=progress.update)
        return _finish_write(options, gallery, report)


def search(options: argparse.Namespace) -> int:
    """Prints the items that best match reference images, prompts, or both."""
    runtime.register_judge(options)
    request = SearchRequest.parse(**arguments.search_fields(options))
    _check_parts_are_used(options, request)
    if options.json and options.format in WHOLE_FORMATS:
        raise OptionError(f"--json and --format {options.format} exclude each other; leave one out")
    retriever = open_retriever(options, lazy=True)
    ranking = retriever.search_requests([request])[0]
    if options.format in WHOLE_FORMATS:
        print(WHOLE_FORMATS[options.format](ranking), end="")
        print_messages(_ranking_messages(ranking, as_json=False), prefix="note")
    else:
        _print_hits(ranking, retriever.gallery, as_json=options.json or options.format == "json")
    return DONE


def serve(options: argparse.Namespace) -> int:
    """Serves a gallery to programs (JSON under /api) and to agents (MCP at /mcp, or over stdin and stdout)."""
    return runtime.serve_stdio(options) if options.stdio else runtime.serve(options)


def train_phi(options: argparse.Namespace) -> int:
    """Trains a phi for an encoder from captions only (LinCIR); an interrupted training can be resumed."""
    from mmretrieve.encoders.openclip import require_open_clip
    from mmretrieve.inversion import train

    recipe = PhiRecipe(**arguments.given_fields(options, PhiRecipe))
    captions = train.read_captions(options.captions)
    with progress_bar(recipe.steps, "steps", options.quiet) as progress:

        def report(point: train.ValidationPoint) -> None:
            progress.update(point.step - progress.n)
            progress.set_postfix(training=f"{point.training:.4f}", validation=f"{point.validation:.4f}")

        encoder = require_open_clip(load_named_encoder(options, options.encoder), "train-phi")
        best = train.train_phi(captions, encoder, options.out, recipe, report=report)
    print_result(
        options,
        f"{options.out}: validation loss {best.validation:.4f}, at step {best.step}",
        {"phi": str(options.out), "step": best.step, "validation": best.validation},
    )
    return DONE


def _source(options: argparse.Namespace) -> Source:
    from mmretrieve.sources import Columns, read_source

    return read_source(options.source, Columns(image=options.image_column, id=options.id_column), exclude=options.exclude)


def _captions(options: argparse.Namespace) -> dict[str, str] | None:
    """The captions of the file; None if none is named."""
    from mmretrieve.gallery.captions import read_captions

    if options.captions is not None:
        return read_captions(options.captions, id_field=options.id_field, caption_field=options.caption_field)
    if options.id_field is not None:
        raise OptionError("--id-field names a field of the file of --captions, and there is none; leave it out")
    return None


def _check_no_captions(options: argparse.Namespace) -> None:
    """Raises OptionError for captions of a gallery that is merged."""
    given = [name for name in ("captions", "caption_field", "caption_weight", "id_field") if getattr(options, name) is not None]
    if given:
        raise OptionError(
            f"{options.source}: vectors of another gallery are copied as they are; leave out --{given[0].replace('_', '-')}"
        )


def _gallery_to_fill(options: argparse.Namespace) -> Gallery:
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.store.store import is_gallery

    folder, field = Path(options.gallery), options.caption_field
    if not is_gallery(folder):
        encoder = load_named_encoder(options, options.encoder or DEFAULT_ENCODER)
        decode, colors = options.decode or Decode.EXACT, options.colors or Colors.SRGB
        if options.captions is not None and field is None:
            field = DEFAULT_CAPTION_FIELD
        weight = options.caption_weight
        return Gallery.create(folder, encoder=encoder, decode=decode, colors=colors, caption_field=field, caption_weight=weight)
    existing = Gallery.open(folder)
    blend, weight = existing.manifest.captions, options.caption_weight
    if blend is None and weight is None and (options.captions is not None or field is not None):
        raise OptionError(f"{folder}: captions have no weight in this gallery; leave them out, or index into a new gallery")
    for name, given, made_with in (
        ("decode", options.decode, existing.decode),
        ("colors", options.colors, existing.colors),
        ("caption-weight", weight, 0 if blend is None else blend.weight),
        ("caption-field", field, field if blend is None else blend.field),
    ):
        if given not in (None, made_with):
            raise OptionError(
                f"{folder}: this gallery was made with --{name} {made_with!s}; leave out --{name}, or index into a new gallery"
            )
    existing.use_encoder(load_encoder_for(options, existing))
    return existing


def _finish_write(options: argparse.Namespace, gallery: Gallery, report: AddReport) -> int:
    """Prints the report; stores the vocabulary, the title field and patches. Raises OptionError, after all was added, for an unknown field."""
    status = print_report(options, gallery.path, report, len(gallery))
    if options.vocabulary_fields is None:
        gallery.renew_vocabulary()
    else:
        gallery.choose_vocabulary(options.vocabulary_fields)
    if options.title_field is not None:
        gallery.choose_title_field(options.title_field)
    if options.patches:
        with progress_bar(len(gallery), "patches", options.quiet) as progress:
            stored = gallery.store_patches(progress=progress.update)
        print_messages([f"{gallery.path}: patches of images: {stored}"])
    return status


def _check_parts_are_used(options: argparse.Namespace, request: SearchRequest) -> None:
    """Raises OptionError for parts that were given and that this search does not use."""
    given = [part for part in PART_OPTIONS if getattr(options, part) is not None]
    unused = [part for part in given if part not in request.used_parts]
    if not unused:
        return
    would_be_used = request.composer is None and COMPOSERS[ComposerName.CAPTIONS].uses.issuperset(unused)
    missing = f"give --{'prompt' if request.reference_count else 'image'}, " if would_be_used else ""
    what, it = ("have", "them") if len(unused) > 1 else ("has", "it")
    raise OptionError(
        f"--{', --'.join(unused)} {what} no effect here: the composer is {request.composer_name!r}; "
        f"leave {it} out, {missing}or choose another --composer"
    )


def _print_hits(ranking: Ranking, gallery: GalleryBase[Any], *, as_json: bool) -> None:
    for hit, item in zip(ranking, gallery.items(ranking.ids), strict=True):
        title = gallery.title(item.id, item.fields)
        if as_json:
            more = {"title": title, "fields": dict(item.fields), "query": ranking.query}
            print(json.dumps(hit.to_dict() | more, ensure_ascii=False))
        else:
            contributions = "  ".join(f"{name} {value:+.3f}" for name, value in hit.contributions.items() if value)
            names = (
                [hit.id, title] if item.fields.get(gallery.title_field or "") else [hit.id]
            )  # else the title is the id again
            print(f"{hit.rank:>4}  {hit.score:.4f}  {'  '.join(map(printable, names))}  ({contributions})")
    print_messages(_ranking_messages(ranking, as_json=as_json), prefix="note")


def _ranking_messages(ranking: Ranking, *, as_json: bool) -> Iterator[str]:
    """Messages on a ranking for stderr. With --json the reason for the weights is in the output instead."""
    if ranking.why and not as_json:
        yield f"{ranking.why}; caption: {ranking.caption}" if ranking.caption else ranking.why
    if ranking.hits and not ranking.has_match:
        yield f"no good match: nothing in this gallery seems to fit (answerable {ranking.answerable:.2f}, below {NO_MATCH})"
    if ranking.note:
        yield ranking.note
    if not ranking.hits and not ranking.note:
        yield "no items"
