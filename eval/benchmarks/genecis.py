"""GeneCIS: four tasks, each query with its own small gallery: the target and its distractors.

Annotations as released in JSON. Protocol: arXiv 2306.07969, as in its own evaluator: recall at 1, 2 and 3 among the
candidates. Object tasks show whole pictures of COCO, attribute tasks a dilated box cut out of a Visual Genome picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.benchmarks.counts import RecordCount, counted
from eval.benchmarks.json_files import JsonRecord, checksum, find_file, find_folder, read_records
from mmretrieve.errors import ImageError

TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
SPLITS = ("test",)
HOLDS = "the JSON files of the four tasks, or genecis/ with them"
RELEASED = {
    "focus_object": (1960, 2198),
    "change_object": (1960, 2739),
}  # queries, images; those of the other two are not known here
COCO = ("val2017", "coco/val2017", "coco2017/val2017", "COCO/val2017")
VISUAL_GENOME = tuple(
    f"{home}/{name}"
    for home in (".", "vg", "visual_genome", "Visual_Genome")
    for name in ("VG_100K_all", "VG_All", "VG_100K", "VG_100K_2")
)
HOMES = (".", "genecis")
DISTRACTORS = {"object": (14,), "attribute": (9, 14)}
DILATION = 0.7
PROTOCOL = Protocol(headline="recall@1", recalls=(1, 2, 3), keeps_reference=True, candidates_alone=True)


def load(root: Path, split: str, task: str) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the record, that is missing or does not fit. Pictures may be absent."""
    path = find_file(root, [f"{home}/{task}.json" for home in HOMES])
    whole = task.endswith("_object")
    queries = tuple(_query(i, record, whole=whole) for i, record in enumerate(_records(path, task)))
    ids = tuple(dict.fromkeys(id_ for query in queries for id_ in (query.reference, *(query.candidates or ()))))
    remark = None
    if task in RELEASED:
        asked, shown = RELEASED[task]
        remark = counted(f"GeneCIS {task}", RecordCount(path, len(queries), asked), RecordCount(path, len(ids), shown))
    coco = find_folder(root, COCO)
    genome = [folder for place in VISUAL_GENOME if (folder := root / place).is_dir()] or [root / VISUAL_GENOME[0]]
    return Benchmark(
        f"genecis:{task}",
        split,
        ids,
        queries,
        (lambda id_: coco / f"{int(id_):012}.jpg") if whole else (lambda id_: _file(genome, id_)),
        PROTOCOL,
        checksum=checksum(path),
        crop=None if whole else crop,
        remark=remark,
    )


def present(root: Path) -> tuple[str, ...]:
    """The tasks whose files are below `root`. MMRetrieveError where there are none."""
    found = tuple(task for task in TASKS if any((root / home / f"{task}.json").is_file() for home in HOMES))
    if not found:
        find_file(root, [f"{home}/{task}.json" for home in HOMES for task in TASKS])
    return found


def crop(picture: Image.Image, id_: str) -> Image.Image:
    """The box in an id ("7@10,20,30,40": left, top, width, height), dilated and laid on a black square.

    As in the benchmark's own loader: left = max(0, x − 0.7 w), right = min(W, left + 1.7 w), and so in y; then rounded to
    whole pixels. ImageError where nothing of the box lies in the picture.
    """
    x, y, width, height = map(float, id_.partition("@")[2].split(","))
    left, top = max(0, x - DILATION * width), max(0, y - DILATION * height)
    right = min(picture.width, left + (1 + DILATION) * width)
    bottom = min(picture.height, top + (1 + DILATION) * height)
    if round(right) <= round(left) or round(bottom) <= round(top):
        raise ImageError(f"{id_}: this box has nothing of its picture, which has {picture.width} × {picture.height} pixels")
    cut = picture.crop((round(left), round(top), round(right), round(bottom)))
    side = max(cut.size)
    square = Image.new("RGB", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square


def _records(path: Path, task: str) -> tuple[JsonRecord, ...]:
    """Records whose galleries are all as long as the first one, as the benchmark's own evaluator has them."""
    records = read_records(path)
    allowed = DISTRACTORS[task.partition("_")[2]]
    for record in records:
        size = len(record.parts("gallery"))
        if size not in allowed:
            raise record.error(f"expected {' or '.join(map(str, allowed))} distractors in the gallery, found {size}")
        allowed = (size,)
    return records


def _query(number: int, record: JsonRecord, *, whole: bool) -> BenchmarkQuery:
    """The target stands first among its candidates."""
    target, reference = (_id(record.part(name), whole=whole) for name in ("target", "reference"))
    distractors = tuple(_id(item, whole=whole) for item in record.parts("gallery"))
    return BenchmarkQuery(str(number), reference, (record.text("condition"),), (target,), candidates=(target, *distractors))


def _id(image: JsonRecord, *, whole: bool) -> str:
    if whole:
        return str(image.number("val_image_id"))
    box = image.measures("instance_bbox")
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise image.error(f"instance_bbox should be left, top, width and height, not {list(box)}")
    return f"{image.number('image_id')}@{','.join(map(str, box))}"


def _file(folders: Iterable[Path], id_: str) -> Path:
    files = [folder / f"{id_.partition('@')[0]}.jpg" for folder in folders]
    return next((file for file in files if file.is_file()), files[0])
