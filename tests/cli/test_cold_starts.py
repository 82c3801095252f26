"""Commands that encode nothing start without torch, and answer what they answer with it."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from ast import literal_eval
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.encoders.deferred import DeferredEncoder
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.wardrobe.dataset import drawings

ITEM, OTHER = (f"{folder}/{drawing.id}" for folder, drawing in zip(("winter/old", "summer"), drawings(), strict=False))
ANSWERS = (  # what they print is the same in both processes
    "--version",
    "--help",
    "search --help",
    "info {made}",
    "verify {made}",
    "duplicates {made} --quiet",
    "duplicates {made} --min-score 0.9 --quiet",
    f"search {{made}} --reference-id {ITEM}",
    f"search {{made}} --reference-id {ITEM} --exclude-reference -k 60 --json",
    f"search {{made}} --reference-id {ITEM} --reference-id {OTHER} --weights base",
    f"search {{made}} --more-like {ITEM} --less-like {OTHER} --where id<>'x'",
)
WRITES = (
    "merge {own} {made} --quiet",
    f"delete {{own}} {ITEM}",
    "compact {own} --quiet",
    "build {own} --quiet",
    "build {own} --index IVF2,SQ8 --quiet",
    "index-report {own}",
    "export {own} {folder}/export --quiet",
    "import {folder}/export --gallery {folder}/imported --quiet",
    "index {own} --gallery {folder}/copied --quiet",
)
PROGRAM = """
import json, sys
from test_cold_starts import run
for words in json.load(sys.stdin):
    result = run(words)
    print(json.dumps([*result, sorted({"torch", "open_clip", "transformers"} & set(sys.modules))]))
"""


def run(words: list[str]) -> tuple[int, str, str]:
    """The exit status and the output of a command."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
        try:
            status = main(words)
        except SystemExit as end:  # of the parser
            status = int(end.code or 0)
    return status, out.getvalue(), error.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cold")


def in_words(command: str, made: Path, folder: Path) -> list[str]:
    return command.format(made=made, own=folder / "own", folder=folder).split()


@pytest.fixture(scope="module")
def results(made: Path, folder: Path) -> dict[str, tuple[int, str, str, list[str]]]:
    """The results of all commands, one after the other in a new process, and the heavy packages that were imported after each."""
    commands = [in_words(command, made, folder) for command in (*ANSWERS, *WRITES)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    return dict(zip((*ANSWERS, *WRITES), (tuple(json.loads(line)) for line in done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("command", [*ANSWERS, *WRITES])
def test_commands_that_encode_nothing_do_not_import_torch(
    command: str, results: dict[str, tuple[int, str, str, list[str]]]
) -> None:
    status, out, error, imported = results[command]
    assert (status, imported) == (0, []), error
    assert out or error


@pytest.mark.parametrize("command", ANSWERS)
def test_they_answer_the_same_with_torch(
    command: str, results: dict[str, tuple[int, str, str, list[str]]], made: Path, folder: Path
) -> None:
    assert "torch" in sys.modules  # the encoder of the fixtures
    assert run(in_words(command, made, folder)) == results[command][:3]


def test_a_lazy_retriever_finds_what_another_finds(made: Path, retriever: mm.Retriever) -> None:
    lazy = mm.Retriever.open(made, lazy=True)
    assert isinstance(lazy.encoder, DeferredEncoder)
    assert lazy.search(reference_id=ITEM) == retriever.search(reference_id=ITEM)
    assert "loaded" not in vars(lazy.encoder)
    for query in ({"prompt": "in blue"}, {"prompt": "in blue", "composer": "searle"}, {"avoid": "stripes"}):
        assert lazy.search(reference_id=ITEM, **query) == retriever.search(reference_id=ITEM, **query)
    assert "loaded" in vars(lazy.encoder)
    assert lazy.encoder.folder == retriever.encoder.folder


def test_a_lazy_retriever_reports_its_encoder_when_it_is_needed(gallery: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = mm.Retriever.open(gallery.path, lazy=True)
    monkeypatch.setattr("mmretrieve.encoders.openclip.weights_hash", lambda model: "others")  # noqa: ARG005
    assert len(lazy.search(reference_id=ITEM)) == 10
    with pytest.raises(GalleryError, match="they differ in weights"):
        lazy.search(prompt="in blue")
    for wrong in ({"device": "tpu"}, {"dtype": "float7"}):
        with pytest.raises(OptionError, match="unknown"):
            mm.Retriever.open(gallery.path, lazy=True, **wrong)


def test_a_lazy_retriever_adds_images(gallery: mm.Gallery, photos: Path) -> None:
    lazy = mm.Retriever.open(gallery.path, lazy=True)
    lazy.gallery.delete([ITEM])
    assert lazy.gallery.add(photos).added == 1


def test_a_copy_of_a_deferred_encoder_loads_for_itself(made: Path) -> None:
    lazy = mm.Retriever.open(made, lazy=True)
    assert not hasattr(lazy.encoder, "_nothing")
    assert copy.copy(lazy.encoder).identity == lazy.gallery.encoder_identity


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(
    "line", ["from mmretrieve.cli.main import main; words = ['serve', 'G']", "from demo.__main__ import main; words = ['G']"]
)
def test_a_server_starts_no_threads_of_openblas(line: str) -> None:
    code = f"import os; {line}; status = main([*words, '--host', '0.0.0.0']); import numpy; print(status, os.listdir('/proc/self/task'))"
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    status, threads = run.stdout.split(maxsplit=1)
    assert (status, "others can reach this address" in run.stderr) == ("2", True)
    assert len(literal_eval(threads)) == 1
