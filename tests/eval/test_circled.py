"""CIRCLED: files in its layout over an exported wardrobe, and ways to merge the turns of a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from eval.benchmarks.circled import CircledSession, count_remark, load_sessions
from eval.benchmarks.export import export_wardrobe
from eval.cli.main import main
from eval.studies.conversations import MERGES, measure_conversations
from mmretrieve.errors import MMRetrieveError, OptionError

DRESS, TOP = "red-checked-dress-1815.png", "navy-checked-top-0218.png"


@pytest.fixture(scope="module")
def circo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("circled") / "circo"
    export_wardrobe("circo", folder)
    return folder


def session(benchmark: Any, number: int, turns: int) -> dict[str, Any]:
    """A session in the released form, with ids as file names."""
    query = benchmark.queries[number]
    said = [query.prompts[0], *("with dots", "longer")][:turns]
    return {
        "session_id": f"s{number}",
        "subset": "circo_val",
        "ground_truth_ids": [f"{int(target):012}" for target in query.targets],
        "num_turns": turns,
        "turns": [
            {"turn": at, "reference_image_id": f"{int(query.reference):012}", "relative_caption": prompt}
            for at, prompt in enumerate(said)
        ],
    }


@pytest.mark.slow
def test_the_shell_measures_sessions(circo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = load_benchmark("circo", circo, "val")
    (tmp_path / "circo_val.json").write_text(json.dumps([session(benchmark, i, 1 + i % 3) for i in range(12)]))
    words = ["circled", "circo_val", "--root", str(tmp_path), "--gallery-root", str(circo), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.split()[-3:] == ["12", "8", "4"]
    cells = [line.rsplit(maxsplit=3) for line in lines[: len(MERGES)]]
    shares = {name: list(map(float, own)) for name, *own in cells}
    assert list(shares) == list(MERGES)
    assert len({tuple(own[:1]) for own in shares.values()}) == 1, "the first turn is the same for all"
    assert 0 < shares["all turns"][0] <= 100
    assert "note: 12 sessions, not the 54 of the released circo_val" in lines
    record = json.loads((tmp_path / "out" / "circled_circo_val.json").read_text())
    assert record["hits"]["all turns"] == pytest.approx(shares["all turns"], abs=0.05)


def test_ways_to_merge_turns() -> None:
    turns = CircledSession("s", frozenset("t"), ((DRESS, "in red"), (TOP, "longer"))).requests(2)
    merged = {name: merge(turns) for name, merge in MERGES.items()}
    assert {own["reference_id"] for own in merged.values()} == {TOP}
    assert merged["all turns as one text"]["prompt"] == "in red, longer"
    strengths = {name: own.get("strength") for name, own in merged.items()}
    assert strengths["all turns, decay 0.8"] == pytest.approx([0.8, 1])
    assert merged["all turns"]["prompt"] == ["in red", "longer"]


def test_hits_are_counted_among_the_sessions_that_have_the_turn() -> None:
    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    first = retriever.search(reference_id=DRESS, prompt="in blue", exclude_reference=True, k=10)
    found = CircledSession("a", frozenset([first.ids[9]]), ((DRESS, "in blue"),))
    missed = CircledSession("b", frozenset([DRESS]), ((DRESS, "in blue"), (DRESS, "in red")))
    measured = measure_conversations(retriever, [found, missed], keeps_reference=False)
    assert measured["sessions"] == [2, 1]
    assert {tuple(shares) for shares in measured["hits"].values()} == {(50.0, 0.0)}
    kept = measure_conversations(retriever, [missed], keeps_reference=True)
    assert kept["hits"]["last turn only"] == [100.0, 100.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.update(ground_truth_ids=["999999999999"]), r"record 1: '999999999999' is not in the gallery"),
        (lambda one: one.update(ground_truth_ids=[]), r"record 1: 'ground_truth_ids' should be a list of ids, not \[\]"),
        (lambda one: one.update(turns=[]), "record 1: has no turns"),
        (lambda one: one["turns"][0].pop("relative_caption"), r"turns\[0\]: there is no field 'relative_caption'"),
        (lambda one: one["turns"][0].update(reference_image_id=None), "None is not in the gallery of the benchmark"),
    ],
)
def test_a_damaged_session_is_one_line(
    circo: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    benchmark = load_benchmark("circo", circo, "val")
    one = session(benchmark, 0, 2)
    change(one)
    (tmp_path / "circo_val.json").write_text(json.dumps([one]))
    with pytest.raises(MMRetrieveError, match=message):
        load_sessions(tmp_path, "circo_val", benchmark)


def test_subsets(circo: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark("circo", circo, "val")
    with pytest.raises(OptionError, match="unknown subset of CIRCLED 'circo_test'; choose from: fashioniq_dress_val, "):
        load_sessions(tmp_path, "circo_test", benchmark)
    with pytest.raises(MMRetrieveError, match=r"circo_val\.json"):
        load_sessions(tmp_path, "circo_val", benchmark)
    assert count_remark("circo_val", [CircledSession("s", frozenset("t"), ())] * 54) is None
