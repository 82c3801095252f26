"""What programs at a terminal share: how they end, galleries and encoders by the names a person types, progress, what is printed."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve.cli import arguments
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.language.options import LanguageOptions
from mmretrieve.milvus.address import is_address
from mmretrieve.options import BUILT_IN

if TYPE_CHECKING:
    from mmretrieve.encoders.openclip import OpenClipEncoder
    from mmretrieve.retriever import Retriever
    from mmretrieve.server.app import Page

DONE, FAILED, INTERRUPTED = 0, 1, 130


def answer(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> int:
    """Runs one command and returns its exit status. Errors are one line on stderr; `--debug` shows where they come from."""
    options = parser.parse_args(words)
    warnings.showwarning = _show_warning
    _show_log()
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
        told = arguments.printable(" ".join(str(error).split()))
        print(f"mmretrieve: {type(error).__name__}: {told} (--debug shows where)", file=sys.stderr)
        return FAILED


def gallery_named(name: str) -> Path | str:
    """The folder of that name, the built-in gallery where there is no such folder and the name is `wardrobe`, or an address."""
    if is_address(name):
        return name
    if name != BUILT_IN or Path(name).is_dir():
        return Path(name)
    from mmretrieve import wardrobe

    return wardrobe.gallery_folder()


def folder_named(name: str) -> Path:
    """The same, where only a folder will do. OptionError for an address."""
    found = gallery_named(name)
    if not isinstance(found, Path):
        raise OptionError(
            f"{name}: this is done in a folder; `mmretrieve pull` makes one of a collection, `mmretrieve push` copies it back"
        )
    return found


def opened(options: argparse.Namespace) -> Retriever:
    """The gallery that was named, with its encoder and whoever was named to speak."""
    from mmretrieve.composers import parts_from
    from mmretrieve.language.vocabulary import Vocabulary
    from mmretrieve.retriever import Retriever

    speakers = LanguageOptions(**arguments.chosen(options, LanguageOptions))
    vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
    return Retriever.open(
        gallery_named(options.gallery),
        encoder=load(options, options.encoder) if options.encoder else None,
        device=options.device,
        dtype=options.dtype,
        parts=lambda encoder: parts_from(speakers, encoder, vocabulary=vocabulary, phi=options.phi),
    )


def serve(options: argparse.Namespace, page: Page | None = None) -> int:
    """Opens a gallery and serves it, with a page or without, until interrupted."""
    with _needing("server"):
        from mmretrieve.server import run
        from mmretrieve.server.app import build

    guard = run.guard_from(*_secrets(options))
    at = run.address(options.host, options.port, guard)
    app = build(opened(options), guard=guard, page=page)
    out(options, f"mmretrieve is open at {at.link(guard)}  (Ctrl-C closes it)", {"address": at.link(guard)})
    sys.stdout.flush()
    run.run(app, at)
    return DONE


def speak(options: argparse.Namespace) -> int:
    """Opens a gallery and lets one agent use it over stdin and stdout, until it leaves."""
    with _needing("server"):
        from mmretrieve.server.app import speak_to_one

    if unheard := [name for name in ("port", "token", "user") if getattr(options, name) is not None]:
        raise OptionError(f"--stdio speaks to the one program that started it; leave out {', '.join(unheard)}")
    speak_to_one(opened(options))
    return DONE


def _secrets(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Token and user: what was said; where nothing was, what the environment holds."""
    said = options.token, options.user
    return said if said != (None, None) else (os.environ.get("MMRETRIEVE_TOKEN"), os.environ.get("MMRETRIEVE_USER"))


@contextmanager
def _needing(extra: str) -> Iterator[None]:
    """MMRetrieveError, with what to install, where a package that is imported here is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MMRetrieveError(f"{error.name} is missing; install it with: pip install 'mmretrieve[{extra}]'") from error


def load(options: argparse.Namespace, spec: str) -> OpenClipEncoder:
    from mmretrieve.encoders.openclip import load_encoder

    return load_encoder(spec, device=options.device, dtype=options.dtype)


def bar(total: int, unit: str, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", disable=quiet or None, file=sys.stderr)


def out(options: argparse.Namespace, text: str, data: Any) -> None:
    """The text, or the data as JSON where that was asked for."""
    print(json.dumps(data, ensure_ascii=False) if options.json else text)


def tell(lines: Iterable[str]) -> None:
    """One line each on stderr, as the shell's own."""
    for line in lines:
        print(f"mmretrieve: {arguments.printable(line)}", file=sys.stderr)


def _show_log() -> None:
    """Warnings of the library in the shell's own words; whatever else set up logging does not hear them."""
    logger = logging.getLogger("mmretrieve")
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("mmretrieve: %(message)s"))
        logger.addHandler(handler)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"mmretrieve: {message}", file=sys.stderr)
