"""Processes that meet in one gallery, repeated: two first writers, forks beside searching threads, kills at every system call, flipped bits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm

Repeat = Callable[..., int]
FIRST = """
import sys, numpy as np, mmretrieve as mm
from mmretrieve.errors import GalleryError
sys.stdin.readline()
try:
    gallery = mm.Gallery.for_vectors(sys.argv[1], mm.EncoderIdentity("m", "w", "p"), 4)
    gallery.add_vectors([sys.argv[2]], np.ones((1, 4)))
    print("written")
except GalleryError as error:
    print(error)
"""


@pytest.mark.soak
def test_two_first_writers(tmp_path: Path, repeat: Repeat) -> None:
    def create_twice(number: int) -> None:
        path = tmp_path / str(number)
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", FIRST, path, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in "ab"
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        said = [writer.communicate(timeout=120)[0].strip() for writer in writers]
        written = {name for name, line in zip("ab", said, strict=True) if line == "written"}
        gallery = mm.Gallery.open(path)
        assert written
        assert (set(gallery.ids), gallery.verify()) == (written, [])
        assert not [line for line in said if "\n" in line or not line]
        shutil.rmtree(path)

    repeat("two processes create one gallery at once", create_twice, "one works or both in turn")


@pytest.mark.soak(share=2)
def test_forks_beside_searching_threads(tmp_path: Path, repeat: Repeat) -> None:
    program = Path(__file__).parents[1] / "gallery" / "fork_children.py"
    count = 2_000
    mm.Gallery.from_vectors(
        tmp_path / "g",
        [f"{i}" for i in range(count)],
        np.random.default_rng(0).normal(size=(count, 16)),
        fields=[{"number": i} for i in range(count)],
    )

    def fork(number: int) -> None:
        method = ("os.fork", "fork", "spawn", "forkserver")[number % 4]
        ended = subprocess.run(
            [sys.executable, program, tmp_path / "g", method, "5"],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "OMP_NUM_THREADS": "3"},
        )
        assert (ended.returncode, ended.stdout) == (0, ""), ended.stdout + ended.stderr

    repeat("five processes are started beside searching threads", fork, "fork, spawn and forkserver; each answers as the first")


@pytest.mark.soak
def test_longer_forms_of_the_tests_of_the_store(repeat: Repeat) -> None:
    """All states of a killed compaction, and more flipped bits."""
    folder = Path(__file__).parents[1] / "gallery"

    def run(number: int) -> None:
        name = ("test_kill_points.py", "test_damage.py")[number % 2]
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "3000", folder / name]
        ended = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "MMRETRIEVE_SOAK": "3"})
        assert ended.returncode == 0, ended.stdout[-3000:]

    repeat("a compaction is killed at each of its system calls; bits are flipped before each command", run)
