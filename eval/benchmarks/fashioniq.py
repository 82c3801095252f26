"""FashionIQ: clothes in three categories, two captions for each query. The reference stays in the ranking.

Source of the protocol: arXiv 1905.12794 and the evaluators that followed: recall at 10 and 50 in the whole val split of the
category. `val-union` ranks only the images that val captions mention, an easier protocol that some papers use.
"""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks.annotations import (
    JsonRecord,
    check_counts,
    check_references,
    find_file,
    find_folder,
    read_list,
    read_records,
)
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import check_unique, file_checksum

CATEGORIES = ("dress", "shirt", "toptee")
NAME = "fashioniq"
SPLITS = ("val", "val-union")
ROOT_CONTENTS = "captions/ and image_splits/"
RELEASED = {  # queries, images of val and of val-union
    "dress": (2017, {"val": 3817, "val-union": 2628}),
    "shirt": (2038, {"val": 6346, "val-union": 3089}),
    "toptee": (1961, {"val": 5373, "val-union": 2902}),
}
FOLDERS = (".", "fashionIQ_dataset", "fashionIQ")
SUFFIXES = (".jpg", ".png", ".jpeg")
STRIPPED = ".?, "
"""Characters that the published evaluators strip from both ends of a caption."""
PROTOCOL = Protocol(headline="recall@10", recalls=(10, 50), keeps_reference=True)


def load(root: Path, split: str, category: str) -> Benchmark:
    """Loads one category of FashionIQ. Raises MMRetrieveError naming the file or record that is missing or invalid. Images may be absent."""
    captions, images = (
        find_file(root, [f"{base}/{name}" for base in FOLDERS])
        for name in (f"captions/cap.{category}.val.json", f"image_splits/split.{category}.val.json")
    )
    ids = check_unique(read_list(images, str), images)
    queries = tuple(_parse_query(i, record) for i, record in enumerate(read_records(captions)))
    check_references(queries, captions, ids, images)
    if split == "val-union":
        mentioned = {id_ for query in queries for id_ in (query.reference, *query.targets)}
        ids = tuple(id_ for id_ in ids if id_ in mentioned)
    folder = find_folder(root, [f"{base}/images" for base in FOLDERS])
    query_count, image_counts = RELEASED[category]
    return Benchmark(
        f"{NAME}:{category}",
        split,
        ids,
        queries,
        lambda id_: _find_image(folder, id_),
        PROTOCOL,
        checksum=file_checksum(captions, images),
        remark=check_counts(
            f"FashionIQ {category}",
            (captions, len(queries), query_count),
            (images, len(ids), image_counts[split]),
        ),
    )


def _parse_query(number: int, record: JsonRecord) -> BenchmarkQuery:
    """Joins the two captions in both orders, even where one of them is empty, as the published evaluators do."""
    captions = [caption.strip(STRIPPED) for caption in record.texts("captions")]
    if len(captions) != 2:
        raise record.error(f"expected two captions, got {len(captions)}")
    prompts = tuple(" and ".join(order) for order in (captions, captions[::-1]))
    return BenchmarkQuery(str(number), record.text("candidate"), prompts, (record.text("target"),))


def _find_image(folder: Path, id_: str) -> Path:
    files = [folder / f"{id_}{suffix}" for suffix in SUFFIXES]
    return next((file for file in files if file.is_file()), files[0])
