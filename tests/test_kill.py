"""Killed with −9 at any moment of any command, a gallery opens well, has lost nothing, and ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.composition import Composition
from mmretrieve.gallery import adding
from mmretrieve.vectors import unit

KILLS = int(os.environ.get("MMRETRIEVE_KILLS", "20"))  # 100 take some two minutes
PICTURES, DIM = 96, 32


class Colours:
    """An encoder quick enough to be killed a hundred times: a few pixels of the picture, as they are."""

    identity = mm.EncoderIdentity("colours", "none", "none")
    dim = DIM
    image_size = 8

    def encode_images(self, images: Iterable[Any], progress: Any = None) -> np.ndarray:  # noqa: ARG002
        pixels = [np.asarray(image.resize((4, 3)), dtype=np.float32).ravel()[:DIM] + 1 for image in images]
        return unit(np.stack(pixels)) if pixels else np.empty((0, DIM), np.float32)

    def encode_texts(self, texts: Iterable[str]) -> np.ndarray:
        raise NotImplementedError


def paint(folder: Path, seed: int, count: int = PICTURES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / f"{i:03}.png")


def command(name: str, path: Path, source: Path) -> None:
    """One command of a gallery's life. Each can be run again."""
    gallery = mm.Gallery.open(path, encoder=Colours(), device="cpu")
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


LIFE = ("add", "build", "delete", "update", "compact", "add", "build")
RUN = "import sys; sys.path.insert(0, sys.argv[1]); import test_kill as t; print('ready', flush=True); t.run(*sys.argv[2:])"


def run(name: str, path: str, source: str) -> None:
    adding.CHUNK = 8
    command(name, Path(path), Path(source))
    print("done", flush=True)


def state(path: Path) -> tuple[Any, ...]:
    gallery = mm.Gallery.open(path, device="cpu")
    query = Composition(("query",), unit(np.linspace(1, 2, DIM)[None]), (1.0,))
    found = [(hit.id, hit.score) for hit in gallery.search(query, 20)]
    return gallery.ids, gallery.vectors().tobytes(), [gallery.item(id_).hash for id_ in gallery.ids], found


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
    mm.Gallery.create(folder / "0", encoder=Colours())
    usual, adding.CHUNK = adding.CHUNK, 8
    for number, name in enumerate(LIFE, start=1):
        shutil.copytree(folder / str(number - 1), folder / str(number))
        command(name, folder / str(number), folder)
    adding.CHUNK = usual
    return folder, [folder / str(number) for number in range(len(LIFE) + 1)]


def test_killed_at_any_moment_of_any_command(
    life: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stages = life
    expected = [state(path) for path in stages]
    monkeypatch.setattr(adding, "CHUNK", 8)
    moments, took, unfinished = random.Random(11), dict.fromkeys(LIFE, 0.3), 0
    for number in range(KILLS):
        step = number % len(LIFE)
        name, path = LIFE[step], tmp_path / str(number)
        shutil.copytree(stages[step], path)
        words = [sys.executable, "-c", RUN, str(Path(__file__).parent), name, str(path), str(source)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            started = time.perf_counter()
            time.sleep(moments.uniform(0, 1.1 * took[name]))
            child.send_signal(signal.SIGKILL)
            if child.stdout.read():
                took[name] = min(took[name], time.perf_counter() - started)
            else:
                unfinished += 1
        check(path, name, expected[step][0], expected[step + 1][0])
        command(name, path, source)
        assert mm.Gallery.open(path, device="cpu").verify() == []
        assert state(path) == expected[step + 1], (number, name)
        shutil.rmtree(path)
    assert unfinished > KILLS // 4
