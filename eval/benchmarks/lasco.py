"""LaSCo: composed queries made of the questions of VQA 2.0, over images of COCO.

Reads the released lasco_val.json, a list of triplets, and lasco_val_corpus.json, a list of `id` and `path`. Source of the layout:
arXiv 2303.09429 and its repository, which has no evaluator. As in public evaluations, the reference stays in the ranking.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from eval.benchmarks.annotations import JsonRecord, check_counts, check_references, find_file, find_folder, read_records
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import check_unique, file_checksum

NAME = "lasco"
SPLITS = ("val",)
ROOT_CONTENTS = "lasco_val.json, lasco_val_corpus.json and val2014/"
RELEASED_QUERIES, RELEASED_IMAGES = 30_037, 39_826
FOLDERS = (".", "downloads", "LaSCo", "lasco")
IMAGES = ("val2014", "val/val2014", "coco/val2014", "COCO/val2014", "images/val2014")
RECALLS = (1, 5, 10, 50, 100)
PROTOCOL = Protocol(headline="recall@10", recalls=RECALLS, keeps_reference=True)


def load(root: Path) -> Benchmark:
    """Loads LaSCo's validation split. Raises MMRetrieveError naming the file or record that is missing or invalid. Images may be absent."""
    queries_path, corpus_path = (
        find_file(root, [f"{base}/{name}" for base in FOLDERS]) for name in ("lasco_val.json", "lasco_val_corpus.json")
    )
    names = [(str(record.number("id")), PurePosixPath(record.text("path")).name) for record in read_records(corpus_path)]
    ids = check_unique((id_ for id_, _ in names), corpus_path)
    queries = tuple(_parse_query(i, record) for i, record in enumerate(read_records(queries_path)))
    check_references(queries, queries_path, ids, corpus_path)
    folder, file_of = find_folder(root, [f"{base}/{images}" for base in FOLDERS for images in IMAGES]), dict(names)
    return Benchmark(
        NAME,
        SPLITS[0],
        ids,
        queries,
        lambda id_: folder / file_of[id_],
        PROTOCOL,
        checksum=file_checksum(queries_path, corpus_path),
        remark=check_counts("LaSCo", (queries_path, len(queries), RELEASED_QUERIES), (corpus_path, len(ids), RELEASED_IMAGES)),
    )


def _parse_query(number: int, record: JsonRecord) -> BenchmarkQuery:
    """A query whose id is its position, as a question of VQA can be the source of several."""
    return BenchmarkQuery(
        str(number), _image_id(record, "query-image"), (record.text("query-text"),), (_image_id(record, "target-image"),)
    )


def _image_id(record: JsonRecord, name: str) -> str:
    """The number of an image, the first of a pair with its path."""
    value = record.fields.get(name)
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], int) or isinstance(value[0], bool):
        raise record.error(f"{name!r} should be a number and a path, not {value!r:.60}")
    return str(value[0])
