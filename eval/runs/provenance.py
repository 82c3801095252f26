"""Where the numbers of a record come from: encoder, data, versions, machine and time."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.benchmarks.base import Benchmark
from eval.runs.records import PartRecord
from mmretrieve import Encoder, EncoderIdentity

PACKAGES = ("mmretrieve", "torch", "open-clip-torch", "numpy", "pillow")


@dataclass
class StageTimer:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to its stage."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 2)


def describe_encoder(encoder: Encoder) -> EncoderIdentity:
    """The identity of an encoder; of a local one the name of its folder, not its path."""
    return replace(encoder.identity, model=_model_name(encoder.identity.model))


def describe_part(benchmark: Benchmark, metrics: Mapping[str, float] | None = None) -> PartRecord:
    """The data that a part of a record was measured on, and its metrics, where there are any."""
    measured: dict[str, Any] = {} if metrics is None else {"metrics": dict(metrics)}
    return PartRecord(
        **measured,
        queries=len(benchmark.queries),
        gallery=len(benchmark.gallery_ids),
        keeps_reference=benchmark.protocol.keeps_reference,
        checksum=benchmark.checksum,
        remark=benchmark.remark,
    )


def collect_provenance(encoder: Encoder, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Versions, commit, machine, device, dtype and seconds by stage."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "device": str(getattr(encoder, "device", "")),
        "dtype": str(getattr(encoder, "dtype", "")).removeprefix("torch."),
        "seconds": dict(seconds),
    }


def _model_name(model: str) -> str:
    """A model's name without the path of a folder or checkpoint file on this machine."""
    architecture, _, weights = model.partition("/")
    if Path(model).is_dir():
        return Path(model).name
    return f"{architecture}/{Path(weights).name}" if Path(weights).is_file() else model


def _commit() -> str | None:
    """The commit of the checkout, with a plus where it has changes; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
