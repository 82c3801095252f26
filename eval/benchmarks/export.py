"""Writes the wardrobe in the layouts of CIRR, FashionIQ and CIRCO, to try out loaders, runs, sweeps and submissions."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from eval.benchmarks.export_layouts import BenchmarkLayout, ExportPlan, LayoutPart, plan_export
from mmretrieve import wardrobe
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MMRetrieveError, OptionError

JPEG_QUALITY = 95


@dataclass(frozen=True)
class ExportReport:
    """What was written: the folder, the benchmarks in it, and the number of image files."""

    layout: BenchmarkLayout
    folder: Path
    parts: tuple[LayoutPart, ...]
    images: int


def export_wardrobe(layout: str, out: str | Path, *, progress: Progress | None = None) -> ExportReport:
    """Writes the 2,000 drawings and 500 queries into the folder `out`, which `load_benchmark` then reads as its root.

    The bytes are the same every time. `out` appears complete at the end, or not at all.

    Parameters
    ----------
    layout : "cirr", "fashioniq" or "circo".
    out : a new or empty folder.
    progress : called after each image.

    Raises
    ------
    OptionError : the layout is unknown, or `out` is not empty.
    MMRetrieveError : `out` cannot be written.
    """
    form, folder = BenchmarkLayout(layout), Path(out).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"{folder} exists and is not an empty folder; name a new one")
    plan = plan_export(form)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            complete = Path(temporary) / folder.name
            _write(plan, complete, progress)
            if folder.exists():
                folder.rmdir()
            complete.rename(folder)
    except OSError as error:
        raise MMRetrieveError(f"{folder}: cannot be written ({error}); nothing of it is left") from error
    return ExportReport(form, folder, plan.parts, len(plan.images))


def _write(plan: ExportPlan, folder: Path, progress: Progress | None) -> None:
    for path in (*plan.files, *plan.images):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for path, value in plan.files.items():
        (folder / path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")
    for path, drawing in plan.images.items():
        _copy_image(wardrobe.pictures_folder() / drawing.id, folder / path)
        if progress is not None:
            progress(1)


def _copy_image(source: Path, path: Path) -> None:
    if source.suffix == path.suffix:
        shutil.copyfile(source, path)
        return
    with Image.open(source) as image:
        image.convert("RGB").save(path, quality=JPEG_QUALITY)
