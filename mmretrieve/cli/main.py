"""The command line `mmretrieve`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmretrieve.cli import arguments, commands, maintenance
from mmretrieve.cli.runtime import run_command
from mmretrieve.options import BUILT_IN, DEFAULT_ENCODER, DEFAULT_RECALL, Decode

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
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    indexing = _command(added, "index", commands.index)
    _source_arguments(indexing)
    indexing.add_argument("--update", action="store_true", help="changed images replace the existing items")
    text = "only part I of N of the source, for N machines whose galleries are then merged"
    indexing.add_argument("--shard", type=arguments.shard, metavar="I/N", help=text)
    _source_arguments(_command(added, "sync", commands.sync))
    _search_arguments(_command(added, "search", commands.search))
    serving = _command(added, "serve", commands.serve)
    _of_gallery(serving)
    arguments.add_serving(serving)
    serving.add_argument("--stdio", action="store_true", help="serve one agent with MCP over stdin and stdout instead")
    arguments.add_opening(serving)
    for name, run in (("info", maintenance.info), ("verify", maintenance.verify)):
        _of_gallery(_command(added, name, run))
    removing = _command(added, "delete", maintenance.delete)
    _of_gallery(removing)
    removing.add_argument("ids", nargs="+", metavar="ID", help="an item to delete")
    _upkeep_arguments(added)
    _training_arguments(_command(added, "train-phi", commands.train_phi))
    return parser


def _upkeep_arguments(added: Any) -> None:
    compacting = _command(added, "compact", maintenance.compact)
    _of_folder(compacting)
    merging = _command(added, "merge", maintenance.merge)
    merging.add_argument("gallery", metavar="G", help="folder of the gallery that receives the items; created if there is none")
    merging.add_argument("others", nargs="+", metavar="OTHER", help="folder of a gallery made by the same encoder")
    comparing = _command(added, "duplicates", maintenance.duplicates)
    _of_gallery(comparing)
    text = "the lowest cosine of near duplicates (default: only files with the same bytes)"
    comparing.add_argument("--min-score", type=arguments.share, metavar="S", help=text)
    building = _command(added, "build", maintenance.build)
    _of_folder(building)
    text = 'a FAISS factory string such as "IVF4096,SQ8" (default: by size and memory)'
    building.add_argument("--index", metavar="FACTORY", help=text)
    measuring = _command(added, "index-report", maintenance.index_report)
    _of_folder(measuring)
    for command in (building, measuring):
        text = "the share of the ten best items that the index must find (default: %(default)s)"
        command.add_argument("--recall", type=arguments.share, default=DEFAULT_RECALL, metavar="R", help=text)
    pushing = _command(added, "push", maintenance.push)
    _of_folder(pushing)
    pushing.add_argument("address", metavar="milvus://HOST:PORT/NAME", help="a collection of a Milvus server")
    pushing.add_argument(
        "--index", metavar="TYPE", help="index type of the server, such as FLAT, IVF_SQ8 or HNSW (default: FLAT)"
    )
    pushing.add_argument("--update", action="store_true", help="changed images replace those of the collection")
    pushing.add_argument("--mirror", action="store_true", help="delete from the collection what the gallery does not have")
    pulling = _command(added, "pull", maintenance.pull)
    pulling.add_argument("address", metavar="milvus://HOST:PORT/NAME", help="a collection of a Milvus server")
    pulling.add_argument("gallery", metavar="G", help="folder of the gallery; created if there is none")
    exporting = _command(added, "export", maintenance.export)
    _of_folder(exporting)
    exporting.add_argument("folder", metavar="OUT", help="an empty folder")
    importing = _command(added, "import", maintenance.import_)
    importing.add_argument("folder", help="a folder with img_emb/ and metadata/, the layout of clip-retrieval")
    importing.add_argument("--gallery", required=True, metavar="G", help="folder of the gallery; created if there is none")
    importing.add_argument("--encoder", metavar="E", help="the encoder of the vectors, if the folder does not name it")
    arguments.add_computing(importing)
    for command in (compacting, merging, comparing, building, pushing, pulling, exporting, importing):
        _quiet(command)


def _source_arguments(making: argparse.ArgumentParser) -> None:
    making.add_argument("source", help="images: a folder, a tar, a parquet, CSV or JSONL file, one image, or another gallery")
    making.add_argument("--image-column", metavar="NAME", help="of a table: the column of image paths or bytes")
    making.add_argument("--id-column", metavar="NAME", help="of a table: the column of ids")
    making.add_argument("--gallery", required=True, metavar="G", help="folder of the gallery; created if there is none")
    making.add_argument(
        "--encoder",
        metavar="E",
        help=f"MODEL/TAG, hf-hub:org/name, a local open_clip folder, or {BUILT_IN} (default: the gallery's, else {DEFAULT_ENCODER})",
    )
    making.add_argument("--decode", choices=tuple(map(str, Decode)), help="fast shrinks JPEG while decoding (default: exact)")
    text = "the fields that name and describe the items in captions; later runs keep them (default: found automatically)"
    making.add_argument("--vocabulary-fields", type=arguments.names, metavar="NAME,NAME", help=text)
    _quiet(making)
    arguments.add_computing(making)


def _search_arguments(finding: argparse.ArgumentParser) -> None:
    _of_gallery(finding)
    arguments.add_search_fields(finding)
    arguments.add_opening(finding)


def _training_arguments(training: argparse.ArgumentParser) -> None:
    training.add_argument("captions", type=Path, help="a text file of captions, one a line")
    training.add_argument("--encoder", required=True, metavar="E", help="the encoder that the phi is for")
    training.add_argument("--out", required=True, type=Path, metavar="FILE", help="the phi to write, a .safetensors file")
    arguments.add_recipe(training)
    _quiet(training)
    arguments.add_computing(training)


def _command(added: Any, name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = added.add_parser(name, help=run.__doc__, description=run.__doc__, epilog=EXIT_STATUS)
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    return command


def _of_gallery(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "gallery", metavar="G", help=f"folder or Milvus address of the gallery, or {BUILT_IN} for the built-in one"
    )


def _of_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("gallery", metavar="G", help=f"folder of the gallery, or {BUILT_IN} for the built-in one")


def _quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="show no progress bar")


def _version() -> str:
    from mmretrieve import __version__

    return f"mmretrieve {__version__}"


if __name__ == "__main__":
    sys.exit(main())
