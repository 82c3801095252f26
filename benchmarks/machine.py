"""What a benchmark ran on: the machine and its load, versions, and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mmretrieve", "numpy", "faiss-gpu", "faiss-cpu", "torch", "open-clip-torch")  # their versions explain a figure


def describe_run() -> dict[str, Any]:
    """What every result says about the run that made it."""
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS", "one for each core"),
            "system": f"{platform.system()} {platform.machine()}",
            "load average": os.getloadavg()[0],
        },
        "versions": {"Python": platform.python_version()}
        | {name: version for name in PACKAGES if (version := version_of(name))},
        "commit": _commit(),
    }


def version_of(package: str) -> str | None:
    """The version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _commit() -> str | None:
    """The commit of the checkout, with "+" if files differ from it; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
