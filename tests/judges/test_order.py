"""How much the order of candidates matters: judges that only see it, that ignore it, and one that is asked in several orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mmretrieve.errors import OptionError
from mmretrieve.judges.order import OrderEffect, candidate_orders, kendall_tau, measure_order_effect

DOCUMENTS = [{"image": i} for i in range(5)]


class Judge:
    """Scores a document by its place, and by what it is."""

    def __init__(self, score: Any) -> None:
        self.score = score

    def rank(self, query: Mapping[str, Any], documents: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:  # noqa: ARG002
        return [{"corpus_id": i, "score": float(self.score(i, document["image"]))} for i, document in enumerate(documents)]


def test_a_judge_that_prefers_the_first_one_is_noticed() -> None:
    """In reverse it puts 4 before 0, 1, 2, 3: of ten pairs, four change."""
    effect = measure_order_effect(Judge(lambda place, _: place == 0), {}, DOCUMENTS, orders=2)
    assert effect == OrderEffect(2, (6 - 4) / 10, 0)
    by_place = measure_order_effect(Judge(lambda place, _: -place), {}, DOCUMENTS, orders=2)
    assert by_place == OrderEffect(2, -1, 0)


@pytest.mark.parametrize("score", [lambda _, image: (image * 3) % 5, lambda *_: 0, lambda _, image: image // 2])
def test_a_judge_that_does_not_care_moves_nothing(score: Any) -> None:
    assert measure_order_effect(Judge(score), {}, DOCUMENTS, orders=6) == OrderEffect(6, 1, 1)


def test_candidates_without_a_score_are_last() -> None:
    """A list of two names the first two that it sees."""
    judge = Judge(lambda place, _: -place if place < 2 else np.nan)
    assert measure_order_effect(judge, {}, DOCUMENTS[:4], orders=2).tau == pytest.approx((1 - 5) / 6)  # 0 1 2 3 and 3 2 0 1
    assert measure_order_effect(judge, {}, DOCUMENTS[:1]) == OrderEffect(4, 1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_its_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.permutation(7), random.permutation(7)
    places = [list(ranking) for ranking in (one, other)]
    signs = [
        1 if len({places[i].index(a) < places[i].index(b) for i in (0, 1)}) == 1 else -1 for a, b in combinations(range(7), 2)
    ]
    assert kendall_tau(one, other) == pytest.approx(sum(signs) / 21)


def test_orders_are_permutations() -> None:
    orders = candidate_orders(6, 5, seed=3)
    assert orders[:2] == [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert orders == candidate_orders(6, 5, seed=3) != candidate_orders(6, 5, seed=4)
    assert candidate_orders(6, 1) == orders[:1]


def test_one_order_cannot_be_compared() -> None:
    with pytest.raises(OptionError, match="orders must be a whole number of at least 2, got 1"):
        measure_order_effect(Judge(lambda *_: 0), {}, DOCUMENTS, orders=1)
