"""The page: everything that was found, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from eval.report import tables
from eval.report.bootstrap import RESAMPLES
from eval.report.cases import CaseGroup, cases
from eval.report.facts import facts
from eval.report.groups import ComparisonGroup, grouped
from eval.report.heatmap import heatmap
from eval.report.loading import read_records
from eval.report.pictures import Pictures, Thumbnails, data_uri
from eval.report.published_comparison import AcceptanceRow, PublishedComparison, accepted, beside_published
from eval.report.records import SourceRecord, SweepRecord
from eval.report.verdict import Verdict, tuning, verdict
from eval.report.words import anchor, benchmark_name, bracket, command, count, metric_name, number, preprocessing_said, signed

HERE = Path(__file__).parent


@dataclass(frozen=True)
class SweepMap:
    """A sweep as it is drawn: its picture, its points, and how honest its best point is."""

    sweep: SweepRecord
    uri: str
    alt: str
    tuning: str
    columns: tuple[str, ...]
    points: tuple[tuple[str, str, str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class ReportSection:
    """One benchmark, split and encoder."""

    anchor: str
    title: str
    below: str
    group: ComparisonGroup
    headline: str
    verdict: Verdict
    results: tables.ReportTable | None
    aspects: tables.ReportTable | None
    distances: list[tuple[str, list[tables.RunDistance | None]]]
    maps: tuple[SweepMap, ...]
    beside: PublishedComparison | None
    accepted: AcceptanceRow | None
    cases: tuple[CaseGroup, ...]
    no_pictures: str
    facts: tuple[tuple[str, list[tuple[str, str]]], ...]


def build_report(
    source: str | Path | Iterable[str | Path],
    pictures: Mapping[str, Pictures | None] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> str:
    """The HTML of the page. source: a folder of records, or the record files (NAME.json, NAME.sweep.json).

    pictures: for a benchmark's name or its family ("fashioniq") a function (part, id) → picture; where there is none, ids
    are shown. Pictures that cannot be read are named on the page. resamples: of each bootstrap interval.
    Raises OptionError where the folder is not there, MMRetrieveError where it holds no records, or naming a strange one.
    """
    records = read_records(source)
    groups = grouped(records.runs, records.sweeps, resamples=resamples)
    sections = [_section(group, i, pictures or {}) for i, group in enumerate(groups, start=1)]
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"typed": typed, "signed": signed, "bracket": bracket}
    return environment.get_template("page.html").render(
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        sections=sections,
        summary=f"{count(len(records.runs), 'run')} and {count(len(records.sweeps), 'sweep')} on {count(len({g.benchmark for g in groups}), 'benchmark')}",
        left_out=records.left_out,
    )


def typed(text: str) -> Markup:
    """A sentence, escaped, with what stands in backticks as code; "PDV-F" is not cut at the end of a line."""
    pieces = str(escape(text)).replace("PDV-F", '<span class="whole">PDV-F</span>').split("`")
    if len(pieces) % 2 == 0:  # an odd backtick is only a character
        return Markup("`".join(pieces))
    return Markup("".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces)))


def _section(group: ComparisonGroup, number_: int, pictures: Mapping[str, Pictures | None]) -> ReportSection:
    family = group.benchmark.partition(":")[0]
    load = pictures.get(group.benchmark) or pictures.get(family)
    thumbnails = Thumbnails(load)
    shown = cases(group, thumbnails)
    return ReportSection(
        anchor=anchor(str(number_), group.benchmark, group.split, group.encoder.model),
        title=f"{benchmark_name(group.benchmark)} {group.split}",
        below=_below(group),
        group=group,
        headline=metric_name(group.runs[0].headline) if group.runs else "",
        verdict=verdict(group),
        results=tables.results(group) if group.runs else None,
        aspects=tables.aspects(group) if group.runs else None,
        distances=tables.distances(group) if len(group.runs) > 1 else [],
        maps=tuple(map(_map, group.sweeps)),
        beside=beside_published(group),
        accepted=accepted(group),
        cases=shown,
        no_pictures=_no_pictures(family, load, thumbnails.missing) if shown else "",
        facts=tuple((_name(group, source), facts(source)) for source in group.sources),
    )


def _below(group: ComparisonGroup) -> str:
    source = group.sources[0]
    images = sum(part.gallery for part in source.parts.values())
    kept = {part.keeps_reference for part in source.parts.values()}
    reference = " · reference kept" if kept == {True} else " · reference removed" if kept == {False} else ""
    sizes = f"{count(source.queries, 'query')} · {count(images, 'image')}{reference}"
    return f"{group.encoder.model} · {sizes} · {preprocessing_said(group.encoder.preprocessing)}"


def _map(sweep: SweepRecord) -> SweepMap:
    names = tuple(dict.fromkeys(name for point in sweep.points.values() for name in point["metrics"] if "/" not in name))
    points = [
        (
            f"{name} ({point['setting']})" if point.get("setting") else name,
            f"{point['beta']:.3g} / {point['gamma']:.3g}".replace("-", "−"),
            command(point["beta"], point["gamma"]),
            tuple(number(point["metrics"].get(metric)) for metric in names),
        )
        for name, point in sweep.points.items()
    ]
    alt = f"{metric_name(sweep.metric)} of {sweep.label} over beta and gamma"
    said = tuning(sweep)
    return SweepMap(
        sweep,
        data_uri(heatmap(sweep.record), "image/png"),
        alt,
        said[:1].upper() + said[1:],
        tuple(map(metric_name, names)),
        tuple(points),
    )


def _no_pictures(family: str, load: Pictures | None, missing: list[str]) -> str:
    if load is None:
        return f"Pictures are not shown. To see them, name the folder of the benchmark: `--root {family}=FOLDER`."
    if missing:
        return f"{count(len(missing), 'picture')} could not be read, {missing[0]} among them."
    return ""


def _name(group: ComparisonGroup, source: SourceRecord) -> str:
    run = next((run for run in group.runs if run is source), None)
    return f"sweep: {source.label}" if run is None else group.title(run)
