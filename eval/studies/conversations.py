"""The sessions of CIRCLED: how often a target is among the ten best hits after each turn, for several ways to merge turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.benchmarks.circled import CircledSession
from mmretrieve import Retriever, merge_turns

K = 10
DECAY = 0.8
Turns = Sequence[Mapping[str, Any]]


def _as_one_text(turns: Turns) -> dict[str, Any]:
    """The last reference, and the prompts of all turns as one."""
    return {**turns[-1], "prompt": ", ".join(turn["prompt"] for turn in turns)}


MERGES: Mapping[str, Callable[[Turns], dict[str, Any]]] = {
    "last turn only": lambda turns: merge_turns(turns, 0.0),
    f"all turns, decay {DECAY}": lambda turns: merge_turns(turns, DECAY),
    "all turns": lambda turns: merge_turns(turns, 1.0),
    "all turns as one text": _as_one_text,
}


def measure_conversations(
    retriever: Retriever, sessions: Sequence[CircledSession], *, keeps_reference: bool, **options: Any
) -> dict[str, Any]:
    """Measures sessions turn by turn.

    Parameters
    ----------
    retriever : searches the gallery of the sessions.
    sessions : of any length; a turn counts those that have it.
    keeps_reference : whether the protocol of the benchmark leaves the reference in the ranking.
    **options : keywords of every search, such as `composer`.

    Returns
    -------
    "sessions": how many have each turn; "hits": way to merge turns → percent of these with a target among the ten best.
    """
    options = {**options, "k": K, "exclude_reference": not keeps_reference}
    longest = max(len(session.turns) for session in sessions)
    by_turn = [[session for session in sessions if len(session.turns) >= count] for count in range(1, longest + 1)]
    return {
        "sessions": [len(own) for own in by_turn],
        "hits": {
            name: [_percent_found(retriever, own, count, merge, options) for count, own in enumerate(by_turn, start=1)]
            for name, merge in MERGES.items()
        },
    }


def _percent_found(
    retriever: Retriever,
    sessions: Sequence[CircledSession],
    count: int,
    merge: Callable[[Turns], dict[str, Any]],
    options: Mapping[str, Any],
) -> float:
    rankings = retriever.search_many([{**merge(session.requests(count)), **options} for session in sessions])
    found = [bool(session.targets & set(ranking.ids)) for session, ranking in zip(sessions, rankings, strict=True)]
    return 100 * float(np.mean(found))
