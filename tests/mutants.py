"""`make mutants`: breaks the library in one place at a time, in a copy, and requires that the tests go red each time.

A fault is an exact piece of the source and what replaces it. A piece that is no longer there is an error: the list follows the code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("mmretrieve", "eval", "demo", "benchmarks", "tests")
FILES = ("pyproject.toml", "README.md", "CONTRIBUTING.md")


@dataclass(frozen=True)
class Fault:
    """What is broken, where, and the tests that must notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


CORE = ("tests/test_core.py",)
FAULTS = [
    Fault(
        "vectors keep their length",
        "mmretrieve/vectors.py",
        "rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)",
        "rows, dtype=np.float32)",
        CORE,
    ),
    Fault("the sort order is turned round", "mmretrieve/scoring.py", "np.argsort(-scores[", "np.argsort(scores[", CORE),
    Fault(
        "of equal scores the last comes first",
        "mmretrieve/scoring.py",
        "    return candidates[np.argsort(",
        "    candidates = candidates[::-1]\n    return candidates[np.argsort(",
        CORE,
    ),
    Fault(
        "the threshold of the best k is one too high",
        "mmretrieve/scoring.py",
        "np.flatnonzero(scores >= threshold)",
        "np.flatnonzero(scores > threshold)",
        CORE,
    ),
    Fault(
        "a benchmark ranks the reference too",
        "eval/benchmarks/base.py",
        "return () if self.protocol.keeps_reference else (self.id2row[query.reference],)",
        "return ()",
        ("tests/eval/test_metrics.py", "tests/eval/test_benchmark.py"),
    ),
    Fault(
        "a search returns the reference although it was to be left out",
        "mmretrieve/retriever.py",
        "if request.exclude_reference else ()",
        "if False else ()",
        ("tests/test_retriever.py",),
    ),
    Fault(
        "image and text change places on the plane",
        "mmretrieve/directions.py",
        "return (1 - beta, beta - gamma, gamma)",
        "return (beta - gamma, 1 - beta, gamma)",
        CORE,
    ),
    Fault(
        "deleted items live on",
        "mmretrieve/gallery/store/records.py",
        "(items.died = 0 OR items.died > {self.generation})",
        "(items.died >= 0)",
        ("tests/gallery/test_gallery.py",),
    ),
    Fault(
        "items that the index does not cover yet are not found",
        "mmretrieve/gallery/candidates.py",
        "np.union1d(candidates, uncovered)",
        "candidates",
        ("tests/gallery/test_indexed.py",),
    ),
    Fault(
        "weights of a linear rule are ignored",
        "mmretrieve/scoring.py",
        "np.asarray(weights, dtype=np.float64)[:, None] * scores_tn",
        "np.ones(len(weights))[:, None] * scores_tn",
        CORE,
    ),
]


def main() -> int:
    """Tries each fault, or those whose name holds a word of the command line. Exit status 1 where a test stayed green."""
    wanted = [fault for fault in FAULTS if not sys.argv[1:] or any(word in fault.name for word in sys.argv[1:])]
    unnoticed = [fault.name for fault in wanted if not noticed(fault)]
    sys.stdout.write(f"{len(wanted) - len(unnoticed)} of {len(wanted)} faults were noticed\n")
    return 1 if unnoticed else 0


def noticed(fault: Fault) -> bool:
    """Whether those tests, which pass in this checkout, fail once it is broken in that way."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, copy)
        source = (copy / fault.file).read_text(encoding="utf-8")
        if source.count(fault.right) != 1:
            raise SystemExit(
                f"{fault.file} holds {fault.right!r} {source.count(fault.right)} times, expected once: see {__file__}"
            )
        (copy / fault.file).write_text(source.replace(fault.right, fault.wrong), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *fault.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    is_noticed = done.returncode == 1 and bool(failed)  # not 2: a file that cannot be imported proves nothing
    sys.stdout.write(f"{'red  ' if is_noticed else 'GREEN'}  {fault.name}: {failed[0] if failed else done.stdout[-500:]}\n")
    sys.stdout.flush()
    return is_noticed


if __name__ == "__main__":
    sys.exit(main())
