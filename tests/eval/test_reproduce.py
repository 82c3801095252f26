"""Published rows with one command: what they need, and runs of them on exported wardrobes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eval.benchmarks.export import export_wardrobe
from eval.cli.main import main, make_parser
from eval.report.published import find_published
from eval.reproductions import METHODS, find_reproduction, reproductions
from mmretrieve.errors import OptionError


def test_every_published_row_of_our_methods_has_a_command(tmp_path: Path) -> None:
    every = list(reproductions())
    assert len({one.name for one in every}) == len(every) > 60
    for one in every:
        published = find_published(one.benchmark)
        assert published is not None
        assert one.published == published.values[one.backbone][one.row]
        files = dict.fromkeys(one.method.files, str(tmp_path))
        options = make_parser().parse_args(one.words("folder", files))
        assert (options.composer, options.benchmark) == (one.method.composer, one.benchmark)
        assert (options.pdv == "published") is ("PDV" in one.row)
        assert one.missing("folder", files) == []
        assert len(one.missing(None, {})) == 1 + len(files)
    assert {one.row.partition(" +")[0] for one in every} == set(METHODS)


def test_what_is_missing_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "pdv-circo-vitl"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in (
        "CIReVL + PDV-F, ViT-L/14, weights ViT-L-14-quickgelu/openai",
        "--root: CIRCO's",
        "--captioner: ",
        "--rewriter: ",
    ):
        assert part in error
    assert main(["reproduce"]) == 0
    assert "pdv-cirevl-circo-vitl        CIReVL + PDV-F, ViT-L/14: map@5 25.67" in capsys.readouterr().out
    with pytest.raises(
        OptionError, match=r"unknown reproduction 'pdv-circo-vitx'; did you mean .*; `python -m eval reproduce` lists all"
    ):
        find_reproduction("pdv-circo-vitx")


def test_a_row_runs_on_an_exported_wardrobe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_wardrobe("circo", tmp_path / "data")
    words = ["--root", str(tmp_path / "data"), "--captioner", "tagger", "--rewriter", "swap", "--encoder", "wardrobe"]
    assert main(["reproduce", "pdv-circo-vitl", "--split", "val", *words, "--out", str(tmp_path / "out")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("python -m eval run circo --root ")
    assert first.endswith("--pdv published --out " + str(tmp_path / "out") + " --name pdv-cirevl-circo-vitl_own-encoder")
    assert any(re.fullmatch(r"map@5 +\d+\.\d\d here,  25\.67 published, [+-]\d+\.\d\d", line) for line in lines)
    reasons = [line for line in lines if line.startswith("not comparable: ")]
    assert reasons[:2] == ["not comparable: another encoder", "not comparable: another split"]
    assert "not the released" in reasons[2]
