"""The contract of score rules (`mmretrieve.rules`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmretrieve.composition import Composition
from mmretrieve.directions import Term
from mmretrieve.rules import Floats, ScoreRule, Slopes, make_rule
from mmretrieve.testing.clauses import check_clauses, require

ITEMS = 12
OPTIONAL_ROLES = (*map(str, Term), "reward", "penalty")  # that rules may read
TOLERANCE = 1e-9  # of float64
FLOAT32_TOLERANCE = 1e-5
STEPS, STEP, GRADIENT_TOLERANCE = 200, 1e-6, 1e-3  # of the average of gradients


@dataclass(frozen=True)
class _RuleCase:
    """A rule, and a weighted sum and the scores of each role for some items."""

    rule: ScoreRule
    weighted: NDArray[np.float64]
    roles: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, rule: ScoreRule) -> _RuleCase:
        names = sorted({*OPTIONAL_ROLES, *map(str, rule.required_roles)})
        weighted, *rows = np.random.default_rng(0).uniform(-1, 1, size=(1 + len(names), ITEMS))
        return cls(rule, weighted, dict(zip(names, rows, strict=True)))

    def slopes(self) -> Slopes:
        return self.rule.slopes(self.weighted.copy(), {name: scores.copy() for name, scores in self.roles.items()})

    def changed(self, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> _RuleCase:
        """The same rule with other scores."""
        return _RuleCase(self.rule, change(self.weighted), {name: change(scores) for name, scores in self.roles.items()})

    def contributions(self) -> Mapping[str, Floats]:
        """Slope × score of the weighted sum, as "", and of each role, for each item."""
        slopes = self.slopes()
        return {"": slopes.weighted * self.weighted} | {name: slope * self.roles[name] for name, slope in slopes.roles.items()}

    def scores(self) -> Floats:
        return np.asarray(sum(self.contributions().values()))


def check_rule(rule: ScoreRule | str) -> None:
    """Checks that a score rule keeps the contract of `ScoreRule`.

    Parameters
    ----------
    rule : ScoreRule or str
        What is checked: a rule, or a name of a built-in or registered one, which is made with and without learned words.

    Raises
    ------
    AssertionError
        A clause is violated. The message is one line that names it.
    OptionError
        The name is unknown.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> from mmretrieve.rules import Slopes
    >>> class Scaled:
    ...     required_roles, uses_weights = (), True
    ...     def slopes(self, weighted, roles):
    ...         return Slopes(1 / (1 + weighted.std()))
    >>> mm.testing.check_rule("hinge")
    >>> try:
    ...     mm.testing.check_rule(Scaled())
    ... except AssertionError as error:
    ...     print(str(error).partition(":")[0])
    rule Scaled violates "the score of an item does not depend on other items"
    """
    rules = [make_rule(rule, learned_words=learned) for learned in (False, True)] if isinstance(rule, str) else [rule]
    for one in rules:
        subject = f"rule {str(rule) if isinstance(rule, str) else type(rule).__name__}"
        check_clauses(subject, one, DECLARATIONS)
        check_clauses(subject, _RuleCase.of(one), CLAUSES)


def required_roles_is_a_collection_of_names(rule: ScoreRule) -> None:
    roles = rule.required_roles
    require(not isinstance(roles, str) and all(isinstance(role, str) for role in roles), f"got {roles!r:.80}")


def uses_weights_is_true_or_false(rule: ScoreRule) -> None:
    require(isinstance(rule.uses_weights, bool), f"got {rule.uses_weights!r:.80}")


def slopes_has_a_number_for_each_item(case: _RuleCase) -> None:
    slopes = case.slopes()
    require(isinstance(slopes, Slopes), f"slopes returned a {type(slopes).__name__}, expected Slopes(weighted, roles)")
    require(np.shape(slopes.weighted) in ((), (ITEMS,)), f"the slope of the weighted sum has shape {np.shape(slopes.weighted)}")
    for name, slope in slopes.roles.items():
        require(name in case.roles, f"it has a slope of {name!r}, which the query does not have")
        require(np.shape(slope) == (ITEMS,), f"the slope of {name!r} has shape {np.shape(slope)}, expected ({ITEMS},)")


def slopes_are_finite(case: _RuleCase) -> None:
    for scores in (case, case.changed(np.zeros_like)):
        slopes = scores.slopes()
        for name, slope in {"the weighted sum": slopes.weighted, **slopes.roles}.items():
            require(np.isfinite(slope).all(), f"the slope of {name} contains NaN or infinity")


def the_score_of_an_item_does_not_depend_on_other_items(case: _RuleCase) -> None:
    scores, order = case.scores(), np.random.default_rng(1).permutation(ITEMS)
    of_permuted = case.changed(lambda rows: rows[order]).scores()
    require(np.allclose(of_permuted, scores[order], rtol=0, atol=TOLERANCE), "permuted items have other scores")
    alone = [case.changed(lambda rows, item=item: rows[item : item + 1]).scores() for item in range(ITEMS)]  # type: ignore[misc]
    require(np.allclose(np.concatenate(alone), scores, rtol=0, atol=TOLERANCE), "a single item has another score")


def its_required_roles_are_enough(case: _RuleCase) -> None:
    required = {name: case.roles[name] for name in map(str, case.rule.required_roles)}
    scores = _RuleCase(case.rule, case.weighted, required).scores()
    require(np.shape(scores) == (ITEMS,), f"the scores have shape {np.shape(scores)}")


def uses_weights_tells_whether_the_weighted_sum_counts(case: _RuleCase) -> None:
    other = _RuleCase(case.rule, case.weighted[::-1] / 2, case.roles)
    counts = not np.allclose(other.scores(), case.scores(), rtol=0, atol=TOLERANCE)
    require(
        counts is case.rule.uses_weights,
        f"it is {not counts}, but another weighted sum {'changes' if counts else 'keeps'} scores",
    )


def scores_are_not_changed(case: _RuleCase) -> None:
    copied = case.changed(np.copy)
    case.rule.slopes(copied.weighted, copied.roles)
    require(np.array_equal(copied.weighted, case.weighted), "slopes changed the weighted sum")
    for name, scores in case.roles.items():
        require(np.array_equal(copied.roles[name], scores), f"slopes changed the scores of {name!r}")


def totals_are_the_sums_of_contributions(case: _RuleCase) -> None:
    names = tuple(case.roles)
    query = Composition(names, np.eye(len(names), dtype=np.float32), tuple(np.linspace(-1, 1, len(names))), rule=case.rule)
    scores = np.stack([case.roles[name] for name in names]).astype(np.float32)
    difference = np.abs(query.totals(scores) - query.contributions(scores).sum(axis=0)).max()
    require(difference <= FLOAT32_TOLERANCE, f"in float32 and float64 they differ by {difference:.2g}")


def contributions_are_gradients_averaged_from_zero(case: _RuleCase) -> None:
    contributions = case.contributions()
    for name, scores in {"": case.weighted, **case.roles}.items():
        expected = _average_gradient(case, name) * scores
        difference = np.abs(contributions.get(name, np.zeros(ITEMS)) - expected).max()
        require(difference <= GRADIENT_TOLERANCE, f"that of {name or 'the weighted sum'} differs by {difference:.2g}")


DECLARATIONS = (required_roles_is_a_collection_of_names, uses_weights_is_true_or_false)
CLAUSES = (
    slopes_has_a_number_for_each_item,
    slopes_are_finite,
    scores_are_not_changed,
    the_score_of_an_item_does_not_depend_on_other_items,
    its_required_roles_are_enough,
    uses_weights_tells_whether_the_weighted_sum_counts,
    totals_are_the_sums_of_contributions,
    contributions_are_gradients_averaged_from_zero,
)


def _average_gradient(case: _RuleCase, name: str) -> NDArray[np.float64]:
    """The gradient of the score by one role, or by the weighted sum (""), averaged over the line from all scores 0: a midpoint sum."""

    def nudged(fraction: float, step: float) -> Floats:
        scores = {"": case.weighted, **case.roles}
        scores = {key: fraction * values + (step if key == name else 0.0) for key, values in scores.items()}
        return _RuleCase(case.rule, scores.pop(""), scores).scores()

    fractions = (np.arange(STEPS) + 0.5) / STEPS
    return np.asarray(np.mean([(nudged(one, STEP) - nudged(one, -STEP)) / (2 * STEP) for one in fractions], axis=0))
