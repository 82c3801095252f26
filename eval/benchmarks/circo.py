"""CIRCO: everyday scenes with several targets for each query, among all unlabeled images of COCO.

Reads the released annotations; the targets of test are kept on a server. Source of the protocol: arXiv 2303.15247 and its
evaluator: mAP with the divisor min(targets, K), recall of the first target only, mAP@10 for each semantic aspect. The
reference stays in the ranking unless a run says otherwise.
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks.annotations import (
    JsonRecord,
    check_counts,
    check_references,
    find_file,
    find_folder,
    read_object,
    read_records,
)
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import check_unique, file_checksum, read_text
from mmretrieve import MMRetrieveError

NAME = "circo"
SPLITS = ("val", "test")
ROOT_CONTENTS = "annotations/ and COCO2017_unlabeled/"
RELEASED = {"val": 220, "test": 800}
RELEASED_IMAGES = 123_403
KS = (5, 10, 25, 50)
ASPECTS = (
    "cardinality",
    "addition",
    "negation",
    "direct_addressing",
    "compare_change",
    "comparative_statement",
    "statement_with_conjunction",
    "spatial_relations_background",
    "viewpoint",
)
FOLDERS = (".", "CIRCO", "circo")
COCO = tuple(f"{base}/{folder}" for base in FOLDERS for folder in ("COCO2017_unlabeled", "."))
INFO, IDS = "annotations/image_info_unlabeled2017.json", "unlabeled2017_ids.txt"
PROTOCOL = Protocol(headline="map@5", recalls=KS, precisions=KS, aspects=ASPECTS, keeps_reference=True, first_target_alone=True)


def load(root: Path, split: str) -> Benchmark:
    """Loads one split of CIRCO. Raises MMRetrieveError naming the file or record that is missing or invalid. Images may be absent.

    The gallery is read from COCO's image_info_unlabeled2017.json, or from unlabeled2017_ids.txt with one id a line.
    """
    annotations = find_file(root, [f"{base}/annotations/{split}.json" for base in FOLDERS])
    images = find_file(root, [*(f"{base}/{INFO}" for base in COCO), *(f"{base}/{IDS}" for base in FOLDERS)])
    ids = check_unique(_read_ids(images), images)
    queries = tuple(_parse_query(record, with_targets=split == "val") for record in read_records(annotations))
    check_unique((query.id for query in queries), annotations)
    check_references(queries, annotations, ids, images)
    folder = find_folder(root, [f"{base}/unlabeled2017" for base in COCO])
    return Benchmark(
        NAME,
        split,
        ids,
        queries,
        lambda id_: folder / f"{int(id_):012}.jpg",
        PROTOCOL,
        checksum=file_checksum(annotations, images),
        remark=check_counts("CIRCO", (annotations, len(queries), RELEASED[split]), (images, len(ids), RELEASED_IMAGES)),
    )


def _read_ids(path: Path) -> list[str]:
    if path.suffix == ".json":
        return [str(image.number("id")) for image in read_object(path).parts("images")]
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.isdecimal():
            raise MMRetrieveError(f"{path}, line {number}: expected the number of an image, not {line!r:.60}")
    return [str(int(line)) for line in lines]


def _parse_query(record: JsonRecord, *, with_targets: bool) -> BenchmarkQuery:
    if not with_targets:
        record.check_absent("gt_img_ids")
    return BenchmarkQuery(
        str(record.number("id")),
        str(record.number("reference_img_id")),
        (record.text("relative_caption"),),
        _read_targets(record) if with_targets else (),
        concept=record.text("shared_concept"),
        tags=_read_tags(record) if with_targets else (),
    )


def _read_targets(record: JsonRecord) -> tuple[str, ...]:
    targets, first = record.numbers("gt_img_ids"), record.number("target_img_id")
    if targets[:1] != (first,) or len(set(targets)) != len(targets):
        raise record.error(f"gt_img_ids should start with target_img_id, {first}, without duplicates; it is {list(targets)}")
    return tuple(map(str, targets))


def _read_tags(record: JsonRecord) -> tuple[str, ...]:
    tags = record.texts("semantic_aspects")
    if unknown := [tag for tag in tags if tag not in ASPECTS]:
        raise record.error(f"unknown semantic aspect {unknown[0]!r}; choose from: {', '.join(ASPECTS)}")
    return tags
