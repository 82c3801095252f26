"""The gallery of the wardrobe, drawn and indexed on first use and kept in the user's cache folder."""

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
from mmretrieve.errors import MMRetrieveError
from mmretrieve.gallery.store.ledger import FORMAT
from mmretrieve.images import content_hash
from mmretrieve.options import BUILT_IN, BUILT_IN_MODEL, Dtype, cache_folder
from mmretrieve.wardrobe.dataset import Drawing, drawings

PICTURES, GALLERY, TABLE = "pictures", "gallery", "drawings.jsonl"
EDITION = 4  # of the files below; a new edition is drawn again
DRAW_COMMAND = "import sys; from mmretrieve.wardrobe.gallery import draw_share; draw_share(*sys.argv[1:])"


def gallery_folder(progress: Progress | None = None) -> Path:
    """Returns the folder of the built-in gallery, drawn and indexed on first use (about half a minute).

    Several processes may call it at the same time; a folder that an interrupted process left incomplete is rebuilt.

    Parameters
    ----------
    progress : callable, optional
        Called with the number of images that were just indexed.

    Returns
    -------
    Path
        The folder of the gallery.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> len(mm.Gallery.open(mm.wardrobe.gallery_folder()))
    2000
    """
    model = content_hash(BUILT_IN_MODEL / "open_clip_model.safetensors")[:12]
    folder = cache_folder() / f"wardrobe-{__version__}-{EDITION}-{FORMAT}-{model}"
    done = folder / "done"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not done.exists():
            from mmretrieve.encoders.loading import load_encoder  # torch only on first use
            from mmretrieve.gallery.gallery import Gallery

            for name in (PICTURES, GALLERY):
                shutil.rmtree(folder / name, ignore_errors=True)
            draw_images(folder / PICTURES)
            _write_table(folder / TABLE)
            encoder = load_encoder(BUILT_IN, dtype=Dtype.FLOAT32)  # the same vectors on every machine
            gallery = Gallery.create(folder / GALLERY, encoder=encoder, setting=PUBLISHED["cirevl"])
            gallery.add(folder / TABLE, progress=progress)
            done.touch()
    return folder / GALLERY


@cache
def pictures_folder() -> Path:
    """Returns the folder of the drawings, made on first use.

    Returns
    -------
    Path
        A folder of 2,000 PNG files, named by the ids of the items.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> (mm.wardrobe.pictures_folder() / mm.wardrobe.queries()[0].reference).is_file()
    True
    """
    return gallery_folder().parent / PICTURES


def draw_images(folder: Path, *, processes: int | None = None) -> None:
    """Draws all images of the gallery into a folder.

    Parameters
    ----------
    folder : Path
        Where the 2,000 PNG files go; it is created.
    processes : int, optional
        The number of processes; by default one for each core.

    Raises
    ------
    MMRetrieveError
        A process failed; its own message is on stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = processes or os.cpu_count() or 1
    command = [sys.executable, "-c", DRAW_COMMAND, str(folder), str(count)]
    running = [subprocess.Popen([*command, str(number)]) for number in range(count)]
    codes = [process.wait() for process in running]
    if any(codes):
        raise MMRetrieveError(f"{folder}: the drawings could not be made; see the messages above")


def fields_of(drawing: Drawing) -> dict[str, str | None]:
    """Returns the fields of a drawing in the built-in gallery: the attributes of its garment, and the background.

    Parameters
    ----------
    drawing : Drawing
        A drawing of `drawings`.

    Returns
    -------
    dict of str to str or None
        Field → its value; None where a garment has no such attribute.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> sorted(mm.wardrobe.fields_of(mm.wardrobe.drawings()[0]))
    ['background', 'colour', 'kind', 'length', 'neckline', 'pattern', 'sleeves']
    """
    return {**asdict(drawing.garment), "background": drawing.detail.background}


def _write_table(path: Path) -> None:
    """Writes the fields of each drawing as JSON lines, beside the folder of the images."""
    rows = (
        {"image": f"{PICTURES}/{drawing.id}", "id": drawing.id, **fields_of(drawing)}
        for drawing in sorted(drawings(), key=lambda drawing: drawing.id)
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def draw_share(folder: str, processes: str, number: str) -> None:
    """Draws the images of process `number` of `processes`; the arguments come from a command line."""
    from mmretrieve.wardrobe.draw import draw  # an existing gallery is opened without it

    for drawing in drawings()[int(number) :: int(processes)]:
        image = draw(drawing.garment, drawing.detail, seed=drawing.seed)
        image.save(Path(folder, drawing.id), compress_level=3)
