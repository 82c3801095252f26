"""The answer in sentences: which method and setting to use, why, how sure that is, and what to beware of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.report.bootstrap import Interval
from eval.report.case_selection import moved
from eval.report.cautions import cautions
from eval.report.groups import ComparisonGroup
from eval.report.records import RunRecord, SweepRecord
from eval.report.words import command, count, listing, metric_name, number, setting_point, signed, weights_said
from mmretrieve import pdv_weights

FEW = 3  # so many names can be read in a sentence
SETTING = re.compile(r"PDV-F (-?[\d.]+)/(-?[\d.]+)/([\d.]+)")


@dataclass(frozen=True)
class Verdict:
    """`lead` is what to do, `reasons` why, `setting` what a sweep adds, `cautions` what to beware of. Backticks hold what is typed."""

    lead: str
    reasons: tuple[str, ...]
    setting: tuple[str, ...]
    cautions: tuple[str, ...]


def verdict(group: ComparisonGroup) -> Verdict:
    """What the runs and sweeps of one benchmark, split and encoder amount to."""
    return Verdict(_lead(group), tuple(_reasons(group)), tuple(_settings(group)), tuple(cautions(group)))


def level_with(group: ComparisonGroup) -> tuple[RunRecord, ...]:
    """The runs that cannot be told apart from the best one, in their order."""
    return tuple(run for run in group.runs[1:] if not group.interval(group.runs[0], run).clear)


def _lead(group: ComparisonGroup) -> str:
    if not group.runs:
        return "Only sweeps here: run the settings they name, to compare them query by query."
    best, level = group.runs[0], level_with(group)
    if len(group.runs) == 1:
        return f"Only one run here: `{group.title(best)}`."
    if not level:
        return f"Use `{group.title(best)}`."
    if len(level) <= FEW:
        return f"Use `{group.title(best)}`, or {_either([f'`{group.title(run)}`' for run in level])}: the difference may be chance."
    return f"Use `{group.title(best)}`, or any of {len(level)} others: the differences may be chance."


def _reasons(group: ComparisonGroup) -> list[str]:
    if not group.runs:
        return []
    best = group.runs[0]
    base = group.base_of(best)
    reasons = [_gain(group, best, base)]
    if base is not None:
        reasons.append(_moves(best, base))
    if len(group.runs) > 1 and group.runs[1] is not base:
        reasons.append(_behind(group, best, group.runs[1]))
    return [*reasons, *_spread(best, base)]


def _gain(group: ComparisonGroup, best: RunRecord, base: RunRecord | None) -> str:
    reaches = f"It reaches {metric_name(best.headline)} {number(best.value)}"
    if base is not None:
        found = group.interval(best, base)
        if found.difference == 0:
            return f"{reaches}, exactly as much as `{group.title(base)}` under base weights."
        sure = "" if found.clear else ", which may be chance"
        return f"{reaches}, {number(found.difference)} points more than its base, `{group.title(base)}` ({number(base.value)}){sure}; {_between(found)}."
    if not best.is_base:
        return f"{reaches}. There is no run of {best.composer} under base weights here, so no gain can be claimed."
    weighed = next((run for run in group.runs[1:] if run.composer == best.composer), None)
    if weighed is None:
        return f"{reaches} as it comes, under base weights."
    return f"{reaches} as it comes: no other weighing of {best.composer} that was run here does better (the next, `{group.title(weighed)}`, reaches {number(weighed.value)})."


def _moves(best: RunRecord, base: RunRecord) -> str:
    up, down, same = moved(best, base)
    return f"Against that base {count(up, 'query')} {'gets' if up == 1 else 'get'} better, {down:,} worse, and {same:,} {'stays' if same == 1 else 'stay'} as before."


def _behind(group: ComparisonGroup, best: RunRecord, second: RunRecord) -> str:
    found = group.interval(best, second)
    sure = "that is clear" if found.clear else f"on {count(best.queries, 'query')} the two cannot be told apart"
    return f"The runner-up, `{group.title(second)}`, reaches {number(second.value)}, {number(found.difference)} less: {sure} ({_between(found)})."


def _spread(best: RunRecord, base: RunRecord | None) -> list[str]:
    """Where the gain comes from: the parts of a suite, or the aspects of a benchmark, where it is largest and smallest."""
    if base is None:
        return []
    gains = {
        _short(part): found.metrics[best.headline] - base.parts[part].metrics[best.headline]
        for part, found in best.parts.items()
    }
    if len(gains) < 2:
        aspects = [name for name in best.metrics if "/" in name and name in base.metrics]
        gains = {name.partition("/")[2].replace("_", " "): best.metrics[name] - base.metrics[name] for name in aspects}
    if len(gains) < 2:
        return []
    most, least = max(gains, key=lambda name: gains[name]), min(gains, key=lambda name: gains[name])
    return [f"The gain is largest on {most} ({signed(gains[most])}) and smallest on {least} ({signed(gains[least])})."]


def _settings(group: ComparisonGroup) -> list[str]:
    said = []
    if group.runs and (found := SETTING.search(group.runs[0].weighing)):
        alpha_image, alpha_text, beta = map(float, found.groups())
        weights = pdv_weights(alpha_image=alpha_image, alpha_text=alpha_text, beta=beta)
        said.append(f"Its setting is `--pdv {alpha_image:g},{alpha_text:g},{beta:g}`, which weighs {weights_said(weights)}.")
    sweeps = sorted(group.sweeps, key=lambda sweep: (sweep.same_queries, not _of_best(group, sweep), sweep.name))
    return [*said, *(_swept(sweep) + _not_run(group, sweep) for sweep in sweeps)]


def _of_best(group: ComparisonGroup, sweep: SweepRecord) -> bool:
    return bool(group.runs) and sweep.composer == group.runs[0].composer


def _swept(sweep: SweepRecord) -> str:
    points, metric = sweep.points, sweep.metric
    if "best" not in points:
        return f"The sweep of {sweep.label} names no best point."
    best = points["best"]
    others = [
        f"{number(point['metrics'][metric])} at {'the base' if name == 'base' else _published(name, point)}"
        for name, point in points.items()
        if name != "best"
    ]
    against = f", against {listing(others)}" if others else ""
    return (
        f"Of all PDV settings of {sweep.label}, the sweep's best is `{command(best['beta'], best['gamma'])}` "
        f"({setting_point(best['beta'], best['gamma'])}): {metric_name(metric)} {number(best['metrics'][metric])}{against}, {tuning(sweep)}."
    )


def _not_run(group: ComparisonGroup, sweep: SweepRecord) -> str:
    """What a better point calls for: it beats the best run, or gains more on its half than that run does on all queries."""
    if "best" not in sweep.points or not group.runs:
        return ""
    run, point = group.runs[0], sweep.points["best"]["metrics"][sweep.metric]
    if sweep.record["queries"] == sweep.queries:
        more = point > run.metrics.get(sweep.metric, 0.0)
        return " No run here does as well: run that setting to compare it query by query." if more else ""
    base = group.base_of(run)
    gain = point - sweep.points["base"]["metrics"][sweep.metric] if "base" in sweep.points else 0.0
    if base is None or base.composer != sweep.composer or gain <= run.value - base.value:
        return ""
    return f" That gain, {signed(gain)}, is larger than any of the runs' here: run that setting to compare it query by query."


def tuning(sweep: SweepRecord) -> str:
    """ "tuned on the even queries, reported on the odd queries"; "tuned and reported on the same, all queries"."""
    if sweep.same_queries:
        return f"tuned and reported on the same queries ({sweep.reported_on})"
    return f"tuned on the {sweep.tuned_on}, reported on the {sweep.reported_on}"


def _published(name: str, point: object) -> str:
    setting = point.get("setting") if isinstance(point, dict) else None
    return f"the {name} setting{f' ({setting})' if setting else ''}"


def _between(interval: Interval) -> str:
    return f"95% interval {number(interval.low)} to {number(interval.high)}"


def _short(part: str) -> str:
    return part.partition(":")[2].replace("_", " ") or part


def _either(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"
