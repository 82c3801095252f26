"""What a run leaves behind, and where its numbers came from: records in JSON, each there whole or not at all."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.benchmarks.base import Benchmark
from eval.files import write_whole
from mmretrieve import Encoder, MMRetrieveError

PACKAGES = ("mmretrieve", "torch", "open-clip-torch", "numpy", "pillow")
DIGITS = 6  # of scores in records: what float32 term scores hold


@dataclass
class StageTimer:
    """Seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[what] = round(self.seconds.get(what, 0.0) + time.perf_counter() - started, 2)


def encoder_of(encoder: Encoder) -> dict[str, str]:
    """The identity of an encoder; of a local one the name of its folder, not where that lies."""
    return {**asdict(encoder.identity), "model": _named(encoder.identity.model)}


def provenance(encoder: Encoder, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Versions, commit, machine and seconds."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "device": str(getattr(encoder, "device", "")),
        "dtype": str(getattr(encoder, "dtype", "")).removeprefix("torch."),
        "seconds": dict(seconds),
    }


def part_of(benchmark: Benchmark) -> dict[str, Any]:
    """What a part of a record says of the data it was measured on."""
    return {
        "queries": len(benchmark.queries),
        "gallery": len(benchmark.gallery_ids),
        "reference in the ranking": benchmark.protocol.keeps_reference,
        "checksum": benchmark.checksum,
        "remark": benchmark.remark,
    }


def write_record(path: Path, record: Mapping[str, Any], *, indent: int | None = 1) -> Path:
    return write_whole(path, json.dumps(record, indent=indent, ensure_ascii=False) + "\n")


def check_replaceable(path: Path, options: Mapping[str, Any], encoder: Mapping[str, str]) -> None:
    """MMRetrieveError where `path` is there already and is not the record of the same options and encoder."""
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = found["options"] == options and found["encoder"] == encoder
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise MMRetrieveError(f"{path} is there already and of another run: give a --name, or another --out")


def slug(*parts: str) -> str:
    """A file name of several parts: letters, digits, dots and commas, a minus before a number said, everything else a hyphen."""
    said = (re.sub(r"(?<![A-Za-z0-9.])-(?=[\d.])", "minus", part).replace("+", "plus") for part in parts if part)
    return "_".join(re.sub(r"[^A-Za-z0-9.,=]+", "-", part).strip("-") for part in said)


def _named(model: str) -> str:
    """A model's name without the place of a folder or a checkpoint file on this machine."""
    architecture, _, weights = model.partition("/")
    if Path(model).is_dir():
        return Path(model).name
    return f"{architecture}/{Path(weights).name}" if Path(weights).is_file() else model


def _commit() -> str | None:
    """The commit of the checkout, with a plus where it has changes; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None
