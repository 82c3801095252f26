"""The built-in world: drawn clothes, words for them, and a small CLIP trained on them. It knows nothing else.

folder = wardrobe.gallery_folder()          # draws and indexes the 2,000 pictures on first use
retriever = mmretrieve.Retriever.open(folder)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from filelock import FileLock

from mmretrieve import __version__
from mmretrieve.directions import PUBLISHED
from mmretrieve.encoders.base import Progress
from mmretrieve.gallery.store.store import FORMAT
from mmretrieve.images import content_hash
from mmretrieve.options import BUILT_IN, BUILT_IN_MODEL
from mmretrieve.wardrobe.world import Drawing, drawings, queries

PICTURES, GALLERY, TABLE = "pictures", "gallery", "drawings.jsonl"
EDITION = 2  # of what is made below; another one is made anew


def cache_folder() -> Path:
    """Where drawings are kept: MMRETRIEVE_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MMRETRIEVE_CACHE") or Path(home, "mmretrieve"))


def gallery_folder(progress: Progress | None = None) -> Path:
    """The folder of the built-in gallery, drawn and indexed on first use (about half a minute); pictures lie beside it.

    Safe to call from several processes; a folder that was left half made is made again.
    """
    model = content_hash(BUILT_IN_MODEL / "open_clip_model.safetensors")[:12]
    home = cache_folder() / f"wardrobe-{__version__}-{EDITION}-{FORMAT}-{model}"
    done = home / "done"
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "lock"):
        if not done.exists():
            from mmretrieve.encoders.openclip import load_encoder  # torch only the first time
            from mmretrieve.gallery.gallery import Gallery

            for name in (PICTURES, GALLERY):
                shutil.rmtree(home / name, ignore_errors=True)
            paint(home / PICTURES)
            describe(home / TABLE)
            encoder = load_encoder(BUILT_IN)
            Gallery.create(home / GALLERY, encoder=encoder, setting=PUBLISHED["cirevl"]).add(home / TABLE, progress=progress)
            done.touch()
    return home / GALLERY


@cache
def pictures_folder() -> Path:
    """The folder of the drawings themselves, made on first use."""
    return gallery_folder().parent / PICTURES


def paint(folder: Path, *, workers: int | None = None) -> None:
    """Draws the whole gallery into a folder, in as many processes as there are cores."""
    folder.mkdir(parents=True, exist_ok=True)
    shares = workers or os.cpu_count() or 1
    command = [sys.executable, "-m", "mmretrieve.wardrobe.paint", str(folder), str(shares)]
    running = [subprocess.Popen([*command, str(share)]) for share in range(shares)]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"drawing into {folder} failed; see the messages above")


def fields_of(drawing: Drawing) -> dict[str, str | None]:
    """What the built-in gallery knows of a drawing: its garment, and the background."""
    return {**asdict(drawing.garment), "background": drawing.detail.background}


def describe(table: Path) -> None:
    """Writes what each drawing shows as a table beside the folder of pictures: the fields of the built-in gallery."""
    rows = (
        {
            "image": f"{PICTURES}/{drawing.id}",
            "id": drawing.id,
            **fields_of(drawing),
        }
        for drawing in sorted(drawings(), key=lambda drawing: drawing.id)
    )
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


__all__ = ["cache_folder", "drawings", "fields_of", "gallery_folder", "paint", "pictures_folder", "queries"]
