"""Writes the wardrobe in the layouts of CIRR, FashionIQ and CIRCO, for real loaders, runs, sweeps and submissions."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from eval.benchmarks.export_layouts import BenchmarkLayout, ExportPlan, LayoutPart, plan
from mmretrieve import wardrobe
from mmretrieve.encoders.base import Progress
from mmretrieve.errors import MMRetrieveError, OptionError

QUALITY = 95  # of JPEG, where a layout's file names ask for it


@dataclass(frozen=True)
class ExportReport:
    """What was written: the folder, the benchmarks it holds and how many picture files."""

    layout: BenchmarkLayout
    folder: Path
    parts: tuple[LayoutPart, ...]
    pictures: int


def export_wardrobe(layout: str, out: str | Path, *, progress: Progress | None = None) -> ExportReport:
    """Writes the 2,000 drawings and 500 queries into the folder `out`, a root of `load_benchmark` for that layout.

    layout: "cirr", "fashioniq" or "circo". The same bytes every time. `out` appears whole at the end or not at all.
    `progress` hears of each picture. Raises OptionError for an unknown layout or an `out` that holds something,
    MMRetrieveError where it cannot be written.
    """
    form, folder = BenchmarkLayout(layout), Path(out).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"{folder} is there already and not an empty folder; name a new one")
    planned = plan(form)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            whole = Path(beside) / folder.name
            _write(planned, whole, progress)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
    except OSError as error:
        raise MMRetrieveError(f"{folder}: cannot be written ({error}); nothing of it is left") from error
    return ExportReport(form, folder, planned.parts, len(planned.pictures))


def _write(planned: ExportPlan, folder: Path, progress: Progress | None) -> None:
    for place in (*planned.files, *planned.pictures):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
    for place, value in planned.files.items():
        (folder / place).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")
    for place, drawing in planned.pictures.items():
        _copy(wardrobe.pictures_folder() / drawing.id, folder / place)
        if progress is not None:
            progress(1)


def _copy(source: Path, path: Path) -> None:
    if source.suffix == path.suffix:
        shutil.copyfile(source, path)
        return
    with Image.open(source) as picture:
        picture.convert("RGB").save(path, quality=QUALITY)
