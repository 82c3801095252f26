"""Processes that are started beside searching threads: each answers as the first one does, or is refused in one line."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fork_children
import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.errors import GalleryError
from mmretrieve.forks import FORK_GATE, FORK_SECONDS, ForkGate
from mmretrieve.gallery.store import connections

SOAK = int(os.environ.get("MMRETRIEVE_SOAK", "1"))
METHODS = (
    ["os.fork", "fork"] if SOAK == 1 else ["os.fork", "fork", "spawn", "forkserver"]
)  # what imports everything again is slow
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this machine has no fork")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    count = 2_000
    gallery = mm.Gallery.from_vectors(
        tmp_path_factory.mktemp("forks") / "g",
        [f"{i}" for i in range(count)],
        np.random.default_rng(0).normal(size=(count, 16)),
        fields=[{"number": i} for i in range(count)],
    )
    return gallery.path


@pytest.mark.parametrize("method", METHODS)
def test_a_process_beside_searching_threads_answers(path: Path, method: str) -> None:
    command = [sys.executable, fork_children.__file__, path, method, str(3 * SOAK)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=200 * SOAK, env={**os.environ, "OMP_NUM_THREADS": "3"}
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stdout + ended.stderr


def test_a_gallery_can_be_sent_to_another_process(path: Path) -> None:
    gallery = mm.Gallery.open(path, device="cpu")
    assert pickle.loads(pickle.dumps(gallery)).ids == gallery.ids


def in_child(check: object) -> str:
    """What a forked process says of a call: "" or the error."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            check()  # type: ignore[operator]
        except GalleryError as error:
            os.write(sender, str(error).encode())
        finally:
            os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver) as file:
        return file.read()


def test_an_index_on_a_gpu_is_refused_in_a_forked_process(path: Path) -> None:
    index = mm.Gallery.open(path, device="cpu")._view.index
    index.max_k = 100  # as on a GPU
    query = np.ones((1, 16), np.float32)
    assert len(index.search(query, 3)) == 1
    assert in_child(lambda: index.search(query, 3)) == (
        "a GPU cannot be used in a forked process; start it with multiprocessing.get_context('spawn')"
    )


def test_a_process_forked_within_a_write_neither_ends_it_nor_uses_its_connection(tmp_path: Path) -> None:
    """As an encoder with workers forks within `add`."""
    gallery = mm.Gallery.from_vectors(tmp_path / "g", ["a"], [[1.0, 0.0]])
    store = gallery._store
    with store.writing():
        assert store.ledger.meta()["rows"] == 1
        assert in_child(lambda: gallery.add_vectors(["b"], [[0.0, 1.0]])).endswith(
            "another process is writing to this gallery; wait until it is done"
        )
        assert in_child(lambda: store.ledger.meta()) == ""
        with pytest.raises(GalleryError, match="another process is writing"):
            mm.Gallery.open(gallery.path).delete(["a"])
        store.ledger.set_meta(title_field=None)
    gallery.add_vectors(["c"], [[0.0, 1.0]])
    assert (mm.Gallery.open(gallery.path).ids, gallery.verify()) == (("a", "c"), [])


def test_connections_of_a_dropped_gallery_are_closed_while_no_thread_forks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite takes a lock of the process, which a forked one would never get."""
    threads: list[int] = []
    close = connections._close

    def closing(connection: Any) -> None:
        threads.append(FORK_GATE._inside)
        close(connection)

    monkeypatch.setattr(connections, "_close", closing)
    gallery = mm.Gallery.open(path, device="cpu")
    assert len(gallery.search(np.ones(16, np.float32), 3)) == 3
    del gallery
    gc.collect()
    assert threads
    assert min(threads) > 0


def test_calls_of_the_forking_thread_do_not_wait_for_its_fork() -> None:
    gate = ForkGate()
    for within in (False, True):
        with gate.no_fork() if within else nullcontext():
            started = time.monotonic()
            gate.before_fork()
            with gate.no_fork():
                assert time.monotonic() - started < FORK_SECONDS / 2
            gate.after_fork_in_parent()
            assert (gate._depth, gate._inside, gate._forking) == (within, within, 0)


def test_a_fork_is_not_kept_waiting_by_calls_that_begin_after_it() -> None:
    gate, stop = ForkGate(), Event()

    def call() -> None:
        while not stop.is_set():
            with gate.no_fork():
                time.sleep(0.01)

    threads = [Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            started = time.monotonic()
            gate.before_fork()
            assert gate._inside == 0
            gate.after_fork_in_parent()
            assert time.monotonic() - started < FORK_SECONDS / 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()
