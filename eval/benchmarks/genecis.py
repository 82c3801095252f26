"""GeneCIS: four tasks. Each query has a small gallery of its own: the target and its distractors.

Reads the released JSON annotations. Source of the protocol: arXiv 2306.07969 and its evaluator: recall at 1, 2 and 3 among
the candidates. Object tasks use whole COCO images, attribute tasks a dilated box cut out of a Visual Genome image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from eval.benchmarks.annotations import JsonRecord, check_counts, find_file, find_folder, read_records
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import file_checksum
from mmretrieve.errors import ImageError

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
NAME = "genecis"
SPLITS = ("test",)
ROOT_CONTENTS = "the JSON files of the four tasks, or genecis/ with them"
RELEASED = {
    "focus_object": (1960, 2198),
    "change_object": (1960, 2739),
}  # queries, images; the counts of the other two tasks are not published
COCO = ("val2017", "coco/val2017", "coco2017/val2017", "COCO/val2017")
VISUAL_GENOME = tuple(
    f"{base}/{name}"
    for base in (".", "vg", "visual_genome", "Visual_Genome")
    for name in ("VG_100K_all", "VG_All", "VG_100K", "VG_100K_2")
)
FOLDERS = (".", "genecis")
DISTRACTORS = {"object": (14,), "attribute": (9, 14)}
DILATION = 0.7
PROTOCOL = Protocol(headline="recall@1", recalls=(1, 2, 3), keeps_reference=True, candidates_alone=True)


def load(root: Path, split: str, task: str) -> Benchmark:
    """Loads one task of GeneCIS. Raises MMRetrieveError naming the file or record that is missing or invalid. Images may be absent."""
    path = find_file(root, [f"{base}/{task}.json" for base in FOLDERS])
    whole_image = task.endswith("_object")
    queries = tuple(_parse_query(i, record, whole_image=whole_image) for i, record in enumerate(_read_records(path, task)))
    ids = tuple(dict.fromkeys(id_ for query in queries for id_ in (query.reference, *(query.candidates or ()))))
    remark = None
    if task in RELEASED:
        query_count, image_count = RELEASED[task]
        remark = check_counts(f"GeneCIS {task}", (path, len(queries), query_count), (path, len(ids), image_count))
    coco = find_folder(root, COCO)
    genome = [folder for path in VISUAL_GENOME if (folder := root / path).is_dir()] or [root / VISUAL_GENOME[0]]
    return Benchmark(
        f"{NAME}:{task}",
        split,
        ids,
        queries,
        (lambda id_: coco / f"{int(id_):012}.jpg") if whole_image else (lambda id_: _find_image(genome, id_)),
        PROTOCOL,
        checksum=file_checksum(path),
        crop=None if whole_image else crop,
        remark=remark,
    )


def list_tasks(root: Path) -> tuple[str, ...]:
    """The tasks whose files exist below `root`. MMRetrieveError where there are none."""
    tasks = tuple(task for task in TASKS if any((root / base / f"{task}.json").is_file() for base in FOLDERS))
    if not tasks:
        find_file(root, [f"{base}/{task}.json" for base in FOLDERS for task in TASKS])
    return tasks


def crop(image: Image.Image, id_: str) -> Image.Image:
    """The box in an id ("7@10,20,30,40": left, top, width, height), dilated and centered on a black square.

    Source: the loader of arXiv 2306.07969: left = max(0, x − 0.7 w), right = min(W, left + 1.7 w), likewise in y; then
    rounded to whole pixels. ImageError where the box lies outside the image.
    """
    x, y, width, height = map(float, id_.partition("@")[2].split(","))
    left, top = max(0, x - DILATION * width), max(0, y - DILATION * height)
    right = min(image.width, left + (1 + DILATION) * width)
    bottom = min(image.height, top + (1 + DILATION) * height)
    if round(right) <= round(left) or round(bottom) <= round(top):
        raise ImageError(f"{id_}: the box lies outside its image of {image.width} × {image.height} pixels")
    cut = image.crop((round(left), round(top), round(right), round(bottom)))
    side = max(cut.size)
    square = Image.new("RGB", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square


def _read_records(path: Path, task: str) -> tuple[JsonRecord, ...]:
    """Records whose galleries are all as long as the first one, as the released evaluator requires."""
    records = read_records(path)
    allowed = DISTRACTORS[task.partition("_")[2]]
    for record in records:
        size = len(record.parts("gallery"))
        if size not in allowed:
            raise record.error(f"expected {' or '.join(map(str, allowed))} distractors in the gallery, got {size}")
        allowed = (size,)
    return records


def _parse_query(number: int, record: JsonRecord, *, whole_image: bool) -> BenchmarkQuery:
    """The target is the first of its candidates."""
    target, reference = (_parse_id(record.part(name), whole_image=whole_image) for name in ("target", "reference"))
    distractors = tuple(_parse_id(item, whole_image=whole_image) for item in record.parts("gallery"))
    return BenchmarkQuery(str(number), reference, (record.text("condition"),), (target,), candidates=(target, *distractors))


def _parse_id(image: JsonRecord, *, whole_image: bool) -> str:
    if whole_image:
        return str(image.number("val_image_id"))
    box = image.measures("instance_bbox")
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise image.error(f"instance_bbox should be left, top, width and height, not {list(box)}")
    return f"{image.number('image_id')}@{','.join(map(str, box))}"


def _find_image(folders: Iterable[Path], id_: str) -> Path:
    files = [folder / f"{id_.partition('@')[0]}.jpg" for folder in folders]
    return next((file for file in files if file.is_file()), files[0])
