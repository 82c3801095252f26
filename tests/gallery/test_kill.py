"""Killed with −9 at any moment of any command, a gallery opens well, has lost nothing, and ends as if nothing had happened.

The same holds of full disks, two writers, locks, a clock set back, and of readers beside all that. `make soak` tries more.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gallery_faults import LIFE, Life

KILLS = 42  # six of each command


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return Life(tmp_path_factory.mktemp("life"))


@pytest.mark.timeout(900)
def test_killed_at_any_moment_of_any_command(life: Life, tmp_path: Path) -> None:
    unfinished = sum(life.assert_survives_kill(number, tmp_path) for number in range(KILLS))
    assert unfinished > KILLS // 4


@pytest.mark.parametrize("number", [0, 3, 4])
def test_a_reader_beside_a_killed_writer_sees_a_whole_gallery(life: Life, tmp_path: Path, number: int) -> None:
    life.assert_survives_kill(number, tmp_path, beside_a_reader=True)


@pytest.mark.parametrize("name", LIFE[:5])
@pytest.mark.parametrize("room", [0, 5_000])
def test_a_full_disk_keeps_what_was_committed(life: Life, tmp_path: Path, name: str, room: int) -> None:
    life.assert_survives_full_disk(LIFE.index(name), tmp_path, room)


@pytest.mark.parametrize("name", LIFE[:5])
def test_two_writers_take_turns_or_one_is_refused(life: Life, tmp_path: Path, name: str) -> None:
    life.assert_survives_two_writers(LIFE.index(name), tmp_path)


@pytest.mark.parametrize("name", ["add", "compact"])
def test_a_locked_ledger_is_waited_for(life: Life, tmp_path: Path, name: str) -> None:
    life.assert_waits_for_lock(LIFE.index(name), tmp_path, 0.3)


def test_changes_are_seen_though_the_clock_was_set_back(life: Life, tmp_path: Path) -> None:
    life.assert_survives_clock_set_back(0, tmp_path)


def test_a_reader_beside_compaction_always_finds_everything(life: Life, tmp_path: Path) -> None:
    assert life.compact_beside_a_reader(1, tmp_path) > 0
