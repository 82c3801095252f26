"""What SECURITY.md and RELIABILITY.md say holds: the tests that they name exist, packages have hashes and licenses, nothing is unpickled."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from docs import licenses, reliability

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:-1] for line in SECURITY.splitlines() if re.match(r"\| (?!threat|trusted)[^-|]", line)]
THREATS = [row for row in ROWS if len(row) == 3]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0].strip()[:60])
def test_every_threat_names_tests_that_exist(row: list[str]) -> None:
    named = TEST.findall(row[2])
    assert named or row[2].strip() == "–", row[0]
    for file, test in named:
        functions = {
            node.name for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, f"{file} has no {test}"


def test_there_are_threats() -> None:
    assert len(THREATS) > 25
    assert sum(row[2].strip() == "–" for row in THREATS) <= 1


@pytest.mark.parametrize("lock", ["requirements.txt", "milvus.txt"])
def test_every_package_of_a_lock_has_a_hash(lock: str) -> None:
    text = (ROOT / ".ci" / lock).read_text(encoding="utf-8")
    packages = re.findall(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^\S+==", text, re.MULTILINE)) > 10
    assert "://" not in text
    assert "--index-url" not in text


def test_every_locked_package_has_a_license() -> None:
    text = licenses.PAGE.read_text(encoding="utf-8")
    for name, version in licenses.locked().items():
        assert f"| {name} | {version} | " in text, f"{name} is not listed: make licenses"
    assert licenses.license_of("numpy").startswith("BSD")


def test_the_table_of_reliability_is_what_was_counted() -> None:
    counts = json.loads(reliability.COUNTS.read_text(encoding="utf-8"))
    text = reliability.PAGE.read_text(encoding="utf-8")
    assert reliability.page(text, counts) == text, "python -m docs.reliability"
    lost = {name: fault["lost"] for name, fault in counts["faults"].items() if fault["lost"]}
    assert not any("client" not in name for name in lost), "of a gallery, nothing may be lost"
    assert sum(lost.values()) < 0.001 * sum(fault["tried"] for name, fault in counts["faults"].items() if "client" in name)


def test_no_file_is_unpickled() -> None:
    """`isolation.py` unpickles what its own child process sent, never a file."""
    for path in (*(ROOT / "mmretrieve").rglob("*.py"), *(ROOT / "eval").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        is_allowed = path.name == "isolation.py"
        assert is_allowed or not re.search(r"^\s*(import|from) (pickle|marshal|shelve|dill|joblib)\b", text, re.MULTILINE), path
        for call in calls:
            called, options = ast.unparse(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
            if called == "torch.load":
                assert options.get("weights_only") == "True", f"{path}:{call.lineno}"
            if called.endswith(("np.load", "numpy.load")):
                assert options.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"
