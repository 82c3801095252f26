"""The short set of benchmarks: what it lists exists, and one run writes results, a table and a plot."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import __main__ as short
from benchmarks.plots import format_number
from benchmarks.script import summarize, write_result
from benchmarks.short_set import SHORT_SET, Headline, ShortRun

RESULTS = Path(__file__).parents[2] / "results"
SEARCH = ShortRun(
    "search",
    ("--sizes", "300", "--kinds", "flat"),
    (Headline("product rule", "ms", ("sizes", "300", "all items", "product rule")),),
)
BROKEN = ShortRun("search_of_nothing", (), ())


@pytest.mark.parametrize("run", SHORT_SET, ids=lambda run: run.name)
def test_what_is_listed_exists(run: ShortRun) -> None:
    assert find_spec(f"benchmarks.{run.name}")
    assert run.headlines
    file = RESULTS / f"{run.name}.json"
    if file.exists() and run.name not in ("peers", "search"):  # these have the size in their keys
        result = json.loads(file.read_text(encoding="utf-8"))
        for headline in run.headlines:
            value = headline.read(result)
            assert isinstance(value, float) or "median" in value, headline


def test_a_run_writes_results_a_table_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert short.main(["--out", str(tmp_path), "--only", "search"], (SEARCH, BROKEN)) == 0
    head, row = capsys.readouterr().out.splitlines()[:2]
    assert head.split() == ["benchmark", "figure", "median", "p10", "p90", "unit"]
    measured = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))["sizes"]["300"]["all items"]["product rule"]
    spread = [format_number(measured[name]) for name in ("median", "p10", "p90")]
    assert row.split() == ["search", "product", "rule", *spread, "ms"]
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert short.main(["--out", str(tmp_path)], (BROKEN,)) == 1
    assert f"FAILED search_of_nothing: see {tmp_path}/search_of_nothing.log" in capsys.readouterr().err
    assert "No module named benchmarks.search_of_nothing" in (tmp_path / "search_of_nothing.log").read_text(encoding="utf-8")


def test_headlines_of_one_unit_share_a_panel() -> None:
    run = ShortRun("a", (), (Headline("x", "ms", ("x",)), Headline("y", "s", ("deep", "y")), Headline("z", "ms", ("z",))))
    spread = {"median": 3.0, "p10": 2.0, "p90": 5.0}
    results = {"a": {"x": 1.0, "deep": {"y": 2.0}, "z": spread}}
    assert short.panels([run], results) == {"a: ms": {"x": 1.0, "z": spread}, "a: s": {"y": 2.0}}
    assert [line.split() for line in short.table([run], results).splitlines()[1:]] == [
        ["a", "x", "1.00", "ms"], ["a", "y", "2.00", "s"], ["a", "z", "3.00", "2.00", "5.00", "ms"],
    ]  # fmt: skip


def test_numbers_have_three_digits_that_count() -> None:
    assert [format_number(value) for value in (0.01234, 0.5, 9.876, 99.95, 1234.5, 0)] == [
        "0.0123", "0.500", "9.88", "100.0", "1,234", "0",
    ]  # fmt: skip


def test_a_summary_has_median_and_spread() -> None:
    assert summarize([float(value) for value in range(101)]) == {"median": 50, "p10": 10, "p90": 90, "p99": 99}


def test_a_result_says_what_it_was_measured_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result({"figure": 1}, tmp_path, "some")
    written = json.loads((tmp_path / "some.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == written
    assert written["figure"] == 1
    assert written["machine"]["cores"] > 0
    assert {"Python", "numpy", "torch"} <= set(written["versions"])
    assert "commit" in written
