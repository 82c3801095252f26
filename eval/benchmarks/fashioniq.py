"""FashionIQ: clothes in three categories, two captions a query; the reference stays in the ranking.

Protocol: arXiv 1905.12794 and the evaluators that followed: recall at 10 and 50 in the category's whole val split.
`val-union` ranks only the images that val captions name: an easier protocol, used by some papers.
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
    read_list,
    read_records,
    unique,
)

CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("val", "val-union")
HOLDS = "captions/ and image_splits/"
RELEASED = {  # queries, images of val and of val-union
    "dress": (2017, {"val": 3817, "val-union": 2628}),
    "shirt": (2038, {"val": 6346, "val-union": 3089}),
    "toptee": (1961, {"val": 5373, "val-union": 2902}),
}
HOMES = (".", "fashionIQ_dataset", "fashionIQ")
SUFFIXES = (".jpg", ".png", ".jpeg")
AROUND = ".?, "
"""What the published evaluators strip from both ends of a caption."""
PROTOCOL = Protocol(headline="recall@10", recalls=(10, 50), keeps_reference=True)


def load(root: Path, split: str, category: str) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the record, that is missing or does not fit. Pictures may be absent."""
    captions, images = (
        find_file(root, [f"{home}/{name}" for home in HOMES])
        for name in (f"captions/cap.{category}.val.json", f"image_splits/split.{category}.val.json")
    )
    ids = unique(read_list(images, str), images)
    queries = tuple(_query(i, record) for i, record in enumerate(read_records(captions)))
    check_named(queries, captions, ids, images)
    if split == "val-union":
        named = {id_ for query in queries for id_ in (query.reference, *query.targets)}
        ids = tuple(id_ for id_ in ids if id_ in named)
    pictures = find_folder(root, [f"{home}/images" for home in HOMES])
    asked, shown = RELEASED[category]
    return Benchmark(
        f"fashioniq:{category}",
        split,
        ids,
        queries,
        lambda id_: _file(pictures, id_),
        PROTOCOL,
        checksum=checksum(captions, images),
        remark=counted(
            f"FashionIQ {category}", RecordCount(captions, len(queries), asked), RecordCount(images, len(ids), shown[split])
        ),
    )


def _query(number: int, record: JsonRecord) -> BenchmarkQuery:
    """Both orders of the two captions, also where one of them is empty, as the published evaluators do."""
    captions = [caption.strip(AROUND) for caption in record.texts("captions")]
    if len(captions) != 2:
        raise record.error(f"expected two captions, found {len(captions)}")
    prompts = tuple(" and ".join(order) for order in (captions, captions[::-1]))
    return BenchmarkQuery(str(number), record.text("candidate"), prompts, (record.text("target"),))


def _file(folder: Path, id_: str) -> Path:
    files = [folder / f"{id_}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), files[0])
