"""How much the order in which a judge sees its candidates changes its ranking of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmretrieve.judges.base import Judge, judge_logits
from mmretrieve.options import check_count

DEFAULT_ORDERS = 4


@dataclass(frozen=True)
class OrderEffect:
    """What other orders of the candidates do to the ranking of a judge.

    Parameters
    ----------
    orders : the orders in which it saw the candidates, the given one included.
    tau : the mean of Kendall's tau between the ranking of the given order and that of each other one: 1 for equal rankings.
    same_best : the share of the other orders in which the same candidate is the best.
    """

    orders: int
    tau: float
    same_best: float


def candidate_orders(count: int, orders: int, seed: int = 0) -> list[list[int]]:
    """Orders of candidates: the given one, its reverse, and random ones.

    Parameters
    ----------
    count : int
        The number of candidates.
    orders : int
        The number of orders, at least 1.
    seed : int, default=0
        The seed of the random orders.

    Returns
    -------
    list of list of int
        For each order the positions of the candidates.

    Examples
    --------
    >>> candidate_orders(3, 2)
    [[0, 1, 2], [2, 1, 0]]
    """
    random, given = Random(seed), list(range(count))
    return [given, given[::-1], *(random.sample(given, count) for _ in range(orders - 2))][:orders]


def measure_order_effect(
    judge: Judge,
    query: Mapping[str, Any],
    documents: Sequence[Mapping[str, Any]],
    *,
    orders: int = DEFAULT_ORDERS,
    seed: int = 0,
) -> OrderEffect:
    """Asks a judge for the same candidates in several orders, and compares its rankings.

    Of candidates with equal scores, the one that was given first is ranked first, and those without a score are last, as in a search.

    Parameters
    ----------
    judge : Judge
        Usually one that sees all candidates at once.
    query, documents : mapping, sequence of mapping
        As in `Judge.rank`.
    orders : int, default=4
        The number of orders, at least 2: the given one, its reverse, and random ones.
    seed : int, default=0
        The seed of the random orders.

    Returns
    -------
    OrderEffect
        How much the ranking moves.

    Raises
    ------
    OptionError
        There are fewer than two orders.
    JudgeError
        The judge failed.

    Examples
    --------
    >>> class First:
    ...     def rank(self, query, documents):
    ...         return [{"corpus_id": i, "score": -float(i)} for i in range(len(documents))]
    >>> measure_order_effect(First(), {"text": "in red"}, [{}, {}, {}], orders=2)
    OrderEffect(orders=2, tau=-1.0, same_best=0.0)
    """
    check_count("orders", orders, low=2)
    rankings = []
    for order in candidate_orders(len(documents), orders, seed):
        logits = np.empty(len(documents))
        logits[order] = judge_logits(judge, query, [documents[i] for i in order])
        rankings.append(np.argsort(-np.nan_to_num(logits, nan=-np.inf), kind="stable"))
    given, *others = rankings
    same_best = [bool(np.array_equal(other[:1], given[:1])) for other in others]
    return OrderEffect(orders, float(np.mean([kendall_tau(given, other) for other in others])), float(np.mean(same_best)))


def kendall_tau(one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """Kendall's tau of two rankings of the same items: the share of pairs in the same order minus that of the others; 1 without pairs.

    >>> kendall_tau(np.array([0, 1, 2]), np.array([0, 2, 1])) == (2 - 1) / 3
    True
    """
    places = np.argsort(one), np.argsort(other)
    pairs = np.triu_indices(len(one), 1)
    agreements = np.prod([np.sign(place[pairs[0]] - place[pairs[1]]) for place in places], axis=0)
    return float(agreements.mean()) if len(agreements) else 1.0
