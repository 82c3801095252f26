"""CIRR: open-domain images. The reference is not ranked, and each query has a subset of six similar images.

Reads the released annotations (`cap.rc2`, `split.rc2`); the targets of test1 are kept on a server. Source of the protocol:
arXiv 2108.04024 and its evaluator: recall among the images of the split, and among the five members other than the reference.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from eval.benchmarks.annotations import (
    JsonRecord,
    check_counts,
    check_references,
    find_file,
    read_object,
    read_records,
)
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import check_unique, file_checksum

NAME = "cirr"
SPLITS = ("val", "test1")
ROOT_CONTENTS = "captions/ and image_splits/, or cirr/ with both"
RELEASED = {"val": (4181, 2297), "test1": (4148, 2315)}  # queries, images
SET_SIZE = 6  # images of a set, the reference among them
FOLDERS = ("cirr", ".")  # of the annotations
IMAGE_FOLDERS = (".", "img_raw", "cirr", "cirr/img_raw")
PROTOCOL = Protocol(headline="recall@1", recalls=(1, 5, 10, 50), subset_recalls=(1, 2, 3))


def load(root: Path, split: str) -> Benchmark:
    """Loads one split of CIRR. Raises MMRetrieveError naming the file or record that is missing or invalid. Images may be absent."""
    captions, images = (
        find_file(root, [f"{base}/{name}" for base in FOLDERS])
        for name in (f"captions/cap.rc2.{split}.json", f"image_splits/split.rc2.{split}.json")
    )
    listed = read_object(images)
    files = {id_: PurePosixPath(listed.text(id_)) for id_ in listed.fields}
    records = read_records(captions)
    queries = tuple(_parse_query(record, with_target=split == "val") for record in records)
    check_unique((query.id for query in queries), captions)
    check_references(queries, captions, files, images)
    first = next(iter(files.values())).parent  # PurePosixPath drops the "./" of "./dev/x.png"
    image_folder = root / next((folder for folder in IMAGE_FOLDERS if (root / folder / first).is_dir()), IMAGE_FOLDERS[0])
    released = RELEASED[split]
    return Benchmark(
        NAME,
        split,
        tuple(files),
        queries,
        lambda id_: image_folder / files[id_],
        PROTOCOL,
        checksum=file_checksum(captions, images),
        remark=check_counts("CIRR", (captions, len(queries), released[0]), (images, len(files), released[1])),
    )


def _parse_query(record: JsonRecord, *, with_target: bool) -> BenchmarkQuery:
    if not with_target:
        record.check_absent("target_hard")
    reference, members = record.text("reference"), record.part("img_set").texts("members")
    candidates = tuple(id_ for id_ in members if id_ != reference)
    if len(members) != SET_SIZE or len(set(candidates)) != SET_SIZE - 1:
        raise record.error(f"img_set should have {SET_SIZE} members, the reference among them, not {list(members)}")
    targets = (record.text("target_hard"),) if with_target else ()
    if outside := set(targets) - set(candidates):
        raise record.error(f"the target {outside.pop()!r} is not among the members of its own img_set, or is the reference")
    return BenchmarkQuery(str(record.number("pairid")), reference, (record.text("caption"),), targets, candidates=candidates)
