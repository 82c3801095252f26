"""What a run leaves behind: a table for people, and where its numbers came from."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark
from mmretrieve import Encoder

PACKAGES = ("mmretrieve", "torch", "open-clip-torch", "numpy", "pillow")


def provenance(encoder: Encoder, benchmark: Benchmark, seconds: float) -> dict[str, Any]:
    """Everything needed to repeat a run: encoder identity, sizes, versions, commit, machine, seconds."""
    return {
        "encoder": asdict(encoder.identity),
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
    """Methods by metrics as aligned text, then the tuned point."""
    metrics = list(next(iter(result["methods"].values())))
    rows = [["", *metrics], *([name, *(f"{values[m]:.1f}" for m in metrics)] for name, values in result["methods"].items())]
    tuned = result["tuned"]
    for label in ("base", "tuned"):
        rows.append([f"{label}, {tuned['reported on']}", *(f"{tuned[label][m]:.1f}" for m in metrics)])
    lines = [f"{row[0]:<22}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows]
    lines.append(
        f"tuned for {tuned['metric']} on the {tuned['tuned on']}: beta {tuned['beta']:.2f}, gamma {tuned['gamma']:.2f}"
    )
    lines += [
        f"text to image, recall@1, {name}: {value:.1f}" for name, value in result.get("text to image, recall@1", {}).items()
    ]
    return "\n".join(lines)


def _commit() -> str | None:
    """The commit of the checkout, with a plus where it has changes; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
