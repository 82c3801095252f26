"""The comparison with other systems: its measures are right, and a system that is missing or fails is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.peers_report import plot_name, tables
from benchmarks.systems import phases
from benchmarks.systems.base import Rows, overfetch
from benchmarks.systems.phases import Data
from benchmarks.systems.registry import SYSTEMS, Entry
from docs import peers as peers_page

EXACT = ("mmretrieve", "FAISS flat")
N_QUERIES = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    data = Data(tmp_path_factory.mktemp("data"))
    assert peers.write_data(data, 1_000, N_QUERIES) == {"vectors": 1_000, "dim": 512, "added": 100}
    return data


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_measured_from_build_to_delete(name: str, data: Data, tmp_path: Path) -> None:
    if not SYSTEMS[name].is_installed:
        pytest.skip(f"{SYSTEMS[name].package} is not installed; `make peers` makes an environment with it")
    folder = tmp_path / "system"
    built = phases.build(name, folder, data)
    tuned = phases.tune(name, folder, data, 0.99)
    searched = phases.search(name, folder, data, tuned["effort"], 5)
    written = phases.write(name, folder, data, tuned["effort"])
    assert built["bytes"] >= 1_000 * 512 * 2  # all keep every vector in float16 at least
    assert tuned["index"]
    assert tuned["recall of tuning"] >= 0.99
    assert [len(searched["searches"][part]["ms"]) for part in phases.FILTERS] == [N_QUERIES, 5, 5]
    if name in EXACT:
        assert [one["recall_at_10"] for one in searched["searches"].values()] == [1, 1, 1]
    assert written["items"] == 100
    assert written["share of added items found"] == 1
    assert written["deleted items are gone"] if isinstance(written["delete one"], dict) else written["delete one"]


def test_mmretrieve_and_faiss_are_always_measured() -> None:
    assert list(peers.installed(["mmretrieve", "FAISS flat", "FAISS IVF", "FAISS HNSW"])) == list(SYSTEMS)[:4]


def test_the_first_effort_that_reaches_the_recall_is_taken(data: Data, tmp_path: Path) -> None:
    phases.build("FAISS IVF", tmp_path / "ivf", data)
    efforts = [phases.tune("FAISS IVF", tmp_path / "ivf", data, target) for target in (0.0, 0.9, 0.99)]
    assert efforts[0]["effort"] == 1
    assert efforts[0]["effort"] < efforts[1]["effort"] <= efforts[2]["effort"]
    assert efforts[0]["recall of tuning"] < 0.9 <= efforts[1]["recall of tuning"]


def test_recall_counts_items_that_are_as_good_as_the_last_of_the_best() -> None:
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 1, 2]]
    query = np.float32([[0.8, 0.6, 0, 0]])
    second = np.float32([[0.6, 2]])  # the scores are 0.8, 0.6, 0.6 and 0: two best, the second of them tied
    assert [phases.recall(vectors, query, [np.array(rows)], second) for rows in ([0, 1], [0, 2], [0, 3], [0, 0], [0, 1, 2])] == [
        1, 1, 1 / 2, 1 / 2, 1,
    ]  # fmt: skip


def test_thresholds_are_the_scores_of_the_last_of_the_best() -> None:
    vectors = np.linspace(0, 1, 30, dtype=np.float32)[:, None]
    (score, count), *_ = peers.thresholds(vectors, np.ones((1, 1), np.float32))
    assert (score, count) == (vectors[20, 0], phases.K)
    assert peers.thresholds(vectors[:3], np.ones((1, 1), np.float32)).tolist() == [[0, 3]]


def test_an_index_without_filters_is_asked_for_more_until_enough_pass() -> None:
    passing, asked = np.arange(300) % 3 == 0, []

    def first(count: int) -> Rows:
        asked.append(count)
        return np.arange(20, 20 + count)[: 300 - 20]

    assert overfetch(first, passing, 4).tolist() == [21, 24, 27, 30]
    assert asked == [18]  # 1.5 · 4 / (1 / 3)
    assert overfetch(first, passing, 95).tolist() == list(range(21, 300, 3))
    assert asked[1:] == [300]  # there are no more
    assert overfetch(first, np.arange(300) >= 200, 4).tolist() == [200, 201, 202, 203]
    assert asked[2:] == [18, 36, 72, 144, 288]


def test_a_missing_system_is_skipped_loudly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SYSTEMS, "absent", Entry("no_such_package", "no-such-package", "absent:Absent"))
    assert list(peers.installed(["absent", "FAISS flat"])) == ["FAISS flat"]
    assert capsys.readouterr().err == "SKIPPED absent: no_such_package is not installed here; run `make peers`\n"


def test_a_run_names_what_failed_and_measures_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--sizes",
        "1000",
        "--queries",
        "6",
        "--rounds",
        "1",
        "--systems",
        "broken",
        "FAISS flat",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setitem(SYSTEMS, "broken", Entry("faiss", "faiss-gpu", "faiss_index:Broken"))  # other processes do not know it
    monkeypatch.setattr("sys.argv", ["peers", *arguments])
    peers.main()
    printed = capsys.readouterr()
    assert "FAILED broken: build: KeyError" in printed.err
    result: dict[str, Any] = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    systems = result["data"]["1,000 synthetic"]["systems"]
    assert systems["broken"]["error"].startswith("build: KeyError")
    assert systems["FAISS flat"]["search"]["all"]["recall_at_10"] == 1
    searches, costs = tables(result["data"]["1,000 synthetic"]).split("\n\n")
    head, _, flat, broken = searches.splitlines()
    assert flat.startswith("| FAISS flat | Flat | – | 1.000 |")
    assert broken.startswith("| broken | failed: build: KeyError")
    assert head.count("|") == flat.count("|") == broken.count("|")
    assert costs.splitlines()[2].startswith("| FAISS flat |")
    assert searches in printed.out
    assert costs in printed.out
    assert (tmp_path / "peers-1000-synthetic.png").read_bytes().startswith(b"\x89PNG")


def test_few_vectors_are_refused(data: Data) -> None:
    with pytest.raises(SystemExit, match="at least 1,000 are needed"):
        peers.write_data(data, 500, N_QUERIES)


def test_ratios_are_those_of_rounds_in_turn() -> None:
    def entry(rounds: list[float]) -> dict[str, Any]:
        cost = {"wall": 1.0, "CPU": 1.0}
        search = {
            "recall_at_10": 1.0,
            "ms": {"median": 1.0, "p99": 2.0},
            "CPU ms": {"median": 1.0},
            "CPU ms of the rounds": rounds,
        }
        return {
            "build": {"ms": cost, "peak memory, MB": 1.0},
            "tune": {"index": "graph", "knob": "ef, refine", "effort": (4, 10), "bytes": 2e6},
            "search": dict.fromkeys(phases.FILTERS, search),
            "open, CPU ms": 1.0,
            "peak memory of searching, MB": 1.0,
            "write": {"add": cost, "save": cost, "delete one": "cannot"},
        }

    searches, costs = tables({"systems": {"mmretrieve": entry([1, 4, 2]), "other": entry([2, 4, 6])}}).split("\n\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in searches.splitlines()]
    assert [row[rows[0].index("times mmretrieve")] for row in rows[2:]] == [
        "1.00",
        "2.00",
    ]  # 2 / 1, 4 / 4 and 6 / 2: the median is 2
    assert rows[3][2] == "ef, refine 4, 10"
    assert [line.split("|")[-2].strip() for line in costs.splitlines()[2:]] == ["–", "–"]


def test_the_tables_of_the_guide_are_what_was_measured() -> None:
    result = json.loads(peers_page.RESULT.read_text(encoding="utf-8"))
    text = peers_page.PAGE.read_text(encoding="utf-8")
    assert peers_page.page(text, result) == text, "python -m docs.peers"
    for source, data in result["data"].items():
        assert (peers_page.RESULT.parent / plot_name(source)).exists()
        assert not [name for name, entry in data["systems"].items() if "error" in entry]
