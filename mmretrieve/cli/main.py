"""The command line `mmretrieve`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmretrieve.cli import arguments, commands, maintenance
from mmretrieve.cli.runtime import run_command
from mmretrieve.options import (
    BUILT_IN,
    DEFAULT_CAPTION_FIELD,
    DEFAULT_CAPTION_WEIGHT,
    DEFAULT_ENCODER,
    DEFAULT_RECALL,
    Colors,
    Decode,
)

EXIT_STATUS = "Exit status: 0 done, 1 failed, 2 wrong use, 3 done except for images that could not be added, 130 interrupted."


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status (see `runtime.run_command`)."""
    return run_command(make_parser(), words)


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.OneLineParser(
        prog="mmretrieve",
        description="Searches images with reference images and prompts that say what should be different.",
        epilog=EXIT_STATUS,
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    index = _command(subparsers, "index", commands.index)
    _add_source(index)
    index.add_argument("--update", action="store_true", help="changed images replace the existing items")
    text = "only part I of N of the source, for N machines whose galleries are then merged"
    index.add_argument("--shard", type=arguments.shard, metavar="I/N", help=text)
    sync = _command(subparsers, "sync", commands.sync)
    _add_source(sync)
    text = "delete up to this share of the source's items, whole sub-folders included (default: 0.1, and no whole sub-folder)"
    sync.add_argument("--allow-removal", type=arguments.share, metavar="SHARE", help=text)
    search = _command(subparsers, "search", commands.search)
    text = "print the hits as text, JSON, CSV, or a run of TREC for query 1"
    search.add_argument("--format", choices=("text", "json", *commands.WHOLE_FORMATS), default="text", help=text)
    _add_gallery(search)
    arguments.add_search_fields(search)
    arguments.add_opening(search)
    serve = _command(subparsers, "serve", commands.serve)
    _add_gallery(serve)
    arguments.add_serving(serve)
    serve.add_argument("--stdio", action="store_true", help="serve one agent with MCP over stdin and stdout instead")
    arguments.add_opening(serve)
    for name, run in (("info", maintenance.info), ("verify", maintenance.verify)):
        _add_gallery(_command(subparsers, name, run))
    delete = _command(subparsers, "delete", maintenance.delete)
    _add_gallery(delete)
    delete.add_argument("ids", nargs="+", metavar="ID", help="an item to delete")
    _add_maintenance_commands(subparsers)
    _add_training(_command(subparsers, "train-phi", commands.train_phi))
    return parser


def _add_maintenance_commands(subparsers: Any) -> None:
    compact = _command(subparsers, "compact", maintenance.compact)
    _add_folder(compact)
    merge = _command(subparsers, "merge", maintenance.merge)
    merge.add_argument("gallery", metavar="G", help="folder of the gallery that receives the items; created if there is none")
    merge.add_argument("others", nargs="+", metavar="OTHER", help="folder of a gallery made by the same encoder")
    duplicates = _command(subparsers, "duplicates", maintenance.duplicates)
    _add_gallery(duplicates)
    text = "the lowest cosine of near duplicates (default: only files with the same bytes)"
    duplicates.add_argument("--min-score", type=arguments.share, metavar="S", help=text)
    build = _command(subparsers, "build", maintenance.build)
    _add_folder(build)
    text = 'a FAISS factory string such as "IVF4096,SQ8" (default: the fastest that reaches the recall)'
    build.add_argument("--index", metavar="FACTORY", help=text)
    text = "the largest size of the index, such as 4GB or 500MB (default: 80 %% of the free memory)"
    build.add_argument("--memory", metavar="SIZE", help=text)
    index_report = _command(subparsers, "index-report", maintenance.index_report)
    _add_folder(index_report)
    for command in (build, index_report):
        text = "the share of the ten best items that the index must find (default: %(default)s)"
        command.add_argument("--recall", type=arguments.share, default=DEFAULT_RECALL, metavar="R", help=text)
    push = _command(subparsers, "push", maintenance.push)
    _add_folder(push)
    push.add_argument("address", metavar="milvus://HOST:PORT/NAME", help="a collection of a Milvus server")
    push.add_argument("--index", metavar="TYPE", help="index type of the server, such as FLAT, IVF_SQ8 or HNSW (default: FLAT)")
    push.add_argument("--update", action="store_true", help="changed images replace those of the collection")
    push.add_argument("--mirror", action="store_true", help="delete from the collection what the gallery does not have")
    pull = _command(subparsers, "pull", maintenance.pull)
    pull.add_argument("address", metavar="milvus://HOST:PORT/NAME", help="a collection of a Milvus server")
    pull.add_argument("gallery", metavar="G", help="folder of the gallery; created if there is none")
    export = _command(subparsers, "export", maintenance.export)
    _add_folder(export)
    export.add_argument("folder", metavar="OUT", help="an empty folder")
    import_ = _command(subparsers, "import", maintenance.import_)
    import_.add_argument("folder", help="a folder with img_emb/ and metadata/, the layout of clip-retrieval")
    import_.add_argument("--gallery", required=True, metavar="G", help="folder of the gallery; created if there is none")
    import_.add_argument("--encoder", metavar="E", help="the encoder of the vectors, if the folder does not name it")
    arguments.add_computing(import_)
    for command in (compact, merge, duplicates, build, push, pull, export, import_):
        _add_quiet(command)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="images: a folder, a tar, a parquet, CSV or JSONL file, one image, or another gallery")
    command.add_argument("--image-column", metavar="NAME", help="of a table: the column of image paths or bytes")
    command.add_argument("--id-column", metavar="NAME", help="of a table: the column of ids")
    text = "of a folder or tar: leave out files and folders whose name or path matches, such as '*_small.jpg' (repeatable)"
    command.add_argument("--exclude", action="append", default=[], metavar="GLOB", help=text)
    command.add_argument("--gallery", required=True, metavar="G", help="folder of the gallery; created if there is none")
    command.add_argument(
        "--encoder",
        metavar="E",
        help=f"MODEL/TAG, hf-hub:org/name, transformers:MODEL, sentence-transformers:MODEL, a local folder, or {BUILT_IN} (default: the gallery's, else {DEFAULT_ENCODER})",
    )
    command.add_argument("--decode", choices=tuple(map(str, Decode)), help="fast shrinks JPEG while decoding (default: exact)")
    text = "srgb applies embedded color profiles; raw ignores them, as papers do (default: the gallery's, else srgb)"
    command.add_argument("--colors", choices=tuple(map(str, Colors)), help=text)
    text = "captions by the ids of items, blended into their vectors: a .json, .jsonl or .csv file"
    command.add_argument("--captions", metavar="FILE", help=text)
    text = f"the field that holds captions, of the file or of the items (default: the gallery's, else {DEFAULT_CAPTION_FIELD})"
    command.add_argument("--caption-field", metavar="NAME", help=text)
    text = f"weight of captions from 0 to 1 (default: the gallery's, else {DEFAULT_CAPTION_WEIGHT} if there are captions)"
    command.add_argument("--caption-weight", type=arguments.share, metavar="W", help=text)
    command.add_argument("--id-field", metavar="NAME", help="the field of the file of captions that holds the ids")
    text = "the fields that name and describe the items in captions; later runs keep them (default: found automatically)"
    command.add_argument("--vocabulary-fields", type=arguments.names, metavar="NAME,NAME", help=text)
    text = "the field that names an item in results; later runs keep it (default: found automatically)"
    command.add_argument("--title-field", metavar="NAME", help=text)
    text = "store the vectors of patches ahead, which --judge local reads; otherwise searches store those that they need"
    command.add_argument("--patches", action="store_true", help=text)
    _add_quiet(command)
    arguments.add_computing(command)


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("captions", type=Path, help="a text file of captions, one a line")
    command.add_argument("--encoder", required=True, metavar="E", help="the encoder that the phi is for")
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="the phi to write, a .safetensors file")
    arguments.add_recipe(command)
    _add_quiet(command)
    arguments.add_computing(command)


def _command(subparsers: Any, name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = subparsers.add_parser(
        name, help=run.__doc__, description=run.__doc__, epilog=EXIT_STATUS
    )
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    return command


def _add_gallery(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "gallery", metavar="G", help=f"folder or Milvus address of the gallery, or {BUILT_IN} for the built-in one"
    )


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("gallery", metavar="G", help=f"folder of the gallery, or {BUILT_IN} for the built-in one")


def _add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="show no progress bar")


def _version() -> str:
    from mmretrieve import __version__

    return f"mmretrieve {__version__}"


if __name__ == "__main__":
    sys.exit(main())
