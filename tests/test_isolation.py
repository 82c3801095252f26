"""What parses strangers' files may crash, hang or exhaust memory: that costs one file, and neither the process nor the other files."""

from __future__ import annotations

import gc
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import crashing
import pyarrow as pa
import pytest
from live_server import until
from pyarrow import parquet as pq

import mmretrieve as mm
from mmretrieve import isolation
from mmretrieve.cli.main import main
from mmretrieve.forks import FORK_GATE
from mmretrieve.isolation import CrashError, IsolatedReader, iterate_isolated, run_isolated
from mmretrieve.sources import parquet_files
from mmretrieve.sources.parquet_files import DamagedError


@pytest.mark.parametrize(
    ("function", "reason"), [(crashing.abort, "crashed with SIGABRT"), (crashing.segfault, "crashed with SIGSEGV")]
)
def test_a_crash_is_an_error(function: object, reason: str) -> None:
    with pytest.raises(CrashError, match=reason):
        run_isolated(function)  # type: ignore[arg-type]
    assert run_isolated(os.getpid) != os.getpid()


def test_a_child_that_something_else_killed_is_replaced() -> None:
    """The next file is not blamed for it."""
    reader = IsolatedReader()
    for run in (run_isolated, reader.run):
        os.kill(run(os.getpid), signal.SIGKILL)
        time.sleep(0.1)
        assert run(abs, -1) == 1


def test_memory_and_time_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_isolated(crashing.reserve, 1 << 30) == 1 << 30
    with pytest.raises(OSError, match="Cannot allocate memory"):
        run_isolated(crashing.reserve, isolation.MAX_BYTES)
    monkeypatch.setattr(isolation, "MAX_SECONDS", 0.3)
    with pytest.raises(CrashError, match=r"took longer than 0.3 s"):
        run_isolated(crashing.hang)


def test_values_and_errors_are_those_of_the_function() -> None:
    assert run_isolated(crashing.shout) == "an answer"
    with pytest.raises(DamagedError, match=r"^x: damaged$"):
        run_isolated(crashing.fail, "x: damaged")
    assert next(iterate_isolated(crashing.count_then_abort, 100_000)) == 0, "an iteration that ends early"
    numbers = iterate_isolated(crashing.count_then_abort, 1000)
    assert [next(numbers) for _ in range(1000)] == list(range(1000))
    with pytest.raises(CrashError):
        next(numbers)


def test_what_a_failed_call_was_given_is_freed_at_once() -> None:
    given = Given()
    alive = weakref.ref(given)
    gc.disable()
    try:
        with suppress(mm.MMRetrieveError):
            run_isolated(crashing.fail, given)  # type: ignore[arg-type]
        del given
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_child_does_not_keep_what_it_was_given() -> None:
    reader = IsolatedReader()
    status = Path(f"/proc/{reader.run(os.getpid)}/statm")
    assert reader.run(len, bytes(100_000_000)) == 100_000_000
    until(lambda: mmap.PAGESIZE * int(status.read_text().split()[1]) < 60_000_000, 5)


def test_signals_do_not_cut_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "MAX_SECONDS", 20.0)
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for size in (1 << 16, 5_000_000, 50_000_000):
            assert run_isolated(len, bytes(size)) == size
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_no_fork_comes_between_while_a_child_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have the ends of the pipes, and keep them open."""
    started: list[bool] = []
    start = subprocess.Popen

    def starting(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(bool(FORK_GATE._depth))
        return start(*arguments, **options)

    monkeypatch.setattr(isolation.subprocess, "Popen", starting)
    assert IsolatedReader().run(abs, -1) == 1
    assert started == [True]


def test_what_is_printed_when_python_starts_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello', flush=True)\nprint('no end of line', end='', flush=True)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert IsolatedReader().run(abs, -1) == 1


def test_a_python_that_does_not_know_its_program_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(CrashError, match=r"this Python does not know its own program \(sys\.executable\)"):
        IsolatedReader().run(abs, -1)


class Given:
    """What a call is given."""

    def __repr__(self) -> str:
        return "given"


def test_a_reader_starts_again_after_a_crash_and_serves_threads() -> None:
    reader = IsolatedReader()
    first = reader.run(os.getpid)
    assert reader.run(os.getpid) == first
    with pytest.raises(CrashError):
        reader.run(crashing.abort)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: reader.run(abs, -number), range(50))) == list(range(50))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_has_children_of_its_own() -> None:
    """A fork that shared the pipes of its parent would take its answers."""
    program = (
        "import os\n"
        "from mmretrieve.isolation import IsolatedReader, run_isolated\n"
        "reader = IsolatedReader()\n"
        "parent = {reader.run(os.getpid), run_isolated(os.getpid)}\n"
        "child = os.fork()\n"
        "own = {reader.run(os.getpid), run_isolated(os.getpid)}\n"
        "assert own == parent if child else not own & parent, (own, parent)\n"
        "if child: assert os.waitpid(child, 0)[1] == 0; print('both')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("both\n", 0), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_wait_for_threads_of_its_parent() -> None:
    reader = IsolatedReader()
    thread = threading.Thread(target=reader.run, args=(time.sleep, 1))
    thread.start()
    time.sleep(0.2)
    with isolation._idle_lock:
        child = os.fork()
        if child == 0:
            is_right = reader.run(abs, -1) == run_isolated(abs, -1) == 1
            os._exit(0 if is_right else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    assert reader.run(abs, -2) == 2


@pytest.fixture
def three(tmp_path: Path, photos: Path) -> Path:
    """A folder of three Parquet files, of two images each."""
    images = sorted(photos.rglob("*.png"))
    folder = tmp_path / "three"
    folder.mkdir()
    for i, name in enumerate("abc"):
        rows = [path.read_bytes() for path in images[2 * i : 2 * i + 2]]
        pq.write_table(pa.table({"id": [f"{name}1", f"{name}2"], "jpg": rows}), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    ("name", "function", "failed"),
    [
        ("read_schema", crashing.schema_of_all_but_one, {"b.parquet": "crashed with SIGABRT"}),
        ("read_cell", crashing.cell_of_all_but_one, {"b1": "crashed with SIGSEGV", "b2": "crashed with SIGSEGV"}),
    ],
)
def test_of_three_files_one_that_crashes_its_reader_is_named(
    name: str,
    function: object,
    failed: dict[str, str],
    three: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parquet_files, name, function)
    assert main(["index", str(three), "--gallery", str(tmp_path / "g"), "--encoder", "wardrobe", "--json", "--quiet"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert (report["added"], set(report["failed"])) == (4, set(failed))
    for id_, reason in failed.items():
        assert "b.parquet: cannot be read as Parquet (reading it " + reason in report["failed"][id_]
    assert set(mm.Gallery.open(tmp_path / "g").ids) == {"a1", "a2", "c1", "c2"}


def test_damaged_files_are_errors_whatever_their_bytes_are(three: Path, tmp_path: Path) -> None:
    """Bytes of a real file are changed one after another: each time there are entries or one error, and never more."""
    whole = (three / "a.parquet").read_bytes()
    folder = shutil.copytree(three, tmp_path / "damaged")
    for position in range(len(whole) - 1, len(whole) - 400, -13):
        changed = bytearray(whole)
        changed[position] ^= 0xFF
        (folder / "a.parquet").write_bytes(changed)
        entries = list(mm.read_source(folder))
        assert {entry.id for entry in entries} >= {"b1", "b2", "c1", "c2"}
