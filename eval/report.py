"""What a run leaves behind: a table for people, and where its numbers came from."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark
from mmretrieve import Encoder, MMRetrieveError

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
WEIGHED = ("PDV-F", "balanced")
PACKAGES = ("mmretrieve", "torch", "open-clip-torch", "numpy", "pillow")


def provenance(encoder: Encoder, benchmark: Benchmark, seconds: float) -> dict[str, Any]:
    """Everything needed to repeat a run: encoder identity, sizes, versions, commit, machine, seconds."""
    return {
        "encoder": {**asdict(encoder.identity), "model": Path(encoder.identity.model).name},  # not where it lies
        "dtype": str(getattr(encoder, "dtype", "")),
        "device": str(getattr(encoder, "device", "")),
        "queries": len(benchmark.queries),
        "gallery": len(benchmark.gallery_ids),
        "reference in the ranking": benchmark.keeps_reference,
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "seconds": round(seconds, 1),
    }


def table(result: dict[str, Any]) -> str:
    """Methods by metrics as aligned text, each with PDV-F below it where it takes one; then the tuned point."""
    rows = []
    for name, found in result["methods"].items():
        rows.append((name, found["base"]))
        rows += [(f"  + {name}", found[name]) for name in WEIGHED if name in found]
    tuned = result.get("tuned")
    if tuned:
        rows += [(f"{label}, {tuned['reported on']}", tuned[label]) for label in ("base", "tuned")]
    metrics = list(rows[0][1])
    lines = [f"{'':<34}" + "".join(f"{metric:>11}" for metric in metrics)]
    lines += [f"{name:<34}" + "".join(f"{values[m]:>11.1f}" for m in metrics) for name, values in rows]
    if tuned:
        point = f"beta {tuned['beta']:.2f}, gamma {tuned['gamma']:.2f}"
        lines.append(f"{tuned['method']}, tuned for {tuned['metric']} on the {tuned['tuned on']}: {point}")
    lines += [f"not run: {name}: {why}" for name, why in result["not run"].items()]
    reading = result.get("text to image, recall@1", {})
    return "\n".join([*lines, *(f"text to image, recall@1, {name}: {value:.1f}" for name, value in reading.items())])


def markdown(results: Sequence[dict[str, Any]], metric: str = "map@10") -> str:
    """One Markdown table over several benchmarks: each method alone, and what other weights make of it (▼ where they lose)."""
    heads = [cell for result in results for cell in (result["benchmark"], *(f"+ {name}" for name in WEIGHED))]
    labels = list(dict.fromkeys(label for result in results for label in result["methods"]))
    rows = [["method", *heads], ["---"] * (1 + len(heads))]
    rows += [[label, *(cell for r in results for cell in _cells(r["methods"].get(label), metric))] for label in labels]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def weights_table(result: dict[str, Any], metric: str = "map@10") -> str:
    """Rules by sets as Markdown, then the ceilings."""
    rules = list(next(iter(result.values()))["rules"])
    rows = [["", *result], ["---"] * (1 + len(result))]
    rows += [[rule, *(f"{found['rules'][rule][metric]:.1f}" for found in result.values())] for rule in rules]
    rows += [
        [f"*{ceiling}*", *(f"{found['ceilings'][ceiling]:.1f}" for found in result.values())]
        for ceiling in next(iter(result.values()))["ceilings"]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(text: str, inner: str) -> str:
    """`text` with `inner` between its two markers. MMRetrieveError where they are not there."""
    before, found, rest = text.partition(BEGIN)
    _, found_too, after = rest.partition(END)
    if not found or not found_too:
        raise MMRetrieveError(f"no place for the table: expected a line {BEGIN!r} and, below it, a line {END!r}")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


def _cells(found: dict[str, Any] | None, metric: str) -> list[str]:
    if found is None:
        return ["–"] * (1 + len(WEIGHED))
    base = found["base"][metric]
    return [f"{base:.1f}", *(_against(base, found[name][metric]) if name in found else "–" for name in WEIGHED)]


def _against(base: float, value: float) -> str:
    return f"{value:.1f}{' ▼' if value < base else ''}"


def _commit() -> str | None:
    """The commit of the checkout, with a plus where it has changes; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
