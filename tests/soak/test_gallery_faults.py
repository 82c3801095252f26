"""Faults of writers and disks, repeated: kills, full disks, two writers, locks, a clock set back, readers beside all that."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from gallery_faults import LIFE, Life

Repeat = Callable[..., int]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return Life(tmp_path_factory.mktemp("life"))


@pytest.mark.soak(share=4)
def test_kills_beside_a_searching_reader(life: Life, tmp_path: Path, repeat: Repeat) -> None:
    unfinished = 0

    def kill(number: int) -> None:
        nonlocal unfinished
        unfinished += life.assert_survives_kill(number, tmp_path, beside_a_reader=True)

    tried = repeat("a writing command is killed (−9) beside a searching reader", kill, f"{len(LIFE)} commands in turn")
    assert unfinished > tried // 4


@pytest.mark.soak(share=2)
def test_full_disks(life: Life, tmp_path: Path, repeat: Repeat) -> None:
    room = random.Random(1)
    repeat(
        "the disk is full",
        lambda number: life.assert_survives_full_disk(number, tmp_path, room.randrange(0, 12_000)),
        "at any length of a file",
    )


@pytest.mark.soak
def test_two_writers(life: Life, tmp_path: Path, repeat: Repeat) -> None:
    repeat(
        "two processes write at once",
        lambda number: life.assert_survives_two_writers(number, tmp_path),
        "one works or both in turn",
    )


@pytest.mark.soak
def test_readers_beside_compaction(life: Life, tmp_path: Path, repeat: Repeat) -> None:
    reads = 0

    def compact(number: int) -> None:
        nonlocal reads
        reads += life.compact_beside_a_reader(number, tmp_path)

    repeat("a gallery is compacted beside a searching reader", compact, "every ranking exact")
    assert reads > 0


@pytest.mark.soak
def test_a_locked_ledger(life: Life, tmp_path: Path, repeat: Repeat) -> None:
    moments = random.Random(2)
    lock = lambda number: life.assert_waits_for_lock(number, tmp_path, moments.uniform(0, 1))  # noqa: E731
    repeat("another program locks the ledger", lock, "up to 30 s are waited for")


@pytest.mark.soak
def test_a_clock_set_back(life: Life, tmp_path: Path, repeat: Repeat) -> None:
    repeat(
        "files change after the clock was set back",
        lambda number: life.assert_survives_clock_set_back(number, tmp_path),
        "by up to 30 years",
    )
