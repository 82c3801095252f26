"""A compaction that is killed at any moment has happened or not, is no damage, and goes on with the next write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import kill_points
import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.gallery.index import manager

STEP = 9 if os.environ.get("MMRETRIEVE_SOAK", "1") == "1" else 1  # every ninth state is compacted again; in `make soak` all
pytestmark = pytest.mark.skipif(not kill_points.AVAILABLE, reason="system calls are stopped on Linux on x86-64 only")


def test_a_compaction_killed_at_any_moment_is_no_damage(tmp_path: Path) -> None:
    count, copies = 45, tmp_path / "copies"
    gallery = mm.Gallery.from_vectors(
        tmp_path / "g",
        [f"item {i}" for i in range(count)],
        np.random.default_rng(0).normal(size=(count, 8)),
        fields=[{"number": i} for i in range(count)],
    )
    gallery.build_index("IVF2,SQ8")
    gallery.delete(gallery.ids[::3])
    ids, vectors = gallery.ids, gallery.vectors()
    done = subprocess.run(
        [sys.executable, kill_points.__file__, gallery.path, copies, "compact"], capture_output=True, text=True
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine does not allow ptrace")
    assert done.returncode == 0, done.stderr
    states = sorted(copies.iterdir(), key=lambda path: int(path.name))
    assert len(states) > 60
    for number, path in enumerate(states):
        killed = mm.Gallery.open(path, device="cpu")
        assert (killed.verify(), killed.ids) == ([], ids), path.name
        np.testing.assert_array_equal(killed.vectors(), vectors)
        if number % STEP == 0:
            killed.compact()
            info = killed.info()
            assert (killed.verify(), killed.ids) == ([], ids), path.name
            assert (info["deleted"], info["index"]["factory"], info["index"]["rows"]) == (0, "IVF2,SQ8", len(ids)), path.name


def test_a_searching_process_hinders_neither_compaction_nor_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that open the gallery again and again, with its files mapped, while another compacts and builds."""
    monkeypatch.setattr(manager, "N_QUERIES", 10)
    gallery = mm.Gallery.from_vectors(
        tmp_path / "g", [f"{i}" for i in range(200)], np.random.default_rng(0).normal(size=(200, 8))
    )
    gallery.build_index("IVF2,SQ8")
    search = (
        "import sys, numpy as np, mmretrieve as mm\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    gallery = mm.Gallery.open(sys.argv[1], device='cpu')\n"
        "    for _ in range(3):\n"
        "        hits = gallery.search(np.ones(8), 5, where='width IS NULL').ids\n"
        "        assert len(hits) == 5 and set(hits) <= set(gallery.ids), hits\n"
        "        gallery.refresh()\n"
    )
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", search, gallery.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
        for number in range(30):
            gallery.delete(gallery.ids[:2])
            assert gallery.compact() == 2
            assert gallery.info()["index"]["factory"] == "IVF2,SQ8", "the index that was asked for"
            if number % 6 == 0:
                gallery.build_index("IVF2,SQ8")
        assert [reader.poll() for reader in readers] == [None, None], [
            reader.stderr and reader.stderr.read() for reader in readers
        ]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    assert gallery.verify() == []
