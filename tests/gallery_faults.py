"""Faults that a gallery must survive, one attempt at a time: killed writers, full disks, two writers, locks, a clock set back.

An attempt copies a gallery of a known life into a folder, does harm while a command runs there, and checks what is left. It raises where
anything was lost. `tests/gallery/test_kill.py` makes a few attempts of each; `make soak` repeats them for its share of an hour.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from helpers import COLOUR_DIM, ColourEncoder
from PIL import Image

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.gallery import ingest
from mmretrieve.gallery.store.records import StaleViewError
from mmretrieve.scoring import term_scores
from mmretrieve.vectors import unit

PICTURES = 96
BATCH_SIZE = 8  # so that a command commits many times
LIFE = ("add", "build", "delete", "update", "compact", "add", "build")
QUERY = Composition(("query",), unit(np.linspace(1, 2, COLOUR_DIM)[None]), (1.0,))
FORKS = get_context("forkserver")  # each command runs in a process of its own, which need not import numpy and FAISS again
FORKS.set_forkserver_preload(["numpy", "faiss", "pytest", "PIL.Image", "mmretrieve.gallery.gallery"])


def paint(folder: Path, seed: int, count: int = PICTURES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")


def command(name: str, path: Path, source: Path) -> None:
    """One command of a gallery's life. Each can be run again."""
    gallery = mm.Gallery.open(path, encoder=ColourEncoder(), device="cpu")
    if name == "add":
        gallery.add(source / "first")
    elif name == "delete":
        gallery.delete([id_ for id_ in (f"{i:03}.png" for i in range(0, PICTURES, 3)) if id_ in gallery.ids])
    elif name == "update":
        gallery.sync(source / "second")
    elif name == "compact":
        gallery.compact()
    else:
        gallery.build_index("IVF4,SQ8", recall=1.0)


def run(answers: Connection, limit: int, name: str, path: Path, source: Path) -> None:
    """One command in a process of its own. It sends "ready", then "done" or the error that ended it."""
    ingest.INGEST_BATCH_SIZE = BATCH_SIZE
    if limit >= 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    answers.send("ready")
    try:
        command(name, path, source)
        answers.send("done")
    except Exception as error:
        answers.send(f"{type(error).__name__} {error}")


@contextmanager
def running(name: str, path: Path, source: Path, limit: int = -1) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that has begun that command, and what it sends. `limit`: the bytes that a file may have in it."""
    receiver, sender = FORKS.Pipe(duplex=False)
    child = FORKS.Process(target=run, args=(sender, limit, name, path, source))
    child.start()
    sender.close()
    with receiver:
        assert receiver.recv() == "ready"
        yield child, receiver
        child.join()


def sent(answers: Connection) -> str | None:
    """What a process sent last; None of one that was killed before."""
    try:
        return str(answers.recv())
    except EOFError:
        return None


def state(path: Path) -> tuple[Any, ...]:
    gallery = mm.Gallery.open(path, device="cpu")
    hits = [(hit.id, hit.score) for hit in gallery.search(QUERY, 20)]
    return gallery.ids, gallery.vectors().tobytes(), [gallery.item(id_).hash for id_ in gallery.ids], hits


def check(path: Path, name: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """What must hold of a gallery whose `name` was killed on its way from one list of ids to the other."""
    gallery = mm.Gallery.open(path, device="cpu")
    assert gallery.verify() == []
    ids = gallery.ids
    assert len(set(ids)) == len(ids)
    if name == "add":
        assert ids == after[: len(ids)]
        assert ids[: len(before)] == before
    elif name in ("delete", "compact", "build"):
        assert ids in (before, after)
    else:
        assert set(ids) >= set(before) & set(after)
        assert set(ids) <= set(before) | set(after)


def read(path: Path) -> int:
    """Opens a gallery and searches it: hits are items, best first, each with the exact score of its vector. Returns their number."""
    while True:
        try:
            gallery = mm.Gallery.open(path, device="cpu")
            ids, vectors, hits = gallery.ids, gallery.vectors(), gallery.search(QUERY, 20)
            break
        except StaleViewError:  # compacted meanwhile
            continue
    exact = dict(zip(ids, term_scores(QUERY.terms, vectors)[0].tolist(), strict=True))
    scores = [hit.score for hit in hits]
    assert [exact[hit.id] for hit in hits] == scores == sorted(scores, reverse=True)
    assert len(scores) == min(20, len(ids))
    return len(scores)


def read_until(stop: Connection, path: Path) -> None:
    """Reads until anything is sent, then sends how often it read, or what failed."""
    count = 0
    try:
        while not stop.poll():
            read(path)
            count += 1
        stop.send(count)
    except Exception as error:
        stop.send(f"{type(error).__name__} {error}")


class Life:
    """Sources, and a gallery after each command of an undisturbed life, the empty one first."""

    def __init__(self, folder: Path) -> None:
        self.source, self.took, self.moments = folder, dict.fromkeys(LIFE, 0.3), random.Random(11)
        paint(folder / "first", 1)
        paint(folder / "second", 2, PICTURES // 2)
        for path in sorted((folder / "first").iterdir())[::2]:
            shutil.copy(path, folder / "second" / f"again-{path.name}")
        mm.Gallery.create(folder / "0", encoder=ColourEncoder())
        usual, ingest.INGEST_BATCH_SIZE = ingest.INGEST_BATCH_SIZE, BATCH_SIZE
        for number, name in enumerate(LIFE, start=1):
            shutil.copytree(folder / str(number - 1), folder / str(number))
            command(name, folder / str(number), folder)
        ingest.INGEST_BATCH_SIZE = usual
        self.states = [state(folder / str(number)) for number in range(len(LIFE) + 1)]

    @contextmanager
    def stage(self, step: int, folder: Path) -> Iterator[Path]:
        """A copy of the gallery before a command, removed at the end."""
        path = folder / f"{step}-{os.getpid()}"
        shutil.copytree(self.source / str(step), path)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def finish(self, step: int, path: Path) -> None:
        """Runs the command again, to its end: the gallery is then as if nothing had happened."""
        usual, ingest.INGEST_BATCH_SIZE = ingest.INGEST_BATCH_SIZE, BATCH_SIZE
        try:
            command(LIFE[step], path, self.source)
        finally:
            ingest.INGEST_BATCH_SIZE = usual
        assert mm.Gallery.open(path, device="cpu").verify() == []
        assert state(path) == self.states[step + 1], (step, LIFE[step])

    def check(self, step: int, path: Path) -> None:
        check(path, LIFE[step], self.states[step][0], self.states[step + 1][0])

    def assert_survives_kill(self, number: int, folder: Path, *, beside_a_reader: bool = False) -> bool:
        """Kills a command at a random moment. Returns whether it had not ended."""
        step = number % len(LIFE)
        name = LIFE[step]
        with self.stage(step, folder) as path:
            reader, stop = self._reader(path) if beside_a_reader else (None, None)
            with running(name, path, self.source) as (child, answers):
                started = time.perf_counter()
                time.sleep(self.moments.uniform(0, 1.1 * self.took[name]))
                child.kill()
                is_done = sent(answers) == "done"
                if is_done:
                    self.took[name] = min(self.took[name], time.perf_counter() - started)
            if reader is not None and stop is not None:
                self._end(reader, stop)
            self.check(step, path)
            self.finish(step, path)
        return not is_done

    def assert_survives_full_disk(self, number: int, folder: Path, room: int) -> None:
        """The kernel lets no file grow beyond a limit: writing fails as on a full disk."""
        step = number % len(LIFE)
        with self.stage(step, folder) as path:
            largest = max(file.stat().st_size for file in path.iterdir()) if room else 0
            with running(LIFE[step], path, self.source, room and largest + room - 5_000) as (_, answers):
                answer = str(sent(answers))
            assert answer == "done" or answer.startswith("GalleryError "), answer
            assert "\n" not in answer
            self.check(step, path)
            command(LIFE[step], path, self.source)
            assert set(state(path)[0]) == set(self.states[step + 1][0])
            assert mm.Gallery.open(path, device="cpu").verify() == []

    def assert_survives_two_writers(self, number: int, folder: Path) -> None:
        """Two processes run the same command at once: each ends, or says that another one writes."""
        step = number % len(LIFE)
        with self.stage(step, folder) as path, running(LIFE[step], path, self.source) as (_, first):
            with running(LIFE[step], path, self.source) as (_, second):
                answers = {str(sent(first)), str(sent(second))}
            assert "done" in answers, answers
            assert all("another process is" in answer for answer in answers - {"done"}), answers
            self.check(step, path)
            self.finish(step, path)

    def assert_waits_for_lock(self, number: int, folder: Path, seconds: float) -> None:
        """Another program holds the ledger for a while, as a backup does: the command waits and loses nothing."""
        step = number % len(LIFE)
        with self.stage(step, folder) as path, closing(sqlite3.connect(path / "gallery.sqlite")) as db:
            db.execute("BEGIN EXCLUSIVE")
            with running(LIFE[step], path, self.source) as (_, answers):
                time.sleep(seconds)
                db.rollback()
                assert sent(answers) == "done"
            assert state(path) == self.states[step + 1]

    def assert_survives_clock_set_back(self, number: int, folder: Path) -> None:
        """Files change while the clock is set back by a random time: `sync` sees each change, and nothing else."""
        source, path = folder / "clock", folder / "clock.gallery"
        paint(source, 1, 6)
        try:
            mm.Gallery.create(path, encoder=ColourEncoder()).sync(source)
            for name, seed in (("000.png", 2 + number), ("003.png", 3 + number)):
                past = (source / name).stat().st_mtime - self.moments.uniform(1e-3, 1e9)
                paint(folder / "new", seed, 1)
                shutil.copy(folder / "new" / "000.png", source / name)
                os.utime(source / name, (past, past))
            report = mm.Gallery.open(path, encoder=ColourEncoder()).sync(source)
            assert (report.added, report.updated, report.removed) == (0, 2, 0), report
            fresh = mm.Gallery.create(folder / "fresh.gallery", encoder=ColourEncoder())
            fresh.sync(source)
            gallery = mm.Gallery.open(path)
            assert gallery.verify() == []
            assert gallery.vectors(fresh.ids).tobytes() == fresh.vectors().tobytes()
        finally:
            for each in ("clock", "clock.gallery", "fresh.gallery", "new"):
                shutil.rmtree(folder / each, ignore_errors=True)

    def compact_beside_a_reader(self, number: int, folder: Path) -> int:
        """A process reads while another deletes, compacts and adds. Returns how often it read."""
        with self.stage(2, folder) as path:
            reader, stop = self._reader(path)
            for name in ("delete", "compact", "add", *(["build"] if number % 2 else [])):
                command(name, path, self.source)
            count = self._end(reader, stop)
            assert mm.Gallery.open(path, device="cpu").verify() == []
            assert sorted(mm.Gallery.open(path).ids) == sorted(self.states[2][0])
        return count

    def _reader(self, path: Path) -> tuple[BaseProcess, Connection]:
        ours, theirs = FORKS.Pipe()
        reader = FORKS.Process(target=read_until, args=(theirs, path))
        reader.start()
        theirs.close()
        return reader, ours

    def _end(self, reader: BaseProcess, stop: Connection) -> int:
        stop.send("stop")
        answer = stop.recv()
        reader.join()
        stop.close()
        assert isinstance(answer, int), answer
        return answer
