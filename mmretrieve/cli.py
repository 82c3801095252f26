"""The shell: `mmretrieve index`, `search`, `info`, `verify`, `delete`. Exit status 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve import arguments
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.options import BUILT_IN, DEFAULT_ENCODER, DEFAULT_K, ComposerName, Decode

if TYPE_CHECKING:
    from mmretrieve.encoders.base import Encoder
    from mmretrieve.ranking import Ranking

DONE, FAILED, INTERRUPTED = 0, 1, 130


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. Errors are one line on stderr; `--debug` shows where they come from."""
    options = make_parser().parse_args(words)
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name the terminal cannot show must not end a list
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except MMRetrieveError as error:
        if options.debug:
            raise
        print(f"mmretrieve: {arguments.printable(str(error))}", file=sys.stderr)
        return arguments.WRONG_USE if isinstance(error, OptionError) else FAILED
    except KeyboardInterrupt:
        print("mmretrieve: interrupted; what was committed is kept, run the same command to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if options.debug:
            raise
        print(f"mmretrieve: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        return FAILED


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
    """Prints the best items for a picture, a prompt, or both."""
    from mmretrieve.composers import Parts
    from mmretrieve.language.vocabulary import Vocabulary
    from mmretrieve.retriever import Retriever

    vocabulary = Vocabulary.read(options.vocabulary) if options.vocabulary else None
    retriever = Retriever.open(
        _gallery(options.gallery),
        encoder=_load(options, options.encoder) if options.encoder else None,
        device=options.device,
        dtype=options.dtype,
        parts=Parts(vocabulary=vocabulary),
    )
    ranking = retriever.search(
        image=options.image,
        prompt=options.prompt,
        k=options.k,
        reference_id=options.reference_id,
        caption=options.caption,
        composer=options.composer,
        alpha_image=options.alpha_image,
        alpha_text=options.alpha_text,
        beta=options.beta,
        exclude=options.exclude,
    )
    _print_ranking(ranking, as_json=options.json)
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


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.OneLineParser(prog="mmretrieve", description="Find images like a picture, but …")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    making = _command(commands, "index", index)
    making.add_argument("source", help="a folder of pictures, searched through and through, or one picture")
    making.add_argument("--gallery", required=True, metavar="G", help="folder of the gallery; made where there is none")
    making.add_argument(
        "--encoder",
        metavar="E",
        help=f"MODEL/TAG, hf-hub:org/name, a local open_clip folder, or {BUILT_IN} (default: the gallery's, else {DEFAULT_ENCODER})",
    )
    making.add_argument(
        "--decode", choices=tuple(map(str, Decode)), help="fast lets JPEG shrink while decoding (default: exact)"
    )
    making.add_argument("--quiet", action="store_true", help="no progress bar")
    _computing(making)

    _search_arguments(_command(commands, "search", search))
    _of_gallery(_command(commands, "info", info))
    _of_gallery(_command(commands, "verify", verify))
    removing = _command(commands, "delete", delete)
    _of_gallery(removing)
    removing.add_argument("ids", nargs="+", metavar="ID")
    return parser


def _search_arguments(finding: argparse.ArgumentParser) -> None:
    _of_gallery(finding)
    finding.add_argument("--image", metavar="P", help="the reference picture")
    finding.add_argument("--reference-id", metavar="ID", help="an item of the gallery as the reference")
    finding.add_argument("--prompt", metavar="T", help='what should be different: "in red, with long sleeves"')
    finding.add_argument("--caption", metavar="TEXT", help="the reference said in words (default: tagged by the encoder)")
    finding.add_argument(
        "-k", type=arguments.count, default=DEFAULT_K, metavar="N", help="how many items (default: %(default)s)"
    )
    finding.add_argument(
        "--alpha-image", type=arguments.alpha_or_auto, metavar="A", help="how far the prompt moves the image, or auto"
    )
    finding.add_argument("--alpha-text", type=arguments.finite, metavar="A", help="how far the prompt moves the words")
    finding.add_argument("--beta", type=arguments.share, metavar="B", help="0 follows the image, 1 the words")
    finding.add_argument(
        "--composer",
        metavar="C",
        choices=tuple(map(str, ComposerName)),
        help=f"one of {', '.join(ComposerName)} (default: captions for an image with a prompt)",
    )
    finding.add_argument("--vocabulary", metavar="FILE", help="JSON of the words the tagger may use")
    finding.add_argument(
        "--exclude", action="append", default=[], metavar="ID", help="an item that must not appear; may be repeated"
    )
    finding.add_argument("--encoder", metavar="E", help="where the gallery's encoder is now, if it has moved")
    _computing(finding)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    return command


def _of_gallery(command: argparse.ArgumentParser) -> None:
    command.add_argument("gallery", metavar="G", help=f"folder of the gallery, or {BUILT_IN} for the built-in one")


def _computing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    command.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16 or float16, of the image tower (default: %(default)s)"
    )


def _gallery(name: str) -> Path:
    """The folder of that name, or the built-in gallery where there is no such folder and the name is `wardrobe`."""
    if name != BUILT_IN or Path(name).is_dir():
        return Path(name)
    from mmretrieve import wardrobe

    return wardrobe.gallery_folder()


def _load(options: argparse.Namespace, spec: str) -> Encoder:
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


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"mmretrieve: {message}", file=sys.stderr)


def _version() -> str:
    from mmretrieve import __version__

    return f"mmretrieve {__version__}"


if __name__ == "__main__":
    sys.exit(main())
