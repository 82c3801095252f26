"""Score rules: each contribution sums to the published formula, written out here; and what several terms of a role do."""

from __future__ import annotations

import numpy as np
import pytest

from mmretrieve import composition
from mmretrieve.combining import combine
from mmretrieve.composers.captions import sdr_weights
from mmretrieve.composition import Composition
from mmretrieve.directions import PDV
from mmretrieve.errors import OptionError
from mmretrieve.options import RuleName
from mmretrieve.rules import Hinge, Product, Soft, make_rule
from mmretrieve.vectors import unit

NAMES = ("image", "text", "composed", "prompt", "reward", "penalty")
SCORES = np.array(
    [
        [0.5, -0.1, 0.3],
        [0.4, 0.2, 0.1],
        [0.2, 0.6, 0.15],
        [0.3, 0.7, -0.2],
        [0.1, 0.9, 0.0],
        [0.8, 0.2, 0.4],
    ],
    dtype=np.float32,
)
IMAGE, TEXT, COMPOSED, PROMPT, REWARD, PENALTY = SCORES.astype(float)


def query(**more: object) -> Composition:
    return Composition(NAMES, np.eye(6, dtype=np.float32), (0.25, -0.5, 1.25, 0.0, 0.0, 0.0), **more)


SUM = 0.25 * IMAGE - 0.5 * TEXT + 1.25 * COMPOSED


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (make_rule("linear"), SUM),
        (Hinge(gain=0.13, loss=2.1), SUM + 2.1 * np.minimum(0, COMPOSED - TEXT) + 0.13 * np.maximum(0, COMPOSED - TEXT)),
        (Soft(1.0), SUM * (REWARD + 1 - PENALTY) / 2),
        (Soft(0.2), 0.8 * SUM + 0.2 * SUM * (REWARD + 1 - PENALTY) / 2),
        (Product(), np.maximum(IMAGE, 0) * np.maximum(PROMPT, 0)),
        (
            Product(0.1),
            np.maximum(IMAGE, 0) * np.maximum(PROMPT, 0) - 0.1 * (np.maximum(IMAGE, 0) + np.maximum(PROMPT, 0)) ** 2,
        ),
    ],
)
def test_contributions_sum_to_the_published_formula(rule: object, expected: np.ndarray) -> None:
    contributions = query(rule=rule).contributions(SCORES)
    np.testing.assert_allclose(contributions.sum(axis=0), expected, atol=1e-6)


@pytest.mark.parametrize("rule", list(RuleName))
@pytest.mark.parametrize("means", [{}, {"text": 0.2, "prompt 2": -0.1}])
def test_totals_are_the_sums_of_the_contributions(
    rule: RuleName, means: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composition, "TOTALS_BATCH_SIZE", 7)
    names = (*NAMES, "composed 2", "prompt 2")
    terms, weights = np.eye(8, dtype=np.float32), (0.25, -0.5, 1.25, 0.1, 0.2, 0.3, -2.0, 0.7)
    shares = {"composed": 0.75, "composed 2": 1.5, "prompt": 0.5, "prompt 2": 0.5}
    asked = Composition(names, terms, weights, rule=make_rule(rule), shares=shares, means=means)
    scores = np.random.default_rng(0).uniform(-1, 1, size=(8, 20)).astype(np.float32)
    np.testing.assert_allclose(asked.totals(scores), asked.contributions(scores).sum(axis=0), atol=3e-6)


@pytest.mark.parametrize("roles", [{}, {"reward": 0.5}, {"penalty": 0.25}, {"reward": 0.5, "penalty": 0.25}])
def test_the_soft_rule_takes_what_is_missing_as_zero(roles: dict[str, float]) -> None:
    weighted = np.array([2.0])
    scores = {name: np.array([score]) for name, score in roles.items()}
    slopes = Soft(0.4).slopes(weighted, scores)
    total = slopes.weighted * weighted + sum(slopes.roles[name] * score for name, score in scores.items())
    factor = roles.get("reward", 0) + 1 - roles.get("penalty", 0)
    np.testing.assert_allclose(total, 0.6 * weighted + 0.4 * weighted * factor / 2)


@pytest.mark.parametrize("row", range(6))
@pytest.mark.parametrize("rule", [Hinge(), Soft(), Product(), Product(0.1)])
def test_a_contribution_is_the_average_gradient_from_zero(rule: object, row: int) -> None:
    """The definition of the Aumann–Shapley value, by numbers: a midpoint sum of central differences."""
    composition, steps, step = query(rule=rule), 50, 1e-4

    def score(scores: np.ndarray) -> np.ndarray:
        return composition.contributions(scores.astype(np.float64)).sum(axis=0)

    nudge = np.zeros((6, 3))
    nudge[row] = step
    fractions = [(i + 0.5) / steps for i in range(steps)]
    slopes = [(score(SCORES * fraction + nudge) - score(SCORES * fraction - nudge)) / (2 * step) for fraction in fractions]
    np.testing.assert_allclose(composition.contributions(SCORES)[row], np.mean(slopes, axis=0) * SCORES[row], atol=2e-4)


def test_published_constants() -> None:
    assert make_rule("linear").slopes(np.ones(1), {}).weighted == 1
    assert make_rule("hinge") == Hinge(gain=0.13, loss=2.1)
    assert make_rule("soft") == Soft(1.0)
    assert make_rule("soft", learned_words=True) == Soft(0.2)
    assert make_rule("product-harris") == Product(0.1)
    assert make_rule("product-harris").name == RuleName.HARRIS
    assert sdr_weights(0.05, 0.5) == pytest.approx({"composed": 1.5 * 0.95 - 0.5, "image": 1.5 * 0.05, "prompt": 0.5})


def test_a_rule_names_missing_roles_and_refuses_weights_it_ignores() -> None:
    words = Composition(("text",), np.eye(1, dtype=np.float32), (1.0,))
    with pytest.raises(OptionError, match="'hinge' rule needs composed; this query has only text"):
        words.with_rule(Hinge())
    with pytest.raises(OptionError, match="'product' rule has no weights"):
        query(rule=Product()).with_pdv(PDV(beta=0.5))
    with pytest.raises(OptionError, match="unknown rule 'sum'; choose from: linear, hinge, soft"):
        make_rule("sum")


def elementary(seed: int) -> Composition:
    return Composition(
        ("image", "text", "composed", "prompt"),
        unit(np.random.default_rng(seed).normal(size=(4, 5))),
        (0.0, 0.0, 1.0, 0.0),
        {"composed": f"composed {seed}"},
    )


def test_a_single_pair_is_unchanged() -> None:
    alone, one = combine([[elementary(0)]], [3.0], [1.0]), elementary(0)
    assert alone.term_weights == one.term_weights
    np.testing.assert_array_equal(alone.terms, one.terms)
    assert alone.with_pdv(PDV(beta=0.5)).term_weights == one.with_pdv(PDV(beta=0.5)).term_weights


def test_directions_of_prompts_add_up_with_their_strengths() -> None:
    first, second = elementary(0), elementary(1)
    second = Composition(second.names, np.stack([first["image"], first["text"], *second.terms[2:]]), second.weights)
    both = combine([[first, second]], [1.0], [1.0, -0.5])
    assert both.names == ("image", "text", "composed", "prompt", "composed 2", "prompt 2")
    expected = first["text"] + (first["composed"] - first["text"]) - 0.5 * (second["composed"] - first["text"])
    np.testing.assert_allclose(both.vector, expected, atol=1e-6)
    setting = PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
    delta = (first["composed"] - first["text"]) - 0.5 * (second["composed"] - first["text"])
    moved = 0.25 * (first["image"] + 1.4 * delta) + 0.75 * (first["text"] + 1.2 * delta)
    np.testing.assert_allclose(both.with_pdv(setting).vector, moved, atol=1e-6)


def test_different_captions_of_a_reference_are_averaged() -> None:
    first, second = elementary(0), elementary(1)
    second = Composition(second.names, np.stack([first["image"], *second.terms[1:]]), second.weights)
    both = combine([[first, second]], [1.0], [1.0, 0.5])
    assert "text 2" in both.names
    mean = (first["text"] + second["text"]) / 2
    expected = mean + (first["composed"] - mean) + 0.5 * (second["composed"] - mean)
    np.testing.assert_allclose(both.vector, expected, atol=1e-6)
    assert both.is_base


def test_reference_weights_are_normalized() -> None:
    a, b = elementary(0), elementary(1)
    both = combine([[a], [b]], [3.0, 1.0], [1.0])
    np.testing.assert_allclose(both.vector, 0.75 * a["composed"] + 0.25 * b["composed"], atol=1e-6)
    assert both.with_pdv(PDV(beta=0.0)).term_weights["image 2"] == pytest.approx(0.25)
    with pytest.raises(OptionError, match="weights of references must be 0 or more"):
        combine([[a], [b]], [1.0, -1.0], [1.0])


def test_a_rule_reads_all_terms_of_a_role() -> None:
    a, b = elementary(0), elementary(1)
    b = Composition(b.names, np.stack([*b.terms[:3], a["prompt"] + np.float32(1e-6)]), b.weights)
    both = combine([[a], [b]], [1.0, 1.0], [1.0]).with_rule(Product())
    scores = np.array([[0.2], [0.1], [0.3], [0.4], [0.6], [0.5], [0.7]], dtype=np.float32)
    assert both.names == ("image", "text", "composed", "prompt", "image 2", "text 2", "composed 2")
    assert both.contributions(scores).sum() == pytest.approx(0.5 * (0.2 + 0.6) * 0.4)


def test_other_terms_keep_their_weight_under_pdv() -> None:
    liked = elementary(0).with_role("more", unit(np.ones((2, 5))), 0.75, ["a", "b"])
    assert liked.term_weights["more"] == liked.term_weights["more 2"] == pytest.approx(0.375)
    assert liked.with_pdv(PDV(beta=0.5)).term_weights["more 2"] == pytest.approx(0.375)
    assert liked.words["more 2"] == "b"
