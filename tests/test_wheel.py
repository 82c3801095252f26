"""What is built has all files, and works without the checkout: searches, the evaluation, and the files of the page."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PACKAGES = ("mmretrieve", "eval", "demo")
BUILD = """
import sys
from setuptools.build_meta import build_sdist, build_wheel
folder = sys.argv[1]  # which both builds change
build_sdist(folder)
build_wheel(folder)
"""
USE = """
import mmretrieve as mm, mmretrieve.testing
print(mm.__file__)
retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
assert retriever.search(reference_id=retriever.gallery.ids[0], prompt="in red", k=3)
from eval.report.published import find_published
assert find_published("cirr")
from eval.cli.main import main
raise SystemExit(main(["score", "--run", "run.trec", "--qrels", "qrels.txt"]))
"""


def run(script: str, *words: str, folder: Path, **environment: str) -> str:
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    built, site, settings = tmp_path / "built", tmp_path / "site", tmp_path / "setup.cfg"
    settings.write_text(
        f"[egg_info]\negg_base = {tmp_path}\n[build]\nbuild_base = {tmp_path / 'build'}\n"
    )  # not in the checkout
    built.mkdir()
    run(BUILD, str(built), folder=ROOT, DIST_EXTRA_CONFIG=str(settings))
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        installed = set(file.namelist())
        file.extractall(site)
    with tarfile.open(sdist) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    needed = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    needed = {name for name in needed if "__pycache__" not in name}
    assert needed - installed == set()
    assert needed | {"pyproject.toml", "README.md", "LICENSE"} <= packed
    (tmp_path / "run.trec").write_text("q Q0 a 1 1 x\n")
    (tmp_path / "qrels.txt").write_text("q 0 a 1\n")
    printed = run(USE, folder=tmp_path, PYTHONPATH=str(site))
    assert printed.startswith(str(site))
    assert "recall@1  100.00" in printed
