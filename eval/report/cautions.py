"""What to beware of: points tuned where they are reported, encoders and data that are not those of papers."""

from __future__ import annotations

from eval.report.groups import ComparisonGroup
from eval.report.published import NOT_RELEASED
from eval.report.records import SweepRecord
from eval.report.words import benchmark_name
from mmretrieve.options import BUILT_IN

TOY = "The encoder is the small built-in one: it knows drawn clothes and nothing else. Nothing here says how methods rank on photographs."
SMALL = "The encoder is a small one from a local folder, not a released model: its numbers stand for this catalogue alone."


def cautions(group: ComparisonGroup) -> list[str]:
    """What a reader must know before trusting what runs and sweeps of a group amount to, in sentences."""
    found = [
        f"The best point of the sweep of {sweep.label} lies on the edge of its grid (gamma {sweep.points['best']['gamma']:.3g}): a wider one may hold a better."
        for sweep in group.sweeps
        if _on_edge(sweep)
    ]
    found += [
        f"The best point of the sweep of {sweep.label} was chosen on the very queries it is reported on: expect less of it on others."
        for sweep in group.sweeps
        if sweep.same_queries
    ]
    if group.encoder.model == BUILT_IN:
        found.append(TOY)
    elif group.benchmark == "catalogue" and "/" not in group.encoder.model:
        found.append(SMALL)
    if any(NOT_RELEASED in remark for remark in group.remarks):
        found.append(
            f"These are not the released data of {benchmark_name(group.benchmark)}: no number here compares with a paper's."
        )
    return [*found, *(f"{remark[:1].upper()}{remark[1:].rstrip('.')}." for remark in group.remarks)]


def _on_edge(sweep: SweepRecord) -> bool:
    """Whether the best gamma is the first or last of the grid; of beta, 0 and 1 are the ends of the plane itself."""
    gammas = sweep.record["gammas"]
    return "best" in sweep.points and sweep.points["best"]["gamma"] in (min(gammas), max(gammas))
