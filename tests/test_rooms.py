"""The house: imports run one way, heavy packages wait until they are needed, eval and demo use the library's front door."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    "errors",
    "options",
    "concurrency",
    "vectors",
    "filters",
    "scoring",
    "directions",
    "rules",
    "composition",
    "combining",
    "weighting",
    "ranking",
    "images",
    "sources",
    "encoders",
    "composer_input",
    "language",
    "inversion",
    "composers",
    "gallery",
    "milvus",
    "request",
    "prepared_request",
    "references",
    "answerable",
    "retriever",
    "wardrobe",
    "server",
    "cli",
]

IN_GALLERY = [
    "store",
    "vocabularies",
    "manifest",
    "view",
    "index",
    "candidates",
    "duplicates",
    "snapshot",
    "search",
    "base",
    "ingest",
    "copying",
    "embeddings",
    "transfer",
    "gallery",
]


def imports(path: Path) -> set[str]:
    """Full names of the modules a file imports at its top level or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "mmretrieve" and len(parts) > 1 and parts[1] in ORDER else None


def test_imports_run_one_way() -> None:
    for path in (ROOT / "mmretrieve").rglob("*.py"):
        here = path.relative_to(ROOT / "mmretrieve").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in ORDER, f"{here} has no place in the order of rooms"
        for there in filter(None, map(room, imports(path))):
            assert ORDER.index(there) <= ORDER.index(here), f"{path} looks forward to {there}"


def test_imports_run_one_way_in_the_gallery_too() -> None:
    home = ROOT / "mmretrieve" / "gallery"
    for path in home.rglob("*.py"):
        here = path.relative_to(home).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for name in imports(path):
            if name.startswith("mmretrieve.gallery."):
                there = name.split(".")[2]
                assert IN_GALLERY.index(there) <= IN_GALLERY.index(here), f"{path} looks forward to {name}"


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("faiss", {"gallery/index/factory.py", "gallery/index/gpu.py", "gallery/index/faiss_index.py"}),
        ("open_clip", {"encoders/openclip.py", "encoders/text_tower.py", "wardrobe/train.py"}),
        (
            "sqlite3",
            {f"gallery/store/{name}.py" for name in ("ledger", "ledger_checksum", "statements", "transaction")},
        ),
        ("openai", {"language/llm/client.py"}),
        ("pymilvus", {"milvus/client.py"}),
        ("pyarrow", {"sources/parquet_files.py"}),
        ("fastapi", {"server/api.py", "server/app.py", "server/errors.py"}),
        ("uvicorn", {"server/run.py"}),
        ("mcp", {"server/app.py", "server/mcp.py"}),
        ("prometheus_client", {"server/metrics.py"}),
    ],
)
def test_each_heavy_package_has_its_own_rooms(package: str, homes: set[str]) -> None:
    users = {
        path.relative_to(ROOT / "mmretrieve").as_posix()
        for path in (ROOT / "mmretrieve").rglob("*.py")
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users == homes


@pytest.mark.parametrize("command", [["-c", "import mmretrieve"], ["-m", "mmretrieve.cli.main", "--help"]])
def test_light_things_are_quick_and_load_nothing_heavy(command: list[str]) -> None:
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        spent.append(time.perf_counter() - started)
    assert min(spent) < 0.3
    traced = subprocess.run([sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True).stderr
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in traced.splitlines()}
    assert not loaded & {"torch", "faiss", "gradio", "open_clip", "fastapi", "starlette", "uvicorn", "mcp", "pydantic"}


def test_every_public_name_can_be_had() -> None:
    import mmretrieve as mm

    for name in mm.__all__:
        assert getattr(mm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mm.nothing


def test_the_library_never_prints() -> None:
    for path in (ROOT / "mmretrieve").rglob("*.py"):
        if path.parent.name == "cli":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not [call for call in calls if getattr(call.func, "id", "") == "print"], path


def test_eval_and_demo_use_no_private_names() -> None:
    for folder in ("eval", "demo", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports(path):
                if name.startswith("mmretrieve"):
                    assert not any(part.startswith("_") for part in name.split(".")), f"{path}: {name}"
