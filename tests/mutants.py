"""`make mutants`: mutmut breaks one room at a time, in a copy, and the fast tests of that room must notice.

Every mutant that survives is in `mutants.txt`, one line each: function | the line as mutated | why no test can or need notice. A survivor
that is not there, and a line there whose mutant is noticed, end the run with exit status 1.

    python tests/mutants.py [ROOM …]
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPLAINED = Path(__file__).with_suffix(".txt")
COPIED = ["mmretrieve", "eval", "demo", "benchmarks", "docs", "tests", "README.md", "CONTRIBUTING.md"]
NOT_MUTATED = ["^ *raise ", "logger"]  # texts of errors and logs; tests of mistakes read those that matter
# conftest.py of the copy: a quick test notices most mutants, but mutmut runs tests in any order. Files stay whole, as they share galleries
QUICKEST_FIRST = """
import json
from collections import Counter
from pathlib import Path

STATS = Path("mutmut-stats.json")  # written by the run without mutants


def pytest_collection_modifyitems(items):
    seconds = json.loads(STATS.read_text())["duration_by_test"] if STATS.exists() else {}
    of_file = Counter()
    for test, duration in seconds.items():
        of_file[test.partition("::")[0]] += duration
    items.sort(key=lambda item: (of_file[item.nodeid.partition("::")[0]], seconds.get(item.nodeid, 0)))
"""
SURVIVED = (0, 5, 33)  # exit statuses: of pytest, and of mutmut where no test reaches the function; a timeout is noticed


@dataclass(frozen=True)
class Room:
    """What is mutated, the tests that must notice, and which mutants are tried: those whose number ends in one of the digits."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    digits: str = "0123456789"


ROOMS = {
    "vectors": Room(("mmretrieve/vectors.py",), ("tests/test_core.py",)),
    "scoring": Room(("mmretrieve/scoring.py",), ("tests/test_core.py",)),
    "directions": Room(("mmretrieve/directions.py",), ("tests/test_core.py",)),
    "rules": Room(("mmretrieve/rules.py",), ("tests/test_rules.py",)),
    "metrics": Room(("eval/metrics.py",), ("tests/eval/test_metrics.py",)),
    "candidates": Room(
        ("mmretrieve/gallery/candidates.py",), ("tests/gallery/test_candidates.py", "tests/gallery/test_indexed.py")
    ),
    "store": Room(
        ("mmretrieve/gallery/store/*.py",),
        tuple(f"tests/gallery/test_{name}.py" for name in ("ledger", "old_galleries", "store", "gallery", "files")),
        digits="7",
    ),
}


def main() -> int:
    """Runs the rooms that the command line names, or all."""
    rooms = {name: room for name, room in ROOMS.items() if name in (sys.argv[1:] or ROOMS)}
    return max(run(name, room) for name, room in rooms.items())


def run(name: str, room: Room) -> int:
    """Prints the counts of a room, each survivor without an explanation, and each explanation without a survivor. 1 if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for path in COPIED:
            (shutil.copytree if (ROOT / path).is_dir() else shutil.copy)(ROOT / path, copy / path)
        (copy / "conftest.py").write_text(QUICKEST_FIRST, encoding="utf-8")
        settings = {
            "source_paths": sorted({file.split("/")[0] for file in room.files}),
            "only_mutate": list(room.files),
            "also_copy": [*COPIED, "conftest.py"],
            "pytest_add_cli_args_test_selection": list(room.tests),
            "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:schemathesis"],
            "do_not_mutate_patterns": NOT_MUTATED,
        }
        table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        (copy / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{table}\n", encoding="utf-8")
        chosen = [] if len(room.digits) == 10 else [f"*_{digit}" for digit in room.digits] + [f"*[0-9]{d}" for d in room.digits]
        before = children_minutes()
        done = mutmut(copy, "run", "--max-children", os.environ.get("JOBS", "2"), *chosen)
        results = list(exit_statuses(copy))
        if not results:
            raise SystemExit(f"{name}: mutmut tried nothing\n{done[-2000:]}")
    survivors = [mutant for mutant, status in results if status in SURVIVED]
    texts = [line.rpartition(" | ")[0] for line in EXPLAINED.read_text(encoding="utf-8").splitlines()]
    unexplained = [line for line in survivors if line not in texts]
    sys.stdout.writelines(f"SURVIVED  {line}\n" for line in unexplained)
    tried = {mutant for mutant, _ in results}
    outdated = [text for text in texts if text in tried and text not in survivors]
    sys.stdout.writelines(f"NOTICED   {line}\n" for line in outdated)
    sys.stdout.write(
        f"{name}: {len(results)} tried, {len(results) - len(survivors)} noticed, {len(survivors) - len(unexplained)} explained, "
        f"{len(unexplained)} to explain, {children_minutes() - before:.1f} minutes of processor time\n"
    )
    sys.stdout.flush()
    return 1 if unexplained or outdated else 0


def children_minutes() -> float:
    """The processor time of all child processes that have ended, in minutes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) / 60


def mutmut(folder: Path, *words: str) -> str:
    """What `mutmut …` prints in a folder."""
    command = [sys.executable, "-m", "mutmut", *words]
    return subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout


def exit_statuses(folder: Path) -> Iterator[tuple[str, int]]:
    """Each mutant that was tried, as "function | its lines", and the exit status of its tests."""
    for file in sorted((folder / "mutants").rglob("*.py.meta")):
        statuses = json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
        source = file.with_suffix("").read_text(encoding="utf-8")
        bodies = {
            node.name: ast.get_source_segment(source, node).splitlines()  # type: ignore[union-attr]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
        }
        for mutant, status in statuses.items():
            module, _, name = mutant.rpartition(".")
            function = name.rpartition("__mutmut_")[0]
            if status is not None:
                yield f"{module}.{readable(function)} | {changed(bodies[f'{function}__mutmut_orig'], bodies[name])}", status


def readable(function: str) -> str:
    """The name of a function without what mutmut puts around it.

    >>> readable("x_unit"), readable("xǁStoreǁread")
    ('unit', 'Store.read')
    """
    return function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def changed(before: list[str], after: list[str]) -> str:
    """The lines that only the second of two bodies has; the first line, with the name of the mutant, only where parameters change."""
    if before[0].partition("(")[2] == after[0].partition("(")[2]:
        before, after = before[1:], after[1:]
    lines = [line[2:].strip() for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    return " ".join(lines) or "a line less"


if __name__ == "__main__":
    sys.exit(main())
