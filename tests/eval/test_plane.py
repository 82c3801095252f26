"""Ranks on the PDV plane: equal to `target_ranks` at every point, to the last tie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmretrieve as mm
from eval.metrics import RankingTask, Ranks, target_ranks
from eval.sweep import plane as plane_module
from eval.sweep.plane import DEPTH_MARGIN, MAX_SCORED_DISTRACTORS, Plane, plane_ranks
from mmretrieve.directions import plane_weights
from mmretrieve.scoring import linear
from mmretrieve.vectors import Float32

NAMED = {"base": mm.PDV(), "elsewhere": mm.PDV(alpha_image=1.3, alpha_text=0.4, beta=0.77)}
PLANE = Plane(np.linspace(0, 1, 6), np.linspace(-0.5, 3, 8), NAMED)
EIGHTHS = Plane(np.linspace(0, 1, 5), np.linspace(-0.5, 2, 21))
Kind = Callable[[np.random.Generator, int], Float32]


def one_by_one(scores_3n: Float32, plane: Plane, task: RankingTask) -> Ranks:
    """(points, targets): the ranks of a run at each point."""
    points = [plane_weights(float(beta), float(gamma)) for beta in plane.betas for gamma in plane.gammas]
    points += [pdv.weights for pdv in plane.named.values()]
    return np.array([target_ranks(linear(scores_3n, point), task) for point in points])


def anything(rng: np.random.Generator, items: int) -> Float32:
    return rng.uniform(-1, 1, (3, items)).astype(np.float32)


def eighths(rng: np.random.Generator, items: int) -> Float32:
    return (rng.integers(-4, 5, (3, items)) / 8).astype(np.float32)


def tenths(rng: np.random.Generator, items: int) -> Float32:
    return (rng.integers(-3, 4, (3, items)) * 0.1).astype(np.float32)


def whole(rng: np.random.Generator, items: int) -> Float32:
    return rng.integers(-2, 3, (3, items)).astype(np.float32)


def duplicates(rng: np.random.Generator, items: int) -> Float32:
    """Every item occurs several times, the targets too."""
    return anything(rng, max(2, items // 4))[:, rng.integers(0, max(2, items // 4), items)]


def no_direction(rng: np.random.Generator, items: int) -> Float32:
    """text == composed: gamma changes nothing."""
    image, text, _ = anything(rng, items)
    return np.stack([image, text, text])


def slight(rng: np.random.Generator, items: int) -> Float32:
    """The prompt moves an item by 1e-9 to 1e-6 and the image by as little: thresholds on the whole grid and far beyond it."""
    size = 10.0 ** rng.integers(-9, -5, (3, items))
    return (0.25 + rng.uniform(-1, 1, (3, items)) * size).astype(np.float32)


def far_ahead(rng: np.random.Generator, items: int) -> Float32:
    """The prompt moves an item by next to nothing, the image by much: thresholds of a million steps and more."""
    image, text, _ = anything(rng, items)
    return np.stack([image, text, text + (rng.uniform(-1, 1, items) * 10.0 ** rng.integers(-8, -3, items)).astype(np.float32)])


def alike(rng: np.random.Generator, items: int) -> Float32:
    """Like the scores of a real encoder: all near one value, many differing only in the last digit."""
    return np.float32(0.3) + rng.integers(-3, 4, (3, items)).astype(np.float32) * np.float32(2**-25)


def crossing(rng: np.random.Generator, items: int) -> Float32:
    """Who is first by the image is last by the text: at no two betas do the same distractors rank above the target."""
    lead = rng.uniform(-1, 1, items)
    return np.stack([lead, -lead, 0.3 - lead + rng.uniform(-0.1, 0.1, items)]).astype(np.float32)


def towards_the_target(rng: np.random.Generator, items: int) -> Float32:
    """Like prompts: with gamma the target gains on every other item, and image and text roughly agree on the ranking."""
    image, text, composed = rng.uniform(-1, 1, (3, items)) * [[1], [0.2], [0.1]]
    text += image
    composed += text
    composed[0] = text[0] + 1
    return np.stack([image, text, composed]).astype(np.float32)


def fanning(rng: np.random.Generator, items: int) -> Float32:
    """By the text all others rank above the first item inside the grid; by the image some do at once, most far beyond it."""
    image, text = -rng.uniform(1, 50, items), -rng.uniform(0, 1.8, items)
    scores = np.stack([image, text, text + 1]).astype(np.float32)
    scores[:, 0] = 0
    return scores


KINDS = (
    anything,
    eighths,
    tenths,
    whole,
    duplicates,
    no_direction,
    slight,
    far_ahead,
    alike,
    crossing,
    towards_the_target,
    fanning,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("items", [20, 60, 300])
@pytest.mark.parametrize("plane", [PLANE, EIGHTHS], ids=["plain", "eighths"])
def test_every_point_equals_a_run(kind: Kind, items: int, plane: Plane) -> None:
    rng = np.random.default_rng(5)
    for _ in range(12 if items < 300 else 4):
        scores = kind(rng, items)
        rows = rng.permutation(items).tolist()
        task = RankingTask(rows[1 : 2 + rng.integers(0, 14)], hidden=rows[: rng.integers(0, 2)])
        np.testing.assert_array_equal(plane_ranks(scores, plane, task), one_by_one(scores, plane, task))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3, 10])
@pytest.mark.parametrize("plane", [PLANE, EIGHTHS, Plane(np.array([0.5]), PLANE.gammas)], ids=["plain", "eighths", "one beta"])
@pytest.mark.parametrize("generous", [1, DEPTH_MARGIN])
def test_ranks_are_exact_down_to_the_depth(
    kind: Kind, depth: int, plane: Plane, generous: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a small margin, so that few distractors, or too few, rank above the estimate."""
    monkeypatch.setattr(plane_module, "DEPTH_MARGIN", generous)
    rng = np.random.default_rng(10)
    for items in [MAX_SCORED_DISTRACTORS + 20, 50, 60, 80, 100, 150, 300, 900]:
        scores = kind(rng, items)
        task = RankingTask(list(range(rng.integers(1, 4))), depth=depth)
        result, true = plane_ranks(scores, plane, task), one_by_one(scores, plane, task)
        np.testing.assert_array_equal(np.minimum(result, depth + 1), np.minimum(true, depth + 1))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]), st.sampled_from([1, 3, 10, 50]))
def test_random_thresholds_down_to_random_depths(seed: int, generous: int, depth: int) -> None:
    """Random thresholds: near and far, of one side or both, equal at the two ends of beta or not."""
    rng = np.random.default_rng(seed)
    items, scale = rng.choice([40, 100, 500]), 10.0 ** rng.uniform(-1, 2, (2, 2))
    by_image, by_text = rng.normal(size=(2, items)) * scale[0][:, None] + rng.normal(size=2)[:, None] * scale[1][:, None]
    by_text += by_image * rng.choice([0, 1, -1])
    slope = np.where(rng.random(items) < rng.choice([0, 0.1, 0.5, 1]), 1, -1) * np.exp(
        rng.normal(size=items) * rng.choice([0, 1])
    )
    scores = np.stack([-by_image * slope, -by_text * slope, (1 - by_text) * slope])
    scores = (scores / np.abs(scores).max()).astype(np.float32)
    scores[:, 0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_module, "DEPTH_MARGIN", generous)
        result = plane_ranks(scores, EIGHTHS, RankingTask([0], depth=depth))
    true = plane_ranks(scores, EIGHTHS, RankingTask([0]))
    np.testing.assert_array_equal(np.minimum(result, depth + 1), np.minimum(true, depth + 1))


def test_distractors_beyond_the_depth_are_not_counted() -> None:
    scores = towards_the_target(np.random.default_rng(11), 2000)
    result, true = plane_ranks(scores, EIGHTHS, RankingTask([0], depth=20)), plane_ranks(scores, EIGHTHS, RankingTask([0]))
    np.testing.assert_array_equal(true, one_by_one(scores, EIGHTHS, RankingTask([0])))
    np.testing.assert_array_equal(np.minimum(result, 21), np.minimum(true, 21))
    assert result.max() < true.max() / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distractors", [1, MAX_SCORED_DISTRACTORS, MAX_SCORED_DISTRACTORS + 1, 80])
def test_a_task_with_named_distractors(kind: Kind, distractors: int) -> None:
    """CIRR's subsets and GeneCIS's galleries: distractors may come twice, and a distractor may be the target again."""
    rng = np.random.default_rng(6)
    for _ in range(8):
        scores = kind(rng, 50)
        task = RankingTask([0], distractors=rng.integers(0, 50, distractors).tolist())
        np.testing.assert_array_equal(plane_ranks(scores, PLANE, task), one_by_one(scores, PLANE, task))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.integers(MAX_SCORED_DISTRACTORS + 2, 70),
    st.integers(1, 14),
    st.integers(2, 9),
)
def test_any_grid(seed: int, kind: Kind, items: int, targets: int, gammas: int) -> None:
    """Betas in any order, also a single one; gammas from any start, in fine or wide steps."""
    rng = np.random.default_rng(seed)
    first, step = rng.choice([-2.0, -0.5, 0.0, 0.3, 1.0]), rng.choice([1e-3, 0.1, 0.125, 1.0])
    betas = rng.choice(np.linspace(0, 1, 11), rng.integers(1, 5), replace=False)
    plane = Plane(betas, first + step * np.arange(gammas))
    scores, task = kind(rng, items), RankingTask(list(range(targets)), hidden=[items - 1])
    np.testing.assert_array_equal(plane_ranks(scores, plane, task), one_by_one(scores, plane, task))


def test_a_threshold_on_a_point_is_a_tie_against_the_target() -> None:
    """d = (−1, 0, 1) / 8 · g: the distractor ties at gamma = 1 / g, exactly on the grid, and ranks above the target from there on."""
    plane = Plane(np.array([0.0]), np.array([0.0, 0.25, 0.5, 0.75, 1.0]))
    for steps in range(1, 5):
        distractor = np.array([[-steps / 4], [0], [1]], np.float32) / 8
        scores = np.concatenate(
            [np.zeros((3, 1), np.float32), np.repeat(distractor, MAX_SCORED_DISTRACTORS + 1, axis=1)], axis=1
        )
        result = plane_ranks(scores, plane, RankingTask([0]))[:, 0]
        assert result.tolist() == [1] * steps + [MAX_SCORED_DISTRACTORS + 2] * (5 - steps)
        falling = plane_ranks(-scores, plane, RankingTask([0]))[:, 0]
        assert falling.tolist() == [MAX_SCORED_DISTRACTORS + 2] * (steps + 1) + [1] * (
            4 - steps
        )  # level, it still counts against the target


def test_the_corners_are_the_terms_alone() -> None:
    plane = Plane(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    for kind in KINDS:
        scores, task = kind(np.random.default_rng(7), 90), RankingTask([3, 8], hidden=[5])
        ranks = plane_ranks(scores, plane, task)
        for place, term in {0: 0, 2: 1, 3: 2}.items():
            np.testing.assert_array_equal(ranks[place], target_ranks(scores[term], task))


def test_few_and_many_distractors_are_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        scores, task = kind(np.random.default_rng(8), 40), RankingTask([0, 1])
        result = []
        for few in (0, 100):
            monkeypatch.setattr(plane_module, "MAX_SCORED_DISTRACTORS", few)
            result.append(plane_ranks(scores, PLANE, task))
        np.testing.assert_array_equal(*result)


def test_the_scores_are_not_changed() -> None:
    scores = anything(np.random.default_rng(9), 60)
    before = scores.copy()
    plane_ranks(scores, PLANE, RankingTask([0]))
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    ("betas", "gammas", "why"),
    [
        ([], [0, 1], "every beta must be from 0 to 1"),
        ([0, 1.1], [0, 1], "every beta must be from 0 to 1"),
        ([-0.1, 1], [0, 1], "every beta must be from 0 to 1"),
        ([0.5], [], "at least two gammas that increase in equal steps"),
        ([0.5], [1], "at least two gammas that increase in equal steps"),  # one gamma has no step
        ([0.5], [1, 0], "at least two gammas that increase in equal steps"),
        ([0.5], [0, 0, 0], "at least two gammas that increase in equal steps"),
        ([0.5], [0, 1, 3], "at least two gammas that increase in equal steps"),
        ([0.5], range(2_000_000), "too large"),
    ],
)
def test_invalid_grids_are_refused(betas: list[float], gammas: list[float], why: str) -> None:
    with pytest.raises(mm.MMRetrieveError, match=why):
        Plane(np.array(betas, float), np.array(gammas, float))
