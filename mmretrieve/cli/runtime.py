"""What the commands share: exit status, galleries and encoders by name, progress, output."""

from __future__ import annotations

import argparse
import gc
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve.cli import arguments
from mmretrieve.errors import MMRetrieveError, OptionError, printable
from mmretrieve.language.options import LanguageOptions
from mmretrieve.milvus.address import is_address
from mmretrieve.options import BUILT_IN

if TYPE_CHECKING:
    from mmretrieve.encoders.base import NamedEncoder
    from mmretrieve.gallery.ingest import AddReport
    from mmretrieve.opening import AnyGallery
    from mmretrieve.retriever import Retriever
    from mmretrieve.server.app import Page

DONE, FAILED, PARTLY_FAILED, INTERRUPTED = 0, 1, 3, 130
TOKEN_VARIABLE = "MMRETRIEVE_TOKEN"
MAX_NAMED_FAILURES = 20  # of one write


def run_command(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> int:
    """Runs one command and returns its exit status. Errors are one line on stderr; `--debug` shows where they come from."""
    options = parser.parse_args(words)
    warnings.showwarning = _show_warning
    _show_log()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot show must not end the output
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except MMRetrieveError as error:
        if options.debug:
            raise
        print(f"mmretrieve: {error}", file=sys.stderr)
        return arguments.WRONG_USE if isinstance(error, OptionError) else FAILED
    except KeyboardInterrupt:
        print("mmretrieve: interrupted; what was committed is kept, run the same command to continue", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if options.debug:
            raise
        print(f"mmretrieve: {printable(_explain(error))} (--debug shows where)", file=sys.stderr)
        return FAILED


def _explain(error: Exception) -> str:
    """Returns a sentence about an error that is not one of the library."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    if isinstance(error, RecursionError):
        return "a file or an option is nested too deeply"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def resolve_gallery(name: str) -> Path | str:
    """The folder or the address as given; the built-in gallery for `wardrobe` if there is no such folder."""
    if name != BUILT_IN or Path(name).is_dir():
        return name
    from mmretrieve import wardrobe

    return wardrobe.gallery_folder()


def resolve_folder(name: str) -> Path:
    """A folder as above. Raises OptionError for an address."""
    if is_address(name):
        raise OptionError(
            f"{name}: this command needs a folder; `mmretrieve pull` copies a collection into one, `mmretrieve push` copies it back"
        )
    return Path(resolve_gallery(name))


def open_retriever(options: argparse.Namespace, *, lazy: bool = False) -> Retriever:
    """The named gallery with its encoder and the named captioner, rewriter, compiler and describer. lazy: as `Retriever.open`."""
    from mmretrieve.composers import parts_from
    from mmretrieve.language.vocabulary import Vocabulary
    from mmretrieve.retriever import Retriever

    language = language_options(options)
    vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
    opened = Retriever.open(
        resolve_gallery(options.gallery),
        encoder=options.encoder or None,
        device=options.device,
        dtype=options.dtype,
        lazy=lazy,
    )
    parts = parts_from(language, opened.encoder, vocabulary=vocabulary, phi=options.phi)
    return Retriever(opened.gallery, opened.encoder, parts=parts)


def language_options(options: argparse.Namespace) -> LanguageOptions:
    return LanguageOptions(**arguments.given_fields(options, LanguageOptions))


def register_judge(options: argparse.Namespace) -> None:
    """Makes the judge of --judge available by its name. Raises OptionError for an unknown one, JudgeError for one that cannot be loaded."""
    if options.judge is not None:
        from mmretrieve.judges.factory import register_judge_of

        register_judge_of(language_options(options))


def serve(options: argparse.Namespace, page: Page | None = None) -> int:
    """Opens a gallery and serves it, with a page or without, until interrupted."""
    # Read when numpy is imported, next. Threads of OpenBLAS spin for a while after each product, and would take the cores of torch.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _requires("server"):
        from mmretrieve.server.app import create_app
        from mmretrieve.server.auth import parse_auth
        from mmretrieve.server.run import bind, run, url_of

    auth = parse_auth(*_secrets(options))
    register_judge(options)
    bound = bind(options.host, options.port, auth)
    app = create_app(open_retriever(options), auth=auth, page=page, root_path=options.root_path)
    is_secret = options.token is None and auth.token == os.environ.get(
        TOKEN_VARIABLE, ""
    )  # a token of the environment stays out of logs
    url = url_of(bound, options.host, None if is_secret else auth.token)
    hint = f"log in at {url}/?token=${TOKEN_VARIABLE}; " if is_secret else ""
    print_result(options, f"mmretrieve is open at {url}  ({hint}Ctrl-C closes it)", {"address": url})
    sys.stdout.flush()
    gc.freeze()  # what is loaded stays: a full collection would walk over it for 0.2 s, while every client waits
    try:
        run(app, bound)
    finally:
        gc.unfreeze()  # otherwise libraries report at the end what was not freed
    return DONE


def serve_stdio(options: argparse.Namespace) -> int:
    """Opens a gallery and serves one agent over stdin and stdout, until it disconnects."""
    with _requires("server"):
        from mmretrieve.server.run import run_stdio

    if unused := [name for name in ("port", "token", "user") if getattr(options, name) is not None]:
        raise OptionError(f"--stdio serves the program that started it; leave out {', '.join(unused)}")
    register_judge(options)
    run_stdio(open_retriever(options))
    return DONE


def _secrets(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Token and user from the options; if neither is given, from the environment."""
    given = options.token, options.user
    return given if given != (None, None) else (os.environ.get(TOKEN_VARIABLE), os.environ.get("MMRETRIEVE_USER"))


@contextmanager
def _requires(extra: str) -> Iterator[None]:
    """Raises MMRetrieveError, with what to install, if a package that is imported in the block is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MMRetrieveError(f"{error.name} is missing; install it with: pip install 'mmretrieve[{extra}]'") from error


def load_named_encoder(options: argparse.Namespace, spec: str) -> NamedEncoder:
    """The encoder of that name, on the device and in the dtype of the options."""
    from mmretrieve.encoders.loading import load_encoder

    return load_encoder(spec, device=options.device, dtype=options.dtype)


def load_encoder_for(options: argparse.Namespace, gallery: AnyGallery) -> NamedEncoder:
    """The encoder of a gallery, by the name of the options if they have one."""
    from mmretrieve.opening import load_gallery_encoder

    return load_gallery_encoder(gallery, options.device, options.dtype, options.encoder or None)


def progress_bar(total: int, unit: str, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", disable=quiet or None, file=sys.stderr)


def print_result(options: argparse.Namespace, text: str, data: Any) -> None:
    """Prints the text, or with --json the data."""
    print(json.dumps(data, ensure_ascii=False) if options.json else text)


def print_messages(lines: Iterable[str], prefix: str = "mmretrieve") -> None:
    """Prints a line each on stderr, after the prefix."""
    for line in lines:
        print(f"{prefix}: {printable(line)}", file=sys.stderr)


def print_report(options: argparse.Namespace, target: object, report: AddReport, items: int | None = None) -> int:
    """Prints what a write did, the first failures on stderr, and returns the exit status. items: what the target has now."""
    failures = [f"not added: {name}: {reason}" for name, reason in report.failed.items()]
    hidden = len(failures) - MAX_NAMED_FAILURES
    print_messages(failures[:MAX_NAMED_FAILURES])
    if hidden > 0:
        print_messages([f"not added: {hidden} more; --json names all of them"])
    print_messages(_notes(report), prefix="note")
    total, more = ("", {}) if items is None else (f"; {items} items", {"items": items})
    print_result(options, f"{target}: {report.describe('unchanged')}{total}", asdict(report) | more)
    if report.not_removed:
        return FAILED
    if not report.failed:
        return DONE
    return PARTLY_FAILED if report.added or report.skipped or report.updated else FAILED


def _notes(report: AddReport) -> Iterator[str]:
    from mmretrieve.sources.ignored import describe_ignored

    if ignored := describe_ignored(report.ignored):
        yield f"left out: {ignored}"
    yield from (note.replace("allow_removal=", "--allow-removal ") for note in report.notes)


def _show_log() -> None:
    """Prints warnings of the library as messages of the program, and nowhere else."""
    logger = logging.getLogger("mmretrieve")
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("mmretrieve: %(message)s"))
        logger.addHandler(handler)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"mmretrieve: {message}", file=sys.stderr)
