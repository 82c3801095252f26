"""Every parser of strangers' files and requests reads strange inputs or refuses them in one line, in bounded time and memory."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import FUZZ
from hypothesis import strategies as st

from mmretrieve.errors import MMRetrieveError
from tests.fuzz import run, targets
from tests.fuzz.grammars import GRAMMARS
from tests.fuzz.run import ROOT, Fuzzer


@pytest.mark.property
@pytest.mark.timeout(600 * FUZZ)
def test_strange_inputs_are_read_or_refused_in_one_line() -> None:
    """The kept inputs, and a few composed and mutated ones, in a process for each parser. `make fuzz` tries many more."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    assert " 0 faults" in done.stdout


class CarelessError(MMRetrieveError):
    """An error that has lost what makes it one line."""

    def __str__(self) -> str:
        return str(self.args[0])


class Broken:
    """A parser with faults, for the fuzzer to see."""

    @staticmethod
    def read(data: bytes) -> None:
        if data == b"error":
            raise KeyError("a bug")
        if data == b"lines":
            raise CarelessError("one\ntwo")
        if data == b"left":
            Path(tempfile.gettempdir(), "left").touch()
        if data == b"slow":
            time.sleep(30)
        raise MMRetrieveError("refused")


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A corpus of its own, and a folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run, "CORPUS", run.ROOT / "tests" / "fuzz" / f"corpus-{os.getpid()}")
    yield run.CORPUS
    shutil.rmtree(run.CORPUS, ignore_errors=True)


def test_every_target_has_a_grammar_and_stands_in_the_table() -> None:
    table = {
        name
        for line in (targets.__doc__ or "").splitlines()
        if line.startswith("| ")
        for name in line.split("|")[3].split(", ")
    }
    assert {name.strip() for name in table} - {"targets"} == targets.TARGETS.keys() == GRAMMARS.keys()


def test_a_fault_is_seen_and_its_input_is_kept(monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    monkeypatch.setattr(targets, "SECONDS", 1)
    monkeypatch.setitem(targets.TARGETS, "broken", Broken.read)
    fuzzer = Fuzzer("broken", mmap.mmap(-1, 1 << 12))
    for data in (b"right", b"error", b"lines", b"slow", b"error", b"left"):
        fuzzer.one(data)
    kept = {path.read_bytes() for path in (corpus / "broken").iterdir()}
    assert (fuzzer.tried, fuzzer.accepted) == (6, 0)
    assert [line.split(": ")[1].split(" at ")[0] for line in fuzzer.faults.values()] == [
        "KeyError",
        "AssertionError",
        "TimeoutError",
        "AssertionError",
    ]
    assert kept == {b"error", b"lines", b"slow", b"left"}


def test_the_input_of_a_composed_fault_is_made_small(monkeypatch: pytest.MonkeyPatch, corpus: Path) -> None:
    def read(data: bytes) -> None:
        assert b"9" not in data

    monkeypatch.setitem(targets.TARGETS, "broken", read)
    monkeypatch.setitem(GRAMMARS, "broken", st.binary(max_size=500))
    fuzzer = Fuzzer("broken", mmap.mmap(-1, 1 << 12))
    fuzzer.compose(2_000, is_random=False)
    assert [path.read_bytes() for path in (corpus / "broken").iterdir()] == [b"9"]
    assert len(fuzzer.faults) == 1


def test_what_is_wrong_with_an_accepted_input_is_seen(corpus: Path) -> None:  # noqa: ARG001
    """Laws of a target: the processor's time, a file that is changed, one that is left behind."""

    def spend(_: Path) -> None:
        end = time.process_time() + 5
        while time.process_time() < end:
            pass

    for read, line in (
        (lambda path: path.write_bytes(b"b"), "the file was changed"),
        (lambda path: path.with_name("c").touch(), "left something beside the file"),
    ):
        with pytest.raises(AssertionError, match=line):
            targets.in_file("a", read)(b"a")
    with pytest.raises(TimeoutError), run.limited(60, 0.2):
        targets.in_file("a", spend)(b"a")
