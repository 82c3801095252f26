"""Published rows with one command: what they need, and runs of them on exported wardrobes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from eval.benchmarks.export import export_wardrobe
from eval.cli.main import main, make_parser
from eval.report.published import find_published
from eval.reproductions import METHODS, find_reproduction, reproductions
from mmretrieve import PUBLISHED
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
        assert (options.pdv in PUBLISHED) is ("PDV" in one.row)
        assert one.missing(tmp_path, files) == []
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
    own = ["--root", "no-folder", "--captioner", "no.json", "--rewriter", "swap"]
    assert main(["reproduce", "pdv-circo-vitl", *own]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "COCO unlabeled2017 (no-folder does not exist); --captioner: " in error
    assert error.endswith(" (no.json does not exist)\n")
    assert main(["reproduce"]) == 0
    assert "pdv-cirevl-circo-vitl        CIReVL + PDV-F, ViT-L/14: map@5 25.67" in capsys.readouterr().out
    with pytest.raises(
        OptionError, match=r"unknown reproduction 'pdv-circo-vitx'; did you mean .*; `python -m eval reproduce` lists all"
    ):
        find_reproduction("pdv-circo-vitx")


@pytest.mark.slow
def test_a_row_runs_on_an_exported_wardrobe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_wardrobe("circo", tmp_path / "data")
    words = ["--root", str(tmp_path / "data"), "--captioner", "tagger", "--rewriter", "swap", "--encoder", "wardrobe"]
    assert main(["reproduce", "pdv-circo-vitl", "--split", "val", *words, "--out", str(tmp_path / "out")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("python -m eval run circo --root ")
    assert first.endswith(
        "--pdv cirevl --captioner tagger --rewriter swap --out "
        + str(tmp_path / "out")
        + " --name pdv-cirevl-circo-vitl_own-encoder"
    )
    assert any(re.fullmatch(r"map@5 +\d+\.\d\d here,  25\.67 published, [+-]\d+\.\d\d", line) for line in lines)
    reasons = [line for line in lines if line.startswith("not comparable: ")]
    assert reasons[:2] == ["not comparable: another encoder", "not comparable: another split"]
    assert "not the released" in reasons[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pdv-searle-circo-vitb", ["--pdv", "searle-base"]),
        ("pdv-searle-cirr-vitl", ["--pdv", "searle-large"]),
        ("pdv-searle-fashioniq-vitl", ["--pdv", "searle-fashioniq-large"]),
        ("pdv-cirevl-fashioniq-vitg", ["--pdv", "cirevl-fashioniq-giant"]),
        ("pdv-ldre-cirr-vitg", ["--pdv", "ldre"]),
        ("pdv-pic2word-fashioniq-vitl", ["--pdv", "pic2word-fashioniq"]),
        ("sdr-cir-circo-vitb", ["--weights", "composed=0.7975,image=0.2025,prompt=0.35"]),
        ("sdr-cir-cirr-vitl", ["--weights", "composed=0.925,image=0.075,prompt=0.5"]),
        ("sdr-cir-fashioniq-vitg", ["--weights", "composed=0.72,image=0.28,prompt=0.4"]),
        ("ldre-circo-vitb", []),
    ],
)
def test_a_row_has_the_weights_of_its_paper_with_every_encoder(name: str, expected: list[str]) -> None:
    one = find_reproduction(name)
    assert one.weights == expected
    assert " ".join(expected) in " ".join(one.words("folder", {}, encoder="some-folder"))


def test_a_row_with_another_rule_is_left_out() -> None:
    """SEIZE has a gain and a loss of its own for CIRR with ViT-bigG."""
    find_reproduction("seize-circo-vitg")
    with pytest.raises(OptionError, match="unknown reproduction 'seize-cirr-vitg'"):
        find_reproduction("seize-cirr-vitg")


@pytest.mark.slow
def test_the_captions_of_ldre_answer_real_queries(circo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Six queries of CIRCO's test, with drawn images in the place of COCO's."""
    records = json.loads((circo.parents[1] / "circo" / "annotations" / "test.json").read_text(encoding="utf-8"))[:6]
    ids = sorted({record["reference_img_id"] for record in records}) + list(range(1, 51))
    for folder in ("annotations", "unlabeled2017"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annotations" / "test.json").write_text(json.dumps(records), encoding="utf-8")
    (tmp_path / "unlabeled2017_ids.txt").write_text("".join(f"{id_}\n" for id_ in ids), encoding="utf-8")
    for i, id_ in enumerate(ids):
        Image.new("RGB", (64, 64), (3 * i, 37 * i % 256, 91 * i % 256)).save(tmp_path / "unlabeled2017" / f"{id_:012}.jpg")
    words = ["--root", str(tmp_path), "--captioner", str(circo), "--rewriter", str(circo), "--id-field", "reference_img_id"]
    words += ["--caption-field", "multi_caption_opt", "--rewrite-field", "multi_gpt-3.5_opt", "--encoder", "wardrobe"]
    assert main(["reproduce", "pdv-ldre-circo-vitl", *words, "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "upload the files, and compare with map@5 25.23" in lines[-3]
    assert lines[-2] == "not comparable: another encoder"
    ranked = json.loads((tmp_path / "out" / "circo_test.json").read_text(encoding="utf-8"))
    assert [len(set(ids)) for ids in ranked.values()] == [50] * 6
