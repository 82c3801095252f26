"""CIRR: open-domain pictures; the reference leaves the ranking, and each query has a subset of six look-alikes.

Annotations as released (`cap.rc2`, `split.rc2`); the targets of test1 are on a server. Protocol: arXiv 2108.04024, as
in its own evaluator: recall among the split's images, and among the five members that are not the reference.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.benchmarks.counts import RecordCount, counted
from eval.benchmarks.json_files import JsonRecord, check_named, checksum, find_file, read_object, read_records, unique

SPLITS = ("val", "test1")
HOLDS = "captions/ and image_splits/, or cirr/ with both"
RELEASED = {"val": (4181, 2297), "test1": (4148, 2315)}  # queries, images
MEMBERS = 6  # of an image set, the reference among them
HOMES = ("cirr", ".")  # of the annotations
IMAGE_HOMES = (".", "img_raw", "cirr", "cirr/img_raw")
PROTOCOL = Protocol(headline="recall@1", recalls=(1, 5, 10, 50), subset_recalls=(1, 2, 3))


def load(root: Path, split: str) -> Benchmark:
    """Raises MMRetrieveError naming the file, and the record, that is missing or does not fit. Pictures may be absent."""
    captions, images = (
        find_file(root, [f"{home}/{name}" for home in HOMES])
        for name in (f"captions/cap.rc2.{split}.json", f"image_splits/split.rc2.{split}.json")
    )
    listed = read_object(images)
    files = {id_: PurePosixPath(listed.text(id_)) for id_ in listed.fields}
    records = read_records(captions)
    queries = tuple(_query(record, with_target=split == "val") for record in records)
    unique((query.id for query in queries), captions)
    check_named(queries, captions, files, images)
    first = next(iter(files.values())).parent  # PurePosixPath has dropped the "./" of "./dev/x.png"
    base = root / next((home for home in IMAGE_HOMES if (root / home / first).is_dir()), IMAGE_HOMES[0])
    released = RELEASED[split]
    return Benchmark(
        "cirr",
        split,
        tuple(files),
        queries,
        lambda id_: base / files[id_],
        PROTOCOL,
        checksum=checksum(captions, images),
        remark=counted("CIRR", RecordCount(captions, len(queries), released[0]), RecordCount(images, len(files), released[1])),
    )


def _query(record: JsonRecord, *, with_target: bool) -> BenchmarkQuery:
    if not with_target:
        record.must_lack("target_hard")
    reference, members = record.text("reference"), record.part("img_set").texts("members")
    candidates = tuple(id_ for id_ in members if id_ != reference)
    if len(members) != MEMBERS or len(set(candidates)) != MEMBERS - 1:
        raise record.error(f"img_set should have {MEMBERS} members, the reference among them, not {list(members)}")
    targets = (record.text("target_hard"),) if with_target else ()
    if strange := set(targets) - set(candidates):
        raise record.error(f"the target {strange.pop()!r} is not among the members of its own img_set, or is the reference")
    return BenchmarkQuery(str(record.number("pairid")), reference, (record.text("caption"),), targets, candidates=candidates)
