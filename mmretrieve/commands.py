"""What each command of the shell does."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve import arguments
from mmretrieve.errors import OptionError
from mmretrieve.inversion.recipe import PhiRecipe
from mmretrieve.language.choices import SpeakerOptions
from mmretrieve.options import BUILT_IN, DEFAULT_ENCODER, LEARNED_WORDS, WITHOUT_CAPTIONS, ComposerName, Decode, RuleName

if TYPE_CHECKING:
    from mmretrieve.encoders.openclip import OpenClipEncoder
    from mmretrieve.ranking import Ranking

DONE, FAILED = 0, 1


def index(options: argparse.Namespace) -> int:
    """Adds pictures to a gallery, making it first where there is none."""
    from mmretrieve.gallery.gallery import Gallery
    from mmretrieve.gallery.sources import read_source
    from mmretrieve.gallery.store import LEDGER

    total = len(read_source(options.source))  # a wrong source must not leave an empty gallery behind
    folder = Path(options.gallery)
    if (folder / LEDGER).exists():
        known = Gallery.open(folder)
        if options.decode not in (None, known.decode):
            raise OptionError(f"{folder}: this gallery decodes {known.decode!s}; that cannot be changed later")
        gallery = Gallery.open(folder, encoder=_load(options, options.encoder or known.encoder_identity.model))
    else:
        gallery = Gallery.create(
            folder, encoder=_load(options, options.encoder or DEFAULT_ENCODER), decode=options.decode or Decode.EXACT
        )
    with _bar(total, "pictures", options.quiet) as bar:
        report = gallery.add(options.source, progress=bar.update)
    for name, reason in report.failed.items():
        print(f"mmretrieve: not added: {arguments.printable(f'{name}: {reason}')}", file=sys.stderr)
    _out(
        options,
        f"{gallery.path}: {report}, {len(gallery)} items",
        {"added": report.added, "skipped": report.skipped, "failed": dict(report.failed), "items": len(gallery)},
    )
    return DONE if report.added or report.skipped else FAILED


def search(options: argparse.Namespace) -> int:
    """Prints the best items for pictures, prompts, or both."""
    from mmretrieve.composers import parts_from
    from mmretrieve.language.vocabulary import Vocabulary
    from mmretrieve.retriever import Retriever

    _refuse_unused(options)
    speakers = SpeakerOptions(**arguments.chosen(options, SpeakerOptions))
    vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
    retriever = Retriever.open(
        _gallery(options.gallery),
        encoder=_load(options, options.encoder) if options.encoder else None,
        device=options.device,
        dtype=options.dtype,
        parts=lambda encoder: parts_from(speakers, encoder, vocabulary=vocabulary, phi=options.phi),
    )
    question = {name: getattr(options, name) for name in arguments.QUESTION if getattr(options, name) not in (None, [])}
    _print_ranking(retriever.search(options.image or None, options.prompt or None, **question), as_json=options.json)
    return DONE


def info(options: argparse.Namespace) -> int:
    """Says what a gallery holds and which encoder made it."""
    from mmretrieve.gallery.gallery import Gallery

    known = Gallery.open(_gallery(options.gallery)).info()
    lines = [
        f"{name:>9}  {value if not isinstance(value, dict) else ', '.join(f'{k} {v}' for k, v in value.items())}"
        for name, value in known.items()
    ]
    _out(options, "\n".join(lines), known)
    return DONE


def verify(options: argparse.Namespace) -> int:
    """Reads a gallery back and names whatever is damaged."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(_gallery(options.gallery))
    problems = gallery.verify()
    for line in problems:
        print(f"mmretrieve: {gallery.path}/{line}", file=sys.stderr)
    _out(
        options,
        f"{gallery.path}: {len(gallery)} items, {'all well' if not problems else f'{len(problems)} problems'}",
        {"items": len(gallery), "problems": problems},
    )
    return FAILED if problems else DONE


def delete(options: argparse.Namespace) -> int:
    """Removes items from a gallery, all or none."""
    from mmretrieve.gallery.gallery import Gallery

    gallery = Gallery.open(_gallery(options.gallery))
    gallery.delete(options.ids)
    _out(
        options,
        f"{gallery.path}: {len(options.ids)} deleted, {len(gallery)} items",
        {"deleted": len(options.ids), "items": len(gallery)},
    )
    return DONE


def train_phi(options: argparse.Namespace) -> int:
    """Trains a phi for an encoder from captions alone (LinCIR); can be interrupted and run again."""
    from mmretrieve.inversion import train

    recipe = PhiRecipe(**arguments.chosen(options, PhiRecipe))
    captions = train.read_captions(options.captions)
    with _bar(recipe.steps, "steps", options.quiet) as bar:

        def report(point: train.Point) -> None:
            bar.update(point.step - bar.n)
            bar.set_postfix(training=f"{point.training:.4f}", validation=f"{point.validation:.4f}")

        best = train.train_phi(captions, _load(options, options.encoder), options.out, recipe, report=report)
    _out(
        options,
        f"{options.out}: validation loss {best.validation:.4f}, at step {best.step}",
        {"phi": str(options.out), "step": best.step, "validation": best.validation},
    )
    return DONE


def _refuse_unused(options: argparse.Namespace) -> None:
    """OptionError for parts that were named and that the composer of this search would not use."""
    composer = ComposerName(
        options.composer or (ComposerName.CAPTIONS if options.prompt or options.avoid else ComposerName.IMAGE)
    )
    needs = {
        "phi": composer in LEARNED_WORDS and composer is not ComposerName.SEARLE_OTI,
        "describer": composer is ComposerName.ONE_STEP,
        "compiler": composer is ComposerName.ROLES or options.rule == RuleName.SOFT,
        **dict.fromkeys(("captioner", "rewriter", "vocabulary"), composer not in WITHOUT_CAPTIONS),
    }
    if unused := [name for name, used in needs.items() if not used and getattr(options, name) is not None]:
        raise OptionError(
            f"{', '.join(unused)} given, but {composer.value!r} would not use it; choose another composer, or leave it out"
        )


def _gallery(name: str) -> Path:
    """The folder of that name, or the built-in gallery where there is no such folder and the name is `wardrobe`."""
    if name != BUILT_IN or Path(name).is_dir():
        return Path(name)
    from mmretrieve import wardrobe

    return wardrobe.gallery_folder()


def _load(options: argparse.Namespace, spec: str) -> OpenClipEncoder:
    from mmretrieve.encoders.openclip import load_encoder

    return load_encoder(spec, device=options.device, dtype=options.dtype)


def _bar(total: int, unit: str, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", disable=quiet or None, file=sys.stderr)


def _out(options: argparse.Namespace, text: str, data: dict[str, Any]) -> None:
    print(json.dumps(data, ensure_ascii=False) if options.json else text)


def _print_ranking(ranking: Ranking, *, as_json: bool) -> None:
    for hit in ranking:
        if as_json:
            print(
                json.dumps(
                    {
                        "rank": hit.rank,
                        "id": hit.id,
                        "score": hit.score,
                        "path": hit.path,
                        "contributions": dict(hit.contributions),
                    },
                    ensure_ascii=False,
                )
            )
        else:
            gave = "  ".join(f"{name} {value:+.3f}" for name, value in hit.contributions.items() if value)
            print(f"{hit.rank:>4}  {hit.score:.4f}  {arguments.printable(hit.id)}  ({gave})")
    if ranking.note:
        print(f"mmretrieve: {ranking.note}", file=sys.stderr)
