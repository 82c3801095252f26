"""Builds the page: all conclusions, tables and images in one HTML file without external resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from eval.report.audit_view import describe_audit
from eval.report.bootstrap import RESAMPLES
from eval.report.cases import ImageLoader, Thumbnails, build_case_groups, data_uri
from eval.report.circus import CircusLabels, describe_circus
from eval.report.formatting import (
    benchmark_name,
    format_bounds,
    format_count,
    format_number,
    format_preprocessing,
    format_signed,
    make_anchor,
    metric_name,
    point_option,
)
from eval.report.groups import ComparisonGroup, group_records
from eval.report.heatmap import draw_heatmap
from eval.report.loading import read_records
from eval.report.published import compare_checkpoint, compare_published
from eval.report.tables import aspects_table, differences_tables, provenance_rows, results_table
from eval.report.verdict import describe_tuning, write_verdict
from eval.runs.records import Record, SweepRecord

HERE = Path(__file__).parent


def build_report(
    source: str | Path | Iterable[str | Path],
    images: Mapping[str, ImageLoader | None] | None = None,
    *,
    resamples: int = RESAMPLES,
    circus: Mapping[str, CircusLabels] | None = None,
) -> str:
    """The HTML of the report.

    Parameters
    ----------
    source : a folder of records, or record files (NAME.json, NAME.sweep.json).
    images : benchmark name or family ("fashioniq") → function (part, id) → image. Without one, ids are shown. Images that cannot
        be read are counted on the page.
    resamples : of each bootstrap interval.
    circus : benchmark name or family → labels by which metrics are split.

    Raises
    ------
    OptionError : the folder does not exist.
    MMRetrieveError : there are no records, or one is damaged; the message names the file.
    """
    records = read_records(source)
    groups = group_records(records.runs, records.sweeps, resamples=resamples)
    sections = [_describe_section(group, i, images or {}, circus or {}) for i, group in enumerate(groups, start=1)]
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": mark_code, "signed": format_signed, "bounds": format_bounds}
    benchmarks = format_count(len({group.benchmark for group in groups}), "benchmark")
    return environment.get_template("page.html").render(
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        sections=sections,
        summary=f"{format_count(len(records.runs), 'run')} and {format_count(len(records.sweeps), 'sweep')} on {benchmarks}",
        skipped=records.skipped,
    )


def mark_code(text: str) -> Markup:
    """A sentence, escaped, with the parts in backticks as code; "PDV-F" is never broken at the end of a line."""
    pieces = str(escape(text)).replace("PDV-F", '<span class="nowrap">PDV-F</span>').split("`")
    if len(pieces) % 2 == 0:  # an unpaired backtick is an ordinary character
        return Markup("`".join(pieces))
    return Markup("".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces)))


def _describe_section(
    group: ComparisonGroup, number: int, images: Mapping[str, ImageLoader | None], circus: Mapping[str, CircusLabels]
) -> dict[str, Any]:
    """One benchmark, split and encoder, as `templates/page.html` shows it."""
    family = group.benchmark.partition(":")[0]
    load = images.get(group.benchmark) or images.get(family)
    thumbnails = Thumbnails(load)
    audit, cases = describe_audit(group, thumbnails), build_case_groups(group, thumbnails)
    return {
        "anchor": make_anchor(str(number), group.benchmark, group.split, group.encoder.model),
        "title": f"{benchmark_name(group.benchmark)} {group.split}",
        "subtitle": _write_subtitle(group),
        "split": group.split,
        "headline": metric_name(group.runs[0].headline) if group.runs else "",
        "verdict": write_verdict(group),
        "results": results_table(group) if group.runs else None,
        "aspects": aspects_table(group) if group.runs else None,
        "differences": differences_tables(group),
        "audit": audit,
        "circus": describe_circus(group, circus.get(group.benchmark) or circus.get(family)),
        "maps": [_describe_map(sweep) for sweep in group.sweeps],
        "published": compare_published(group),
        "checkpoint": compare_checkpoint(group),
        "cases": cases,
        "image_note": _write_image_note(family, load, thumbnails.missing) if cases else "",
        "provenance": [(_record_title(group, record), provenance_rows(record)) for record in group.records],
    }


def _write_subtitle(group: ComparisonGroup) -> str:
    record = group.records[0]
    image_count = sum(part.gallery for part in record.parts.values())
    keeps = {part.keeps_reference for part in record.parts.values()}
    reference = " · reference kept" if keeps == {True} else " · reference removed" if keeps == {False} else ""
    sizes = f"{format_count(record.queries_total, 'query')} · {format_count(image_count, 'image')}{reference}"
    return f"{group.encoder.model} · {sizes} · {format_preprocessing(group.encoder.preprocessing)}"


def _describe_map(sweep: SweepRecord) -> dict[str, Any]:
    """A sweep as it is shown: its heat map, its points, and on which queries it was tuned."""
    metrics = tuple(dict.fromkeys(name for point in sweep.points.values() for name in point.metrics if "/" not in name))
    tuning = describe_tuning(sweep)
    return {
        "sweep": sweep,
        "uri": data_uri(draw_heatmap(sweep), "image/png"),
        "alt": f"{metric_name(sweep.metric)} of {sweep.label} over beta and gamma",
        "tuning": tuning[:1].upper() + tuning[1:],
        "columns": [metric_name(metric) for metric in metrics],
        "points": [
            (
                f"{name} ({point.setting})" if point.setting else name,
                f"{point.beta:.3g} / {point.gamma:.3g}".replace("-", "−"),
                point_option(point),
                [format_number(point.metrics.get(metric)) for metric in metrics],
            )
            for name, point in sweep.points.items()
        ],
    }


def _write_image_note(family: str, load: ImageLoader | None, missing: list[str]) -> str:
    if load is None:
        return f"Images are not shown. To show them, give the folder of the benchmark: `--root {family}=FOLDER`."
    if missing:
        return f"{format_count(len(missing), 'image')} could not be read, including {missing[0]}."
    return ""


def _record_title(group: ComparisonGroup, record: Record) -> str:
    run = next((run for run in group.runs if run is record), None)
    return f"sweep: {record.label}" if run is None else group.title(run)
