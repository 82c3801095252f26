"""The conclusion in sentences: which method and setting to use, why, how certain that is, and which limits apply."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.benchmarks.registry import FAMILIES
from eval.report.bootstrap import Interval
from eval.report.formatting import (
    benchmark_name,
    format_count,
    format_number,
    format_point,
    format_signed,
    format_weights,
    join_words,
    metric_name,
    pdv_option,
    point_option,
)
from eval.report.groups import ComparisonGroup
from eval.report.loading import EvaluatedRun
from eval.report.published import NOT_RELEASED
from eval.runs.records import PlanePoint, SweepRecord
from mmretrieve import pdv_weights
from mmretrieve.options import BUILT_IN

MAX_LISTED_RUNS = 3  # so many names are readable in a sentence
PDV_SETTING = re.compile(r"PDV-F (-?[\d.]+)/(-?[\d.]+)/([\d.]+)")
LOCAL_ENCODER_CAUTIONS = {str(name): family.local_encoder_caution for name, family in FAMILIES.items()}
BUILT_IN_ENCODER = (
    "The encoder is the small built-in one, which knows drawn clothes and nothing else: "
    "these results do not show how methods rank on photographs."
)


@dataclass(frozen=True)
class Verdict:
    """`lead` is the recommendation, `reasons` its grounds, `setting` what sweeps add, `cautions` the limits. Backticks mark code."""

    lead: str
    reasons: tuple[str, ...]
    setting: tuple[str, ...]
    cautions: tuple[str, ...]


def write_verdict(group: ComparisonGroup) -> Verdict:
    """The conclusion from the runs and sweeps of one group."""
    return Verdict(
        _write_lead(group), tuple(_write_reasons(group)), tuple(_write_settings(group)), tuple(_write_cautions(group))
    )


def equal_to_best(group: ComparisonGroup) -> tuple[EvaluatedRun, ...]:
    """The runs that do not differ significantly from the best one, in their order."""
    return tuple(run for run in group.runs[1:] if not group.interval(group.runs[0], run).is_significant)


def count_changes(run: EvaluatedRun, other: EvaluatedRun) -> tuple[int, int, int]:
    """How many queries have a higher, a lower and the same headline value in `run` as in `other`."""
    column, other_column = run.headline_column, other.column(run.headline)
    pairs = [
        (result.values[column], before.values[other_column])
        for part, results in run.results.items()
        for result, before in zip(results, other.results[part], strict=True)
    ]
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    improved, worsened = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return improved, worsened, len(differences) - improved - worsened


def describe_tuning(sweep: SweepRecord) -> str:
    """ "tuned on the even queries, reported on the odd queries", or "tuned and reported on the same queries (all queries)"."""
    tuning = sweep.tuning
    if tuning.is_same:
        return f"tuned and reported on the same queries ({tuning.reported_on})"
    return f"tuned on the {tuning.tuned_on}, reported on the {tuning.reported_on}"


def _write_lead(group: ComparisonGroup) -> str:
    if not group.runs:
        return "There are only sweeps here: run their best settings to compare them query by query."
    best, equal = group.runs[0], equal_to_best(group)
    if len(group.runs) == 1:
        return f"There is only one run here: `{group.title(best)}`."
    if not equal:
        return f"Use `{group.title(best)}`."
    if len(equal) <= MAX_LISTED_RUNS:
        others = join_words([f"`{group.title(run)}`" for run in equal], "or")
        return f"Use `{group.title(best)}`, or {others}: {_not_significant(len(equal))}."
    return f"Use `{group.title(best)}`, or any of {len(equal)} others: {_not_significant(len(equal))}."


def _not_significant(runs: int) -> str:
    return "the difference is not significant" if runs == 1 else "the differences are not significant"


def _write_reasons(group: ComparisonGroup) -> list[str]:
    if not group.runs:
        return []
    best = group.runs[0]
    base = group.base_of(best)
    reasons = [_describe_gain(group, best, base)]
    if base is not None:
        reasons.append(_describe_changes(best, base))
    if len(group.runs) > 1 and group.runs[1] is not base:
        reasons.append(_describe_runner_up(group, best, group.runs[1]))
    return [*reasons, *_describe_spread(group, best, base)]


def _describe_gain(group: ComparisonGroup, best: EvaluatedRun, base: EvaluatedRun | None) -> str:
    reaches = f"It reaches {metric_name(best.headline)} {format_number(best.value)}"
    if base is not None:
        gain = group.interval(best, base)
        if gain.difference == 0:
            return f"{reaches}, the same as `{group.title(base)}` with base weights."
        doubt = "" if gain.is_significant else ", which is not significant"
        return f"{reaches}, {format_number(gain.difference)} points more than its base, `{group.title(base)}` ({format_number(base.value)}){doubt}; {_describe_interval(gain)}."
    if not best.is_base:
        return f"{reaches}. There is no run of {best.composer} with base weights here, so its gain is unknown."
    other = next((run for run in group.runs[1:] if run.composer == best.composer), None)
    if other is None:
        return f"{reaches} with base weights."
    return f"{reaches} with base weights: no other weights of {best.composer} score higher here (the next, `{group.title(other)}`, reaches {format_number(other.value)})."


def _describe_changes(best: EvaluatedRun, base: EvaluatedRun) -> str:
    improved, worsened, same = count_changes(best, base)
    return f"Compared with this base, {format_count(improved, 'query')} {'improves' if improved == 1 else 'improve'}, {worsened:,} {'worsens' if worsened == 1 else 'worsen'} and {same:,} {'stays' if same == 1 else 'stay'} the same."


def _describe_runner_up(group: ComparisonGroup, best: EvaluatedRun, second: EvaluatedRun) -> str:
    lead = group.interval(best, second)
    certainty = (
        "is significant" if lead.is_significant else f"is not significant on {format_count(best.queries_total, 'query')}"
    )
    return f"The runner-up, `{group.title(second)}`, reaches {format_number(second.value)}, {format_number(lead.difference)} less: the difference {certainty} ({_describe_interval(lead)})."


def _describe_spread(group: ComparisonGroup, best: EvaluatedRun, base: EvaluatedRun | None) -> list[str]:
    """Where the gain is largest and smallest: among the parts of a suite, or the aspects of a benchmark."""
    if base is None:
        return []
    gains = {_short_name(part): group.part_interval(best, base, best.headline, part) for part in best.parts}
    if len(gains) < 2:
        measured = set(best.queries_record.metrics) & set(base.queries_record.metrics)
        aspects = [name for name in best.metrics if "/" in name and name in measured]
        gains = {name.partition("/")[2].replace("_", " "): group.part_interval(best, base, name) for name in aspects}
    if len(gains) < 2:
        return []
    (largest, most), *_, (smallest, least) = sorted(gains.items(), key=lambda gain: -gain[1].difference)
    return [f"The gain is largest on {largest} ({_format_gain(most)}) and smallest on {smallest} ({_format_gain(least)})."]


def _format_gain(gain: Interval) -> str:
    return f"{format_signed(gain.difference)}, {_describe_interval(gain)}"


def _write_settings(group: ComparisonGroup) -> list[str]:
    sentences = []
    if group.runs and (match := PDV_SETTING.search(group.runs[0].weighing)):
        alpha_image, alpha_text, beta = map(float, match.groups())
        weights = pdv_weights(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)
        sentences.append(
            f"Its setting is `--pdv {alpha_image:g},{alpha_text:g},{beta:g}`; the weights are {format_weights(weights)}."
        )
    sweeps = sorted(group.sweeps, key=lambda sweep: (sweep.tuning.is_same, not _is_of_best_run(group, sweep), sweep.name))
    return [*sentences, *(_describe_sweep(sweep) + _suggest_run(group, sweep) for sweep in sweeps)]


def _is_of_best_run(group: ComparisonGroup, sweep: SweepRecord) -> bool:
    return bool(group.runs) and sweep.composer == group.runs[0].composer


def _describe_sweep(sweep: SweepRecord) -> str:
    if "best" not in sweep.points:
        return f"The sweep of {sweep.label} has no best point."
    best = sweep.points["best"]
    others = [
        f"{format_number(point.metrics[sweep.metric])} at {'the base' if name == 'base' else _describe_published(name, point)}"
        for name, point in sweep.points.items()
        if name != "best"
    ]
    compared = f", compared with {join_words(others)}" if others else ""
    return (
        f"The best PDV setting in the sweep of {sweep.label} is `{pdv_option(best.beta, best.gamma)}` "
        f"({format_point(best.beta, best.gamma)}): {metric_name(sweep.metric)} {format_number(best.metrics[sweep.metric])}{compared}, {describe_tuning(sweep)}."
    )


def _suggest_run(group: ComparisonGroup, sweep: SweepRecord) -> str:
    """Suggests running the best point, where it beats the best run, or gains more on its half than that run on all queries."""
    if "best" not in sweep.points or not group.runs:
        return ""
    run, value = group.runs[0], sweep.points["best"].metrics[sweep.metric]
    if sweep.queries == sweep.queries_total:
        better = value > run.metrics.get(sweep.metric, 0.0)
        return " No run here scores as high: run this setting to compare it query by query." if better else ""
    base = group.base_of(run)
    gain = value - sweep.points["base"].metrics[sweep.metric] if "base" in sweep.points else 0.0
    if base is None or base.composer != sweep.composer or gain <= run.value - base.value:
        return ""
    return " Its gain is larger than that of the best run here: run this setting to compare it query by query."


def _describe_published(name: str, point: PlanePoint) -> str:
    return f"the {name} setting{f' ({point.setting}, `{point_option(point)}`)' if point.setting else ''}"


def _describe_interval(interval: Interval) -> str:
    return f"95% interval {format_number(interval.low)} to {format_number(interval.high)}"


def _short_name(part: str) -> str:
    return part.partition(":")[2].replace("_", " ") or part


def _write_cautions(group: ComparisonGroup) -> list[str]:
    """What a reader must know: points tuned where they are reported, and encoders and data that are not those of papers."""
    cautions = [
        f"The best point in the sweep of {sweep.label} lies on the edge of its grid (gamma {sweep.points['best'].gamma:.3g}): a wider grid may contain a better one."
        for sweep in group.sweeps
        if _is_on_edge(sweep)
    ]
    cautions += [
        f"The best point in the sweep of {sweep.label} was chosen on the queries that it is reported on: expect lower values on other queries."
        for sweep in group.sweeps
        if sweep.tuning.is_same
    ]
    if group.encoder.model == BUILT_IN:
        cautions.append(BUILT_IN_ENCODER)
    elif "/" not in group.encoder.model and (caution := LOCAL_ENCODER_CAUTIONS.get(group.benchmark)):
        cautions.append(caution)
    if any(NOT_RELEASED in remark for remark in group.remarks):
        cautions.append(
            f"This is not the released data of {benchmark_name(group.benchmark)}: no number here is comparable with a paper's."
        )
    return [*cautions, *(f"{remark[:1].upper()}{remark[1:].rstrip('.')}." for remark in group.remarks)]


def _is_on_edge(sweep: SweepRecord) -> bool:
    """Whether the best gamma is the first or last of the grid; for beta, 0 and 1 are the ends of the plane."""
    return "best" in sweep.points and sweep.points["best"].gamma in (min(sweep.gammas), max(sweep.gammas))
