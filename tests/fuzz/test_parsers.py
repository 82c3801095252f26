"""Every parser of strangers' files and requests reads strange inputs or refuses them in one line, in bounded time and memory."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import time

import pytest
from helpers import FUZZ

from mmretrieve.errors import MMRetrieveError
from tests.fuzz import run, targets
from tests.fuzz.run import ROOT, Fuzzer


@pytest.mark.property
@pytest.mark.timeout(600 * FUZZ)
def test_strange_inputs_are_read_or_refused_in_one_line() -> None:
    """The kept inputs and a few new ones, in a process for each parser. `make fuzz` tries many more."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    assert " 0 faults" in done.stdout


class Broken:
    """A parser with three faults, for the fuzzer to see."""

    @staticmethod
    def read(data: bytes) -> None:
        if data == b"error":
            raise KeyError("a bug")
        if data == b"lines":
            raise MMRetrieveError("one\ntwo")
        if data == b"slow":
            time.sleep(30)
        raise MMRetrieveError("refused")


def test_a_fault_is_seen_and_its_input_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CORPUS", run.ROOT / "tests" / "fuzz" / f"corpus-{os.getpid()}")
    monkeypatch.setattr(targets, "SECONDS", 1)
    monkeypatch.setitem(targets.TARGETS, "broken", targets.Target(Broken.read, lambda: []))
    fuzzer = Fuzzer("broken", mmap.mmap(-1, 1 << 12))
    try:
        for data in (b"right", b"error", b"lines", b"slow", b"error"):
            fuzzer.one(data)
        kept = {path.read_bytes() for path in (run.CORPUS / "broken").iterdir()}
    finally:
        shutil.rmtree(run.CORPUS, ignore_errors=True)
    assert fuzzer.tried == 5
    assert [line.split(": ")[1].split(" at ")[0] for line in fuzzer.faults.values()] == [
        "KeyError",
        "AssertionError",
        "TimeoutError",
    ]
    assert kept == {b"error", b"lines", b"slow"}
