"""CIRCLED: conversations about images of CIRR, CIRCO and FashionIQ, whose turns come nearer to the target one by one.

Reads the released files, `{subset}.json`: a list of sessions with `session_id`, `ground_truth_ids` and `turns`, each with
`reference_image_id` and `relative_caption`. Source: arXiv 2605.26734 and its dataset card, whose counts are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.benchmarks.annotations import JsonRecord, find_file, read_records
from eval.benchmarks.base import Benchmark
from eval.files import check_unique
from mmretrieve.errors import unknown
from mmretrieve.language.files import IdLookup

SUBSETS = {
    "fashioniq_dress_val": ("fashioniq:dress", 1_360),
    "fashioniq_shirt_val": ("fashioniq:shirt", 1_500),
    "fashioniq_toptee_val": ("fashioniq:toptee", 1_506),
    "cirr_val": ("cirr", 959),
    "circo_val": ("circo", 54),
}
"""Subset → the benchmark whose gallery it searches, and the number of its sessions."""


@dataclass(frozen=True)
class CircledSession:
    """A conversation: the targets, and the reference and the prompt of each turn, by ids of the gallery."""

    id: str
    targets: frozenset[str]
    turns: tuple[tuple[str, str], ...]

    def requests(self, count: int) -> list[Mapping[str, object]]:
        """The first turns, as keywords of a search."""
        return [{"reference_id": reference, "prompt": prompt} for reference, prompt in self.turns[:count]]


def gallery_of(subset: str) -> str:
    """The benchmark whose validation gallery a subset searches. Raises OptionError for an unknown subset."""
    if subset not in SUBSETS:
        raise unknown("subset of CIRCLED", subset, list(SUBSETS))
    return SUBSETS[subset][0]


def load_sessions(root: Path, subset: str, benchmark: Benchmark) -> tuple[CircledSession, ...]:
    """The sessions of a subset over the gallery of its benchmark.

    MMRetrieveError, naming the file or the session, for what is missing, damaged, or not in the gallery.
    """
    gallery_of(subset)
    path = find_file(root, [f"{subset}.json", f"data/{subset}.json"])
    ids = IdLookup(benchmark.gallery_ids)
    sessions = tuple(_parse_session(record, ids) for record in read_records(path))
    check_unique((session.id for session in sessions), path)
    return sessions


def count_remark(subset: str, sessions: Sequence[CircledSession]) -> str | None:
    """None for the released number of sessions, else what a reader of a result must know."""
    released = SUBSETS[subset][1]
    return None if len(sessions) == released else f"{len(sessions):,} sessions, not the {released:,} of the released {subset}"


def _parse_session(record: JsonRecord, ids: IdLookup) -> CircledSession:
    turns = record.parts("turns")
    if not turns:
        raise record.error("has no turns")
    targets = record.fields.get("ground_truth_ids")
    if not isinstance(targets, list) or not targets:
        raise record.error(f"'ground_truth_ids' should be a list of ids, not {targets!r:.60}")
    return CircledSession(
        str(record.fields.get("session_id", record.where)),
        frozenset(_find(record, ids, id_) for id_ in targets),
        tuple((_find(turn, ids, turn.fields.get("reference_image_id")), turn.text("relative_caption")) for turn in turns),
    )


def _find(record: JsonRecord, ids: IdLookup, name: object) -> str:
    """The id of the gallery; CIRCO's are numbers, or names of files with leading zeros."""
    found = ids.find(str(name)) if isinstance(name, str | int) else None
    if found is None:
        raise record.error(f"{name!r:.60} is not in the gallery of the benchmark")
    return found
