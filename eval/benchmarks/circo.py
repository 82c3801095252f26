"""CIRCO: everyday scenes, several right answers a query, among all of COCO's unlabeled pictures.

Annotations as released; the targets of test are on a server. Protocol: arXiv 2303.15247, as in its own evaluator: mAP
with the divisor min(targets, K), recall of the first target alone, mAP@10 for each semantic aspect. The reference stays
in the ranking unless a run says otherwise.
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.benchmarks.counts import RecordCount, counted
from eval.benchmarks.json_files import (
    JsonRecord,
    check_named,
    checksum,
    find_file,
    find_folder,
    read_object,
    read_records,
    read_text,
    unique,
)
from mmretrieve import MMRetrieveError

SPLITS = ("val", "test")
HOLDS = "annotations/ and COCO2017_unlabeled/"
RELEASED = {"val": 220, "test": 800}
IMAGES = 123_403
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
HOMES = (".", "CIRCO", "circo")
COCO = tuple(f"{home}/{folder}" for home in HOMES for folder in ("COCO2017_unlabeled", "."))
INFO, IDS = "annotations/image_info_unlabeled2017.json", "unlabeled2017_ids.txt"
PROTOCOL = Protocol(headline="map@5", recalls=KS, precisions=KS, aspects=ASPECTS, keeps_reference=True, first_target_alone=True)


def load(root: Path, split: str) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the record, that is missing or does not fit. Pictures may be absent.

    The gallery is that of COCO's image_info_unlabeled2017.json, or of unlabeled2017_ids.txt: one id a line.
    """
    annotations = find_file(root, [f"{home}/annotations/{split}.json" for home in HOMES])
    images = find_file(root, [*(f"{home}/{INFO}" for home in COCO), *(f"{home}/{IDS}" for home in HOMES)])
    ids = unique(_ids(images), images)
    queries = tuple(_query(record, with_targets=split == "val") for record in read_records(annotations))
    unique((query.id for query in queries), annotations)
    check_named(queries, annotations, ids, images)
    pictures = find_folder(root, [f"{home}/unlabeled2017" for home in COCO])
    return Benchmark(
        "circo",
        split,
        ids,
        queries,
        lambda id_: pictures / f"{int(id_):012}.jpg",
        PROTOCOL,
        checksum=checksum(annotations, images),
        remark=counted("CIRCO", RecordCount(annotations, len(queries), RELEASED[split]), RecordCount(images, len(ids), IMAGES)),
    )


def _ids(path: Path) -> list[str]:
    if path.suffix == ".json":
        return [str(image.number("id")) for image in read_object(path).parts("images")]
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.isdecimal():
            raise MMRetrieveError(f"{path}, line {number}: expected the number of an image, not {line!r:.60}")
    return [str(int(line)) for line in lines]


def _query(record: JsonRecord, *, with_targets: bool) -> BenchmarkQuery:
    if not with_targets:
        record.must_lack("gt_img_ids")
    return BenchmarkQuery(
        str(record.number("id")),
        str(record.number("reference_img_id")),
        (record.text("relative_caption"),),
        _targets(record) if with_targets else (),
        concept=record.text("shared_concept"),
        tags=_tags(record) if with_targets else (),
    )


def _targets(record: JsonRecord) -> tuple[str, ...]:
    targets, first = record.numbers("gt_img_ids"), record.number("target_img_id")
    if targets[:1] != (first,) or len(set(targets)) != len(targets):
        raise record.error(
            f"gt_img_ids should start with target_img_id, {first}, and name nothing twice; it is {list(targets)}"
        )
    return tuple(map(str, targets))


def _tags(record: JsonRecord) -> tuple[str, ...]:
    tags = record.texts("semantic_aspects")
    if strange := [tag for tag in tags if tag not in ASPECTS]:
        raise record.error(f"unknown semantic aspect {strange[0]!r}; choose from: {', '.join(ASPECTS)}")
    return tags
