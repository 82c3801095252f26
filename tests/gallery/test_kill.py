"""Killed with −9 at any moment of any command, a gallery opens well, has lost nothing, and ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import COLOUR_DIM, ColourEncoder
from PIL import Image

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.gallery import ingest
from mmretrieve.vectors import unit

KILLS = int(os.environ.get("MMRETRIEVE_KILLS", "42"))  # six of each command; `make soak` takes many more
PICTURES = 96
LIFE = ("add", "build", "delete", "update", "compact", "add", "build")
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
    ingest.INGEST_BATCH_SIZE = 8
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
    query = Composition(("query",), unit(np.linspace(1, 2, COLOUR_DIM)[None]), (1.0,))
    hits = [(hit.id, hit.score) for hit in gallery.search(query, 20)]
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


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Sources, and a gallery after each command of an undisturbed life, the empty one first."""
    folder = tmp_path_factory.mktemp("life")
    paint(folder / "first", 1)
    paint(folder / "second", 2, PICTURES // 2)
    for path in sorted((folder / "first").iterdir())[::2]:
        shutil.copy(path, folder / "second" / f"again-{path.name}")
    mm.Gallery.create(folder / "0", encoder=ColourEncoder())
    usual, ingest.INGEST_BATCH_SIZE = ingest.INGEST_BATCH_SIZE, 8
    for number, name in enumerate(LIFE, start=1):
        shutil.copytree(folder / str(number - 1), folder / str(number))
        command(name, folder / str(number), folder)
    ingest.INGEST_BATCH_SIZE = usual
    return folder, [folder / str(number) for number in range(len(LIFE) + 1)]


@pytest.mark.timeout(900)
def test_killed_at_any_moment_of_any_command(
    life: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stages = life
    expected = [state(path) for path in stages]
    monkeypatch.setattr(ingest, "INGEST_BATCH_SIZE", 8)
    moments, took, unfinished = random.Random(11), dict.fromkeys(LIFE, 0.3), 0
    for number in range(KILLS):
        step = number % len(LIFE)
        name, path = LIFE[step], tmp_path / str(number)
        shutil.copytree(stages[step], path)
        with running(name, path, source) as (child, answers):
            started = time.perf_counter()
            time.sleep(moments.uniform(0, 1.1 * took[name]))
            child.kill()
            if sent(answers) == "done":
                took[name] = min(took[name], time.perf_counter() - started)
            else:
                unfinished += 1
        check(path, name, expected[step][0], expected[step + 1][0])
        command(name, path, source)
        assert mm.Gallery.open(path, device="cpu").verify() == []
        assert state(path) == expected[step + 1], (number, name)
        shutil.rmtree(path)
    assert unfinished > KILLS // 4


@pytest.mark.parametrize("name", LIFE[:5])
@pytest.mark.parametrize("room", [0, 5_000])
def test_a_full_disk_keeps_what_was_committed(life: tuple[Path, list[Path]], tmp_path: Path, name: str, room: int) -> None:
    """The kernel lets no file grow beyond a limit: writing fails as on a full disk."""
    source, stages = life
    step, path = LIFE.index(name), tmp_path / "g"
    shutil.copytree(stages[step], path)
    largest = max(file.stat().st_size for file in path.iterdir()) if room else 0
    with running(name, path, source, room and largest + room - 5_000) as (_, answers):
        answer = str(sent(answers))
    assert answer == "done" or answer.startswith("GalleryError "), answer
    assert "\n" not in answer
    check(path, name, state(stages[step])[0], state(stages[step + 1])[0])
    command(name, path, source)
    assert set(state(path)[0]) == set(state(stages[step + 1])[0])
    assert mm.Gallery.open(path, device="cpu").verify() == []
