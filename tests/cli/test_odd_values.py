"""Whatever stands where a path, a number or a name should, a command ends with one line and an exit status."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import MAX_LINE_CHARACTERS, MMRetrieveError

VALUES = {
    "5,000 digits": "9" * 5_000,
    "nested": "[" * 3_000,
    "too long for a name": "x" * 5_000,
    "nothing": "",
    "not a number": "nan",
    "half a pair": "\udcff\udcfe",
    "a folder": "folder",
    "an empty file": "empty",
    "a device": "/dev/null",
    "a pipe": "pipe",
    "deep JSON": "deep.json",
    "a number of 5,000 digits in a table": "digits.jsonl",
    "a table of zero bytes": "zeros.csv",
}
COMMANDS = [
    ["info", "VALUE"],
    ["verify", "VALUE"],
    ["compact", "VALUE"],
    ["merge", "g", "VALUE"],
    ["merge", "VALUE", "g"],
    ["delete", "g", "VALUE"],
    ["duplicates", "g", "--min-score", "VALUE"],
    ["build", "g", "--index", "VALUE"],
    ["build", "g", "--recall", "VALUE"],
    ["export", "g", "VALUE/new"],
    ["import", "VALUE", "--gallery", "new"],
    ["index", "VALUE", "--gallery", "new", "--encoder", "wardrobe"],
    ["sync", "VALUE", "--gallery", "new", "--encoder", "wardrobe"],
    ["index", "folder", "--gallery", "VALUE", "--encoder", "wardrobe"],
    ["push", "g", "VALUE"],
    ["pull", "VALUE", "new"],
    ["serve", "g", "--port", "VALUE"],
    ["search", "wardrobe", "--prompt", "x", "-k", "VALUE"],
    ["search", "wardrobe", "--prompt", "x", "--beta", "VALUE"],
    ["search", "wardrobe", "--prompt", "x", "--min-score", "VALUE"],
    ["search", "g", "--prompt", "x", "--encoder", "VALUE"],
    ["search", "wardrobe", "--prompt", "x", "--vocabulary", "VALUE"],
    ["search", "wardrobe", "--image", "VALUE", "-k", "1"],
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "folder").mkdir()
    (folder / "empty").write_bytes(b"")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "digits.jsonl").write_text(f'{{"image": "x.png", "n": {"9" * 5_000}}}\n')
    (folder / "zeros.csv").write_bytes(b"\0" * 100)
    os.mkfifo(folder / "pipe")
    mm.Gallery.from_vectors(folder / "g", ["a", "b"], np.eye(2, 8))
    return folder


@pytest.mark.timeout(120)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_command_ends_with_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.chdir(here)
    for command in COMMANDS:
        if "--vocabulary" in command and value == "pipe":  # one that is written to is read, as `<(…)` in a shell
            continue
        words = [word.replace("VALUE", value) for word in command]
        try:
            status: object = main(words)
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr().err
        assert status in (0, 1, 2, 3), command
        if status:
            assert len(said.strip().splitlines()) == 1, (command, said[:500])
        assert len(said) < MAX_LINE_CHARACTERS + 200, command
        assert "Traceback" not in said, (command, said)
        assert "Error: " not in said, (command, said)  # a class of Python


@pytest.mark.parametrize("path", ["x" * 5_000, "a\0b", "\udcff/\ud83d"])
def test_python_raises_an_error_of_the_family(path: str) -> None:
    for call in (
        mm.Gallery.open,
        mm.open_gallery,
        mm.read_source,
        lambda path: mm.Gallery.create(path, encoder=mm.load_encoder("wardrobe")),
    ):
        with pytest.raises(MMRetrieveError, match=r"^[^\n]*$"):
            call(path)


def test_errors_of_the_system_are_sentences(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        PermissionError(13, "Permission denied", "secret"): "mmretrieve: secret: Permission denied",
        IsADirectoryError(21, "Is a directory", "folder"): "mmretrieve: folder: Is a directory",
        MemoryError(): "mmretrieve: there is not enough memory for this",
        RecursionError("maximum recursion depth exceeded"): "mmretrieve: a file or an option is nested too deeply",
    }
    for error, line in expected.items():

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("mmretrieve.opening.open_gallery", fail)
        assert main(["info", "g"]) == 1
        assert capsys.readouterr().err == f"{line} (--debug shows where)\n"
