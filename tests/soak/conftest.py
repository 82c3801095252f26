"""What the long tests of `make soak` share: a part of the time for each, and one file that counts what they tried and lost.

MMRETRIEVE_SOAK_MINUTES is the time of all of them together (an hour in `make soak`). MMRETRIEVE_SOAK_REPORT names the JSON file.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

MINUTES = float(os.environ.get("MMRETRIEVE_SOAK_MINUTES", "1"))


def share(item: pytest.Item) -> float:
    """How many parts of the time a test gets: `@pytest.mark.soak(share=3)`; 1 without a number, 0 of a test of another kind."""
    marker = item.get_closest_marker("soak")
    return marker.kwargs.get("share", 1) if marker else 0


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """The time of this test: its share of that of all selected ones."""
    return 60 * MINUTES * share(request.node) / sum(map(share, request.session.items))


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """`record(name, tried=…, lost=…, note=…)` adds to the counts of a fault; a note replaces the one before.

    Call it before the assertion, so that a loss is counted, too. The file has what this run counted, after every call.
    """
    file = Path(os.environ.get("MMRETRIEVE_SOAK_REPORT") or tmp_path_factory.mktemp("soak") / "reliability.json")
    faults: dict[str, dict[str, int | str]] = {}

    def add(name: str, *, tried: int, lost: int, note: str = "") -> None:
        before = faults.get(name, {"tried": 0, "lost": 0, "note": ""})
        faults[name] = {
            "tried": int(before["tried"]) + tried,
            "lost": int(before["lost"]) + lost,
            "note": note or before["note"],
        }
        file.write_text(
            json.dumps({"minutes": MINUTES, "faults": faults}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    return add


@pytest.fixture
def repeat(seconds: float, record: Callable[..., None]) -> Callable[..., int]:
    """`repeat(name, attempt, note)` calls `attempt(0)`, `attempt(1)`, … for the time of this test, and returns how often.

    An attempt that raises has lost something: it is counted, its traceback is printed, and the test fails at the end.
    """

    def run(name: str, attempt: Callable[[int], object], note: str = "") -> int:
        ends, tried, lost = time.monotonic() + seconds, 0, 0
        while tried == 0 or time.monotonic() < ends:
            try:
                attempt(tried)
            except Exception:
                traceback.print_exc()
                lost += 1
            tried += 1
        record(name, tried=tried, lost=lost, note=note)
        assert lost == 0, f"{lost} of {tried}: {name}"
        return tried

    return run
