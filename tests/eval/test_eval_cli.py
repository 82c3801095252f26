"""`python -m eval`, end to end: the wardrobe in the layouts of real benchmarks goes through every command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eval import load_benchmark
from eval.benchmarks import load_suite
from eval.benchmarks.export import export_wardrobe
from eval.cli.main import main
from eval.lists.files import read_lists
from eval.lists.score import score_lists

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wardrobe in three layouts; vectors of its pictures are kept beside them."""
    folder = tmp_path_factory.mktemp("eval")
    for layout in ("cirr", "fashioniq", "circo"):
        export_wardrobe(layout, folder / layout)
    return folder


def words(place: Path, command: str, benchmark: str, out: Path, *more: str) -> list[str]:
    split = "test" if command == "submit" else "val"
    kept = place / "features" / f"{benchmark}-{split}"
    return [command, benchmark, "--root", str(place / benchmark), "--features", str(kept), "--out", str(out), *more]


def json_output(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    where = {name: value for name, value in record["provenance"].items() if name != "seconds"}
    return record | {"provenance": where}


def error_line(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int) -> str:
    """The one line on stderr with which these arguments end."""
    try:
        result = main(arguments)
    except SystemExit as stop:
        result = int(stop.code or 0)
    assert result == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("eval: ")
    return lines[0]


def test_a_run_can_be_repeated_from_its_record(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json_output(capsys, words(place, "run", "cirr", tmp_path, "--pdv", "1.4,1.2,0.75"))
    assert record == json.loads((tmp_path / f"{record['name']}.json").read_text())
    queries = json.loads((tmp_path / f"{record['name']}.queries.json").read_text())
    rows = queries["parts"]["cirr"]
    means = [sum(row["values"][i] for row in rows) / len(rows) for i in range(len(queries["metrics"]))]
    assert dict(zip(queries["metrics"], means, strict=True)) == pytest.approx(record["metrics"])
    hit = rows[0]["hits"][0]
    assert sum(hit["contributions"].values()) == pytest.approx(hit["score"], abs=1e-5)
    assert rows[0]["reference"] not in [hit["id"] for hit in rows[0]["hits"]]
    assert "not the released" in record["remarks"][0]
    again = json_output(capsys, words(place, "run", "cirr", tmp_path / "again", "--pdv", "1.4,1.2,0.75"))
    assert untimed(again) == untimed(record)


def test_each_option_changes_the_expected_result(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (json_output(capsys, words(place, "run", "cirr", tmp_path, "--composer", name)) for name in ("image", "sum"))
    changed = {key for key in one if untimed(one)[key] != untimed(other)[key]}
    assert changed == {"name", "label", "composer", "metrics", "parts", "options"}
    assert {name for name in one["options"] if one["options"][name] != other["options"][name]} == {"composer"}
    assert {key for key, value in one["parts"]["cirr"].items() if value != other["parts"]["cirr"][key]} == {"metrics"}
    kept = json_output(capsys, words(place, "run", "cirr", tmp_path, "--composer", "image", "--reference", "keep"))
    assert kept["metrics"]["recall@1"] == 0  # an image is most similar to itself
    assert "against the protocol" in kept["remarks"][0]
    assert kept["metrics"]["recall_subset@1"] == one["metrics"]["recall_subset@1"]


@pytest.mark.usefixtures("registered")
def test_registered_names_work_in_a_run(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = json_output(capsys, words(place, "run", "cirr", tmp_path, "--composer", "sum", "--rule", "product"))
    record = json_output(capsys, words(place, "run", "cirr", tmp_path, "--composer", "mine", "--rule", "my-rule"))
    assert record["metrics"] == expected["metrics"]
    assert (record["composer"], record["rule"]) == ("mine", "my-rule")
    template = json_output(capsys, words(place, "run", "cirr", tmp_path, "--rewriter", "template"))
    rewritten = json_output(capsys, words(place, "run", "cirr", tmp_path, "--rewriter", "my-rewriter"))
    assert rewritten["metrics"] == template["metrics"]
    with pytest.raises(SystemExit, match="2"):
        main(["run", "cirr", "--composer", "sun"])
    assert "unknown composer 'sun'; did you mean 'sum'? choose from: image, prompt" in capsys.readouterr().err


def test_a_killed_run_resumes_to_the_same_record(place: Path, tmp_path: Path) -> None:
    """Killed with −9 once the first vectors are on disk, and run again; compared with an uninterrupted run."""
    arguments = ["run", "cirr", "--root", str(place / "cirr"), "--composer", "sum"]
    command = [sys.executable, "-m", "eval", *arguments]
    kept, whole, out = tmp_path / "kept", place / "features" / "cirr-val", tmp_path / "out"  # `whole`: shared with other tests
    killed = subprocess.Popen([*command, "--features", str(kept), "--out", str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    rows = kept / "cirr_val" / "rows.f32"
    while killed.poll() is None and not (rows.is_file() and rows.stat().st_size):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = rows.stat().st_size
    assert 0 < done < 1200 * 128 * 4
    assert not out.exists()
    os.truncate(rows, done - 100)  # a write that was torn
    assert main([*arguments, "--features", str(kept), "--out", str(out)]) == 0
    assert main([*arguments, "--features", str(whole), "--out", str(tmp_path / "other")]) == 0
    assert rows.read_bytes() == (whole / "cirr_val" / "rows.f32").read_bytes()
    for path in out.iterdir():
        result, expected = (json.loads(file.read_text()) for file in (path, tmp_path / "other" / path.name))
        assert (untimed(result) if "provenance" in result else result) == (
            untimed(expected) if "provenance" in expected else expected
        )


@pytest.mark.slow
def test_a_sweep_agrees_with_runs_and_its_best_point_can_be_run(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plane = json_output(
        capsys, words(place, "sweep", "cirr", tmp_path, "--tune", "same", "--betas", "0:1:5", "--gammas", "0:2:5")
    )
    base = json_output(capsys, words(place, "run", "cirr", tmp_path))
    published = json_output(capsys, words(place, "run", "cirr", tmp_path, "--pdv", "published"))
    best = json_output(capsys, words(place, "run", "cirr", tmp_path, "--pdv", str(tmp_path / f"{plane['name']}.sweep.json")))
    for run, point in ((base, "base"), (published, "published"), (best, "best")):
        assert run["metrics"] == pytest.approx(plane["points"][point]["metrics"])
    corner = json_output(capsys, words(place, "run", "cirr", tmp_path, "--composer", "image"))
    assert plane["plane"]["recall@10"][0][0] == pytest.approx(corner["metrics"]["recall@10"])
    assert max(map(max, plane["plane"]["recall@1"])) == plane["points"]["best"]["metrics"]["recall@1"]
    assert (tmp_path / f"{plane['name']}.sweep.png").read_bytes().startswith(b"\x89PNG")
    assert plane["tuning"] == {"tuned on": "all queries", "reported on": "all queries"}


@pytest.mark.slow
def test_halves_are_the_default_and_recorded(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(place, "sweep", "fashioniq", tmp_path, "--betas", "0.5:1:2", "--gammas", "1:2:2")) == 0
    assert "tuned on the even queries, reported on the odd queries" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.sweep.json")
    record = json.loads(path.read_text())
    assert list(record["parts"]) == ["fashioniq:dress", "fashioniq:shirt", "fashioniq:toptee"]
    assert record["queries"] == sum(part["queries"] // 2 for part in record["parts"].values())
    assert record["points"]["published"]["setting"] == "cirevl-fashioniq-base"


def test_a_suite_is_the_mean_of_its_parts(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json_output(capsys, words(place, "run", "fashioniq", tmp_path, "--composer", "sum"))
    parts = [part["metrics"] for part in record["parts"].values()]
    assert len(parts) == 3
    for name, value in record["metrics"].items():
        assert value == pytest.approx(sum(part[name] for part in parts) / 3)
    first = json_output(capsys, words(place, "run", "fashioniq", tmp_path, "--composer", "sum", "--prompt-orders", "first"))
    assert first["name"] != record["name"]
    scores = [
        json.loads((tmp_path / f"{one['name']}.queries.json").read_text())["parts"]["fashioniq:dress"][0]["hits"][0]["score"]
        for one in (first, record)
    ]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_submissions_have_the_format_of_the_servers(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cirr = json_output(capsys, words(place, "submit", "cirr", tmp_path, "--pdv", "published"))
    circo = json_output(capsys, words(place, "submit", "circo", tmp_path, "--composer", "sum"))
    assert [Path(path).name for path in cirr["files"]][:2] == ["cirr_test1_recall.json", "cirr_test1_recall_subset.json"]
    recall, subset, only = (json.loads(Path(path).read_text()) for path in (*cirr["files"][:2], circo["files"][0]))
    queries = {query.id: query for query in load_benchmark("cirr", place / "cirr", "test1").queries}
    assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
    assert (subset.pop("version"), subset.pop("metric")) == ("rc2", "recall_subset")
    assert recall.keys() == subset.keys() == queries.keys()
    for id_, query in queries.items():
        assert len(set(recall[id_])) == 50
        assert query.reference not in recall[id_]
        assert len(set(subset[id_])) == 3
        assert set(subset[id_]) <= set(query.candidates or ())
    assert {len(set(ids)) for ids in only.values()} == {50}
    assert list(only) == [str(i) for i in range(len(only))]
    assert all(isinstance(id_, int) for ids in only.values() for id_ in ids)


def test_lists_of_any_origin_are_scored(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best hits of a run, ranked again by hand, score the metrics of the run."""
    bench = load_benchmark("circo", place / "circo", "val")
    lists = {
        query.id: [*query.targets, *(id_ for id_ in bench.gallery_ids if id_ not in query.targets)][:50]
        for query in bench.queries
    }
    file = tmp_path / "lists.json"
    file.write_text(json.dumps({id_: list(map(int, ids)) for id_, ids in lists.items()}))
    arguments = ["score", "circo", "--root", str(place / "circo"), "--split", "val", "--predictions", str(file)]
    result = json_output(capsys, arguments)["metrics"]
    assert result == score_lists(bench, read_lists(file))
    assert result["map@5"] == result["recall@5"] == 100
    assert main(arguments) == 0
    assert "map@5" in capsys.readouterr().out


def test_report_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--pdv", "published"]):
        assert main(words(place, "run", "cirr", tmp_path, *more)) == 0
    assert main(words(place, "sweep", "cirr", tmp_path, "--betas", "0:1:5", "--gammas", "0:2:5")) == 0
    page = tmp_path / "page" / "report.html"
    assert main(["report", str(tmp_path), "--out", str(page), "--root", f"cirr={place / 'cirr'}"]) == 0
    text = page.read_text()
    assert "captions (tagger, template) + PDV-F 1.4/1.2/0.75" in text
    assert text.count("data:image/jpeg;base64,") > 20
    assert str(place) not in text
    assert f"written to {page}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run", "cirr", "--root", "nowhere"], 1, "nowhere"),
        (["run", "cirr"], 2, "cirr needs its folder: give --root FOLDER with"),
        (["run", "imagenet"], 2, "choose from: cirr, fashioniq"),
        (["run", "cirr", "--root", "{cirr}", "--split", "train"], 2, "choose from: val, test1"),
        (["run", "cirr", "--root", "{cirr}", "--split", "test1"], 1, "not public"),
        (["run", "cirr", "--root", "{circo}"], 1, "there is no"),
        (["run", "cirr", "--root", "{cirr}", "--pdv", "1,2"], 2, "unknown setting"),
        (["run", "cirr", "--root", "{cirr}", "--pdv", "1,2,3"], 2, "beta"),
        (["run", "cirr", "--root", "{cirr}", "--pdv", "ldre", "--weights", "balanced"], 2, "not both"),
        (["run", "cirr", "--root", "{cirr}", "--concept"], 1, "no shared concepts"),
        (["run", "cirr", "--root", "{cirr}", "--composer", "image", "--pdv", "ldre"], 2, "PDV weighs"),
        (
            ["run", "cirr", "--root", "{cirr}", "--composer", "pic2word", "--encoder", "wardrobe"],
            2,
            "'pic2word' cannot use this phi, which was trained for 'searle' and 'lincir'",
        ),
        (["run", "cirr", "--root", "{cirr}", "--composer", "one-step"], 2, "needs a describer"),
        (["sweep", "cirr", "--root", "{cirr}", "--composer", "sum"], 2, "'sum' does not have them all"),
        (
            ["sweep", "cirr", "--root", "{cirr}", "--composer", "lincir", "--rule", "hinge"],
            1,
            "the 'hinge' rule are not linear",
        ),
        (["sweep", "cirr", "--root", "{cirr}", "--gammas", "1:1:5"], 1, "equal steps"),
        (["submit", "fashioniq", "--root", "{fashioniq}"], 2, "no server scores"),
        (["submit", "cirr", "--root", "{cirr}", "--allow-missing"], 2, "leave --allow-missing out"),
        (["export-wardrobe", "cirr", "{cirr}"], 2, "not an empty folder"),
        (["report", "{cirr}"], 1, "no record"),
        (["score", "circo", "--root", "{circo}", "--predictions", "none.json"], 1, "none.json"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    named = {layout: str(place / layout) for layout in ("cirr", "fashioniq", "circo")}
    arguments = [word.format(**named) for word in arguments]
    if arguments[0] in ("run", "sweep", "submit"):
        split = "test" if "test1" in arguments or arguments[0] == "submit" else "val"
        arguments += ["--out", str(tmp_path / "out"), "--features", str(place / "features" / f"cirr-{split}")]
    assert message in error_line(capsys, arguments, status)
    assert not (tmp_path / "out").exists()


def test_a_record_of_another_run_is_not_replaced(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lincir = words(place, "run", "cirr", tmp_path, "--composer", "lincir")
    one, other = (json_output(capsys, [*lincir, f"--pdv={knobs}"]) for knobs in ("1,1,0.5", "-1,-1,0.5"))
    assert one["name"] != other["name"]
    arguments = words(place, "run", "cirr", tmp_path, "--name", "mine", "--composer")
    assert main([*arguments, "image"]) == 0
    before = (tmp_path / "mine.json").read_bytes()
    capsys.readouterr()
    assert "exists and belongs to another run" in error_line(capsys, [*arguments, "sum"], 1)
    assert (tmp_path / "mine.json").read_bytes() == before
    assert "not a path" in error_line(capsys, words(place, "run", "cirr", tmp_path, "--name", "../mine"), 2)
    assert "would overwrite a record" in error_line(capsys, ["report", str(tmp_path), "--out", str(tmp_path / "mine.json")], 2)
    submit = words(place, "submit", "cirr", tmp_path / "s", "--composer")
    assert main([*submit, "image"]) == 0
    capsys.readouterr()
    assert "cirr_test1_recall.json exists" in error_line(capsys, [*submit, "sum"], 1)


def test_vectors_of_another_encoder_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = words(place, "run", "cirr", tmp_path / "out", "--composer", "image")
    assert main(arguments) == 0
    capsys.readouterr()
    assert "holds other vectors: preprocessing" in error_line(capsys, [*arguments, "--preprocessing", "targetpad"], 1)
    assert "holds other vectors: dtype" in error_line(capsys, [*arguments, "--dtype", "bfloat16"], 1)


def test_missing_images_are_listed_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_wardrobe("cirr", tmp_path / "cirr")
    (bench,) = load_suite("cirr", tmp_path / "cirr")
    gone = bench.queries[0].targets[0]
    bench.image_path(gone).unlink()
    arguments = ["run", "cirr", "--root", str(tmp_path / "cirr"), "--features", str(tmp_path / "kept"), "--composer", "sum"]
    arguments += ["--out", str(tmp_path / "out")]
    line = error_line(capsys, arguments, 1)
    assert f"{gone}.png" in line
    assert "1 of 1200 images" in line
    assert not (tmp_path / "out").exists()
    record = json_output(capsys, [*arguments, "--allow-missing"])
    kept = [query for query in bench.queries if gone not in query.image_ids]
    assert record["parts"]["cirr"]["gallery"] == 1199
    assert record["parts"]["cirr"]["queries"] == len(kept)
    assert any("1 of 1,200 images were missing" in remark for remark in record["remarks"])
