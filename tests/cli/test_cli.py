"""The real command line: contracts of its output and its exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a person starts it."""
    command = [sys.executable, "-m", "mmretrieve.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same command in this process, which has torch and the encoders loaded already."""
    words = list(map(str, arguments))
    with redirect_stdout(_stream()) as out, redirect_stderr(_stream()) as error:
        try:
            status = main(words)
        except SystemExit as end:  # of the parser: wrong use, help
            status = int(end.code or 0)
    return subprocess.CompletedProcess(words, status, *(stream.buffer.getvalue().decode() for stream in (out, error)))


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "shop.gallery"
    done = process("index", photos, "--gallery", folder, "--encoder", "wardrobe", "--json")
    assert done.returncode == 0, done.stderr
    counts = {"added": 60, "skipped": 0, "updated": 0, "removed": 0, "items": 60}
    assert json.loads(done.stdout) == counts | {"failed": {}, "not_removed": 0, "ignored": {}, "notes": []}
    return folder


def test_index_again_skips(indexed: Path, photos: Path) -> None:
    done = shell("index", photos, "--gallery", indexed)
    assert done.returncode == 0
    assert "0 added, 60 unchanged, 0 failed; 60 items" in done.stdout


def test_search_prints_what_import_finds(indexed: Path, photos: Path) -> None:
    picture = sorted(photos.rglob("*.png"))[0]
    knobs = ["--alpha-image", "1.4", "--alpha-text", "1.2", "--beta", "0.75", "-k", "5"]
    done = process("search", indexed, "--image", picture, "--prompt", "in red", *knobs, "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expected = mm.Retriever.open(indexed).search(picture, "in red", k=5, alpha_image=1.4, alpha_text=1.2, beta=0.75)
    assert [line["id"] for line in lines] == list(expected.ids)
    for line, hit in zip(lines, expected, strict=True):
        assert set(line) == {"rank", "id", "score", "path", "contributions", "title", "fields", "query"}
        assert (line["rank"], line["path"]) == (hit.rank, hit.path)
        assert line["score"] == pytest.approx(hit.score, abs=1e-6)
        assert line["contributions"] == pytest.approx(dict(hit.contributions), abs=1e-6)
    table = shell("search", indexed, "--prompt", "a dress", "-k", "2")
    assert len(table.stdout.splitlines()) == 2


def test_info_is_a_list_without_empty_entries(indexed: Path) -> None:
    lines = shell("info", indexed).stdout.splitlines()
    values = {line[: line.index("  ")]: line for line in lines}
    assert values["items"].split() == ["items", "60"]
    assert values["encoder model"].endswith("  wardrobe")
    assert "size 64 64" in values["encoder preprocessing"]
    assert len({len(line) - len(line.partition("  ")[2].lstrip()) for line in lines}) == 1, "one column of values"
    assert not [line for line in lines if "None" in line or '{"' in line]
    assert "advice" in json.loads(shell("info", indexed, "--json").stdout)["index"]


def test_notes_are_marked_as_notes(indexed: Path) -> None:
    done = shell("search", indexed, "--prompt", "refrigerator", "-k", "1000")
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 3
    assert all(line.startswith("note: ") for line in done.stderr.splitlines())


def test_info_verify_delete(indexed: Path) -> None:
    assert json.loads(shell("info", indexed, "--json").stdout)["items"] == 60
    assert "wardrobe" in shell("info", indexed).stdout
    verified = shell("verify", indexed)
    assert (verified.returncode, verified.stdout.partition(": ")[2]) == (0, "60 items, no problems found\n")
    deleted = mm.Gallery.open(indexed).ids[0]
    assert shell("delete", indexed, deleted, "nothing").returncode == 1
    assert len(mm.Gallery.open(indexed)) == 60
    assert shell("delete", indexed, deleted).returncode == 0
    assert len(mm.Gallery.open(indexed)) == 59


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["search", "{g}", "--prompt", ""], 2, "prompt is empty; give a text, or leave prompt out"),
        (["search", "{g}"], 2, "the query is empty; give image, reference_id, prompt, avoid, more_like, less_like or axis"),
        (["search", "{g}", "--prompt", "x", "--beta", "1.2"], 2, "from 0 to 1"),
        (["search", "{g}", "--prompt", "x", "--beta", "nan"], 2, "finite"),
        (["search", "{g}", "--prompt", "x", "-k", "0"], 2, "at least 1"),
        (["search", "{g}", "--prompt", "x", "-k", "²"], 2, "at least 1"),
        (["search", "{g}", "--prompt", "x", "--device", "tpu"], 2, "choose from: auto, cpu"),
        (["search", "{g}", "--prompt", "x", "--dtype", "float99"], 2, "choose from: auto, float32"),
        (["search", "{g}", "--prompt", "x", "--composer", "magic"], 2, "captions"),
        (["search", "{g}", "--image", "missing.jpg"], 1, "missing.jpg: no such image"),
        (["search", "nowhere", "--prompt", "x"], 1, "nowhere: not a gallery"),
        (["search", "{g}", "--prompt", "x", "--encoder", "bogus"], 2, "choose from: wardrobe"),
        (["index", "{tmp}", "--gallery", "{tmp}/new"], 1, "no images in this folder"),
        (["index", "{photos}", "--gallery", "{tmp}/new", "--encoder", "bogus"], 2, "unknown encoder 'bogus'"),
        (["frobnicate"], 2, "unknown command 'frobnicate'; choose from: index, sync"),
        (["serch", "{g}"], 2, "unknown command 'serch'; did you mean 'search'? choose from: index, sync"),
        (
            ["search", "{g}", "--promt", "x"],
            2,
            "unknown option '--promt'; did you mean '--prompt'? see mmretrieve search --help",
        ),
        (["search", "{g}", "--top-k=3"], 2, "unknown option '--top-k'; did you mean '--k'? see mmretrieve search --help"),
        (
            ["search", "{g}", "--promp", "red"],
            2,
            "unknown option '--promp'; did you mean '--prompt'? see mmretrieve search --help",
        ),
        (["index", "{photos}", "--galery", "{tmp}/new"], 2, "unknown option '--galery'; did you mean '--gallery'?"),
        (["--versoin"], 2, "unknown option '--versoin'; did you mean '--version'? see mmretrieve --help"),
        (["info", "{g}", "{g}"], 2, "unexpected argument"),
        (["index", "{photos}", "--gallery", "{tmp}/new", "--decode", "fats"], 2, "unknown value 'fats'; did you mean 'fast'?"),
        (["search", "{g}", "--prompt", "x", "--composer", "sun"], 2, "unknown composer 'sun'; did you mean 'sum'?"),
        (["search", "{g}", "--prompt", "x", "--rule", "liner"], 2, "unknown rule 'liner'; did you mean 'linear'?"),
        (["search", "{g}", "--prompt", "x", "--weights", "blanced"], 2, "got 'blanced'; did you mean 'balanced'?"),
        (
            ["search", "{g}", "--prompt", "x", "--where", "widht > 3"],
            2,
            "no such column: widht; did you mean 'width'? the columns are id, width",
        ),
        (
            ["search", "{g}", "--image", "https://example.com/a.jpg"],
            1,
            "URLs are not fetched; download the image and give its file",
        ),
        (["search", "{g}", "--prompt", "x", "--region", "0,0,1,1"], 2, "region needs a reference, and this request has none"),
        (["search", "{g}", "--encoder", "wardrob", "--prompt", "x"], 2, "unknown encoder 'wardrob'; did you mean 'wardrobe'?"),
        (["serve", "{g}", "--token", "short"], 2, "at least 8 printable ASCII characters"),
    ],
)
def test_wrong_use_is_one_line_and_an_exit_status(
    arguments: list[str], status: int, message: str, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    done = shell(*(a.format(g=indexed, photos=photos, tmp=tmp_path) for a in arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "new").exists()


def test_a_value_may_begin_like_an_option(indexed: Path) -> None:
    for words in (["--prompt=--striped"], ["--prompt", "--striped sleeves"]):
        assert shell("search", indexed, *words, "-k", "1").returncode == 0


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    plain, debug = process("info", tmp_path), process("info", tmp_path, "--debug")
    assert (plain.returncode, plain.stdout, len(plain.stderr.splitlines())) == (1, "", 1)
    assert debug.returncode == 1
    assert debug.stderr.startswith("Traceback")


def test_wrong_use_ends_a_process_with_2(indexed: Path) -> None:
    done = process("search", indexed, "--prompt", "x", "-k", "0")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_gallery_of_another_encoder_names_both(indexed: Path, photos: Path, tmp_path: Path) -> None:
    from mmretrieve.options import BUILT_IN_MODEL

    other = tmp_path / "other"
    other.mkdir()
    for file in BUILT_IN_MODEL.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = (other / "open_clip_config.json").read_text()
    (other / "open_clip_config.json").write_text(config.replace("bicubic", "bilinear"))
    for command in (["index", photos, "--gallery", indexed], ["search", indexed, "--prompt", "x"]):
        done = shell(*command, "--encoder", other)
        assert done.returncode == 1
        assert "made by wardrobe" in done.stderr
        assert f"not by {other}" in done.stderr


def test_failed_pictures_are_named_and_the_others_go_in(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "good.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    (source / "bad.png").write_bytes(b"x")
    done = shell("index", source, "--gallery", tmp_path / "g", "--encoder", "wardrobe")
    assert done.returncode == 3
    assert done.stdout.endswith("1 added, 0 unchanged, 1 failed; 1 items\n")
    assert "not added: bad.png" in done.stderr
    assert shell("sync", source, "--gallery", tmp_path / "g").returncode == 3
    (source / "good.png").unlink()
    only_failed = shell("index", source, "--gallery", tmp_path / "empty", "--encoder", "wardrobe")
    assert (only_failed.returncode, "0 added, 0 unchanged, 1 failed" in only_failed.stdout) == (1, True)
    assert "3 done except for images that could not be added" in " ".join(shell("index", "--help").stdout.split())


def test_of_many_failures_the_first_are_named_and_the_rest_counted(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("file\n" + "".join(f"missing-{i}.png\n" for i in range(30)) + f"{next(photos.rglob('*.png')).resolve()}\n")
    done = shell("index", table, "--gallery", tmp_path / "g", "--encoder", "wardrobe")
    assert (done.returncode, done.stderr.count("not added: missing-")) == (3, 20)
    assert "not added: 10 more; --json names all of them" in done.stderr
    as_json = shell("index", table, "--gallery", tmp_path / "g", "--json")
    assert len(json.loads(as_json.stdout)["failed"]) == 30


def test_more_than_there_is_gives_all_and_says_so(indexed: Path) -> None:
    done = shell("search", indexed, "--prompt", "a dress", "-k", "1000", "--json")
    assert len(done.stdout.splitlines()) == len(mm.Gallery.open(indexed))
    assert "the gallery has no more" in done.stderr


def test_file_names_cannot_steer_the_terminal(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    good = next(photos.rglob("*.png")).read_bytes()
    (source / "two\nlines \x1b[31m é.png").write_bytes(good)
    (source / "bad\nname.png").write_bytes(b"x")
    done = shell("index", source, "--gallery", tmp_path / "g", "--encoder", "wardrobe", "--quiet")
    assert len(done.stderr.splitlines()) == 1
    found = process("search", tmp_path / "g", "--prompt", "a dress", PYTHONIOENCODING="ascii")
    assert found.returncode == 0
    assert len(found.stdout.splitlines()) == 1
    assert r"two\nlines \x1b[31m \xe9.png" in found.stdout
    exact = json.loads(shell("search", tmp_path / "g", "--prompt", "a dress", "--json").stdout)
    assert exact["id"] == "two\nlines \x1b[31m é.png"


def test_the_number_of_results_has_a_long_name_too(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for option in ("-k", "--k"):  # `--k` was taken for an abbreviation of `--key`
        assert main(["search", str(made), "--prompt", "in red", option, "3", "--encoder", "wardrobe"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == 3


def test_names_of_fields_are_printed_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = [{"\x1b[31mcolour": "red", "two\nlines": 1}]
    gallery = mm.Gallery.from_vectors(tmp_path / "g", ["a"], np.eye(1, 4), fields=fields)
    assert main(["info", str(gallery.path)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert all(name in printed for name in (r"\x1b[31mcolour", r"two\nlines"))
