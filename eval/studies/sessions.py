"""How often the target of a session is among the ten best hits after each turn, for several ways to merge its turns.

The sessions are made from the wardrobe. The target has the detail of the reference and other attributes, which the turns ask for one
by one. In some sessions the person has a change of mind: the first turn asks for a value that a later one replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np

from mmretrieve import Ranking, Retriever, merge_turns, wardrobe
from mmretrieve.wardrobe.attributes import Detail, Garment, choices
from mmretrieve.wardrobe.captions import change_prompt, differences

K = 10
SESSIONS = 200  # of each kind, at most
DECAYS = {"last turn only": 0.0, "all turns, decay 0.5": 0.5, "all turns, decay 0.8": 0.8, "all turns": 1.0}
KEPT, REPLACED = "the same in all turns", "the best hit of each turn"
KINDS = {"2 turns": (2, False), "3 turns": (3, False), "4 turns": (4, False), "3 turns, a change of mind": (3, True)}
"""Name of a kind of sessions → the number of turns, and whether the first one is taken back."""


@dataclass(frozen=True)
class SessionCase:
    """A session that a person might have.

    Parameters
    ----------
    reference : id of the reference of the first turn.
    prompts : of each turn.
    garment : what the person wants.
    targets : ids of the drawings of it.
    """

    reference: str
    prompts: tuple[str, ...]
    garment: Garment
    targets: frozenset[str]


def measure_sessions(retriever: Retriever, count: int = SESSIONS) -> dict[str, Any]:
    """Kind of sessions → their reference → how turns are merged → percent of sessions with a target in the ten best, after each turn."""
    result: dict[str, Any] = {}
    for kind, (turns, changes_mind) in KINDS.items():
        cases = draw_sessions(turns, count, changes_mind=changes_mind)
        result[kind] = {
            reference: {
                name: measure_hits(retriever, cases, decay, replaces=reference == REPLACED) for name, decay in DECAYS.items()
            }
            for reference in (KEPT, REPLACED)
        }
    return result


def draw_sessions(turns: int, count: int, *, changes_mind: bool = False) -> list[SessionCase]:
    """Up to that many sessions, each with another pair of reference and target; the same in every run."""
    random = Random(f"{turns} {changes_mind}")
    shoots: dict[Detail, dict[Garment, list[str]]] = {}
    for drawing in wardrobe.drawings():
        shoots.setdefault(drawing.detail, {}).setdefault(drawing.garment, []).append(drawing.id)
    pairs = [
        (references[0], reference, target, frozenset(targets))
        for shoot in shoots.values()
        for reference, references in shoot.items()
        for target, targets in shoot.items()
        if len(differences(reference, target)) == turns - changes_mind
    ]
    return [_draw_session(*pair, changes_mind, random) for pair in random.sample(pairs, min(count, len(pairs)))]


def _draw_session(
    id_: str, reference: Garment, target: Garment, targets: frozenset[str], changes_mind: bool, random: Random
) -> SessionCase:
    """A session whose turns ask for the attributes of the target in random order."""
    names = differences(reference, target)
    random.shuffle(names)
    prompts = [change_prompt(target, [name], random) for name in names]
    if changes_mind:
        prompts = [_rejected_prompt(reference, target, names[-1], random), *prompts]
    return SessionCase(id_, tuple(prompts), target, targets)


def measure_hits(retriever: Retriever, cases: Sequence[SessionCase], decay: float, *, replaces: bool = False) -> list[float]:
    """(turns,) percent of sessions with a target among the ten best.

    replaces: whether each turn has as reference the hit that has most of what the person wants, if it has more than the
    reference before.
    """
    sessions: list[list[dict[str, Any]]] = [[{"reference_id": case.reference}] for case in cases]
    shares = []
    for turn in range(len(cases[0].prompts)):
        for case, turns in zip(cases, sessions, strict=True):
            turns[-1]["prompt"] = case.prompts[turn]
        rankings = _search(retriever, cases, sessions, decay)
        found = [bool(case.targets & set(ranking.ids)) for case, ranking in zip(cases, rankings, strict=True)]
        shares.append(100 * float(np.mean(found)))
        for case, turns, ranking in zip(cases, sessions, rankings, strict=True):
            turns.append({"reference_id": _best_item(case, turns[-1]["reference_id"], ranking)} if replaces else {})
    return shares


def _search(
    retriever: Retriever, cases: Sequence[SessionCase], sessions: Sequence[Sequence[Mapping[str, Any]]], decay: float
) -> list[Ranking]:
    return retriever.search_many(
        [merge_turns(turns, decay) | {"k": K, "exclude": [case.reference]} for case, turns in zip(cases, sessions, strict=True)]
    )


def _best_item(case: SessionCase, reference: str, ranking: Ranking) -> str:
    """The item with most of what the person wants among a reference and the hits; the first of several."""
    return min((reference, *ranking.ids), key=lambda id_: len(differences(_garments()[id_], case.garment)))


@cache
def _garments() -> dict[str, Garment]:
    """Id of a drawing → its garment."""
    return {drawing.id: drawing.garment for drawing in wardrobe.drawings()}


def _rejected_prompt(reference: Garment, target: Garment, name: str, random: Random) -> str:
    """A prompt for a value of an attribute that neither the reference nor the target has."""
    others = [value for value in choices(target.kind)[name] if value not in (getattr(reference, name), getattr(target, name))]
    return change_prompt(target.changed(**{name: random.choice(others)}), [name], random)
