"""The house: imports run one way, heavy packages wait until they are needed, eval and demo use the library's front door."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mmretrieve", "eval", "demo")
ORDER = [
    "errors",
    "hub",
    "options",
    "registry",
    "forks",
    "concurrency",
    "isolation",
    "vectors",
    "filters",
    "scoring",
    "directions",
    "rules",
    "notebook",
    "composition",
    "combining",
    "weighting",
    "ranking",
    "pixels",
    "heif",
    "jpegxl",
    "decoders",
    "images",
    "sources",
    "encoders",
    "request",
    "axes",
    "composer_input",
    "language",
    "session",
    "inversion",
    "composers",
    "judges",
    "gallery",
    "milvus",
    "inputs",
    "answerable",
    "opening",
    "request_composer",
    "retriever",
    "service",
    "wardrobe",
    "testing",
    "server",
    "integrations",
    "cli",
]

IN_GALLERY = [
    "store",
    "captions",
    "vocabularies",
    "manifest",
    "view",
    "index",
    "candidates",
    "duplicates",
    "local_view",
    "search",
    "base",
    "recognition",
    "removal",
    "encoding",
    "ingest",
    "copying",
    "transfer",
    "sharing",
    "tables",
    "gallery",
]

IN_EVAL = [
    "files",
    "metrics",
    "benchmarks",
    "runs",
    "sweep",
    "lists",
    "report",
    "reproductions",
    "studies",
    "cli",
    "__main__",
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
        if here in ("__init__", "__main__"):
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


def eval_imports(path: Path) -> set[str]:
    """The modules of eval that a file imports: "eval.runs.run", also where only names of a module are imported."""
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in (ROOT / "eval").rglob("*.py")
    }
    names = (name for name in imports(path) if name.split(".")[0] == "eval")
    return {name if name in modules else name.rpartition(".")[0] for name in names}


def test_imports_run_one_way_in_eval_too() -> None:
    for path in (ROOT / "eval").rglob("*.py"):
        here = path.relative_to(ROOT / "eval").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in IN_EVAL, f"eval/{here} has no place in the order of rooms"
        for name in eval_imports(path):
            there = name.split(".")[1]
            assert IN_EVAL.index(there) <= IN_EVAL.index(here), f"{path} looks forward to {name}"


def test_no_modules_of_eval_import_each_other() -> None:
    """A module never imports one that imports it, however long the way; `__init__` files only hand names on."""
    needs = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): eval_imports(path)
        for path in (ROOT / "eval").rglob("*.py")
        if path.name != "__init__.py"
    }

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way, module))
        for other in needs.get(module, ()):
            visit(other, (*way, module))

    for module in needs:
        visit(module, ())


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("faiss", {"gallery/index/factory.py", "gallery/index/gpu.py", "gallery/index/faiss_index.py"}),
        (
            "open_clip",
            {f"encoders/{name}.py" for name in ("image_tower", "int8", "names", "openclip", "text_tower", "tokenizers")}
            | {"wardrobe/train.py"},
        ),
        ("sqlglot", {"filters/dialect.py", "filters/parser.py"}),
        (
            "sqlite3",
            {
                f"gallery/store/{name}.py"
                for name in ("connections", "format1", "ledger", "ledger_checksum", "patches", "statements")
            }
            | {"language/llm/cache.py"},
        ),
        ("openai", {"language/llm/client.py"}),
        ("sentence_transformers", {"encoders/sentence_transformers.py", "judges/cross_encoder.py"}),
        (
            "transformers",
            {
                "encoders/tokenizers.py",
                "encoders/transformers.py",
                "judges/transformers.py",
                "language/captioners/transformers.py",
            },
        ),
        ("pymilvus", {"milvus/client.py"}),
        ("pyarrow", {"sources/parquet_files.py"}),
        ("fastapi", {"server/api.py", "server/app.py", "server/docs.py", "server/errors.py"}),
        ("fastapi_offline", {"server/docs.py"}),
        ("uvicorn", {"server/connections.py", "server/run.py"}),
        ("mcp", {"server/app.py", "server/mcp.py"}),
        ("prometheus_client", {"server/metrics.py"}),
        ("langchain_core", {"integrations/langchain.py"}),
        ("llama_index", {"integrations/llama_index.py"}),
        ("mteb", {"integrations/mteb.py"}),
    ],
)
def test_each_heavy_package_has_its_own_rooms(package: str, homes: set[str]) -> None:
    users = {
        path.relative_to(ROOT / "mmretrieve").as_posix()
        for path in (ROOT / "mmretrieve").rglob("*.py")
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert users == homes


@pytest.mark.parametrize("command", [["-c", "import mmretrieve"], ["-m", "mmretrieve", "--help"]])
def test_light_things_are_quick_and_load_nothing_heavy(command: list[str]) -> None:
    spent = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent) < 0.3  # seconds of the processor, whatever else the machine does
    traced = subprocess.run([sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True).stderr
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in traced.splitlines()}
    assert not loaded & {
        "torch",
        "faiss",
        "gradio",
        "open_clip",
        "fastapi",
        "starlette",
        "uvicorn",
        "mcp",
        "pydantic",
        "sqlglot",
    }


def test_a_search_loads_no_package_of_others() -> None:
    """The packages of data frames and of frameworks are loaded by those who use them."""
    code = """import sys, mmretrieve as mm
retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
assert retriever.search(reference_id=retriever.gallery.ids[0], prompt="in red")
print(*(name for name in sys.modules if "." not in name))"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    others = {"pandas", "polars", "pyarrow", "mteb", "datasets", "langchain_core", "llama_index", "ranx", "ir_measures"}
    assert not others & set(loaded)


def modules() -> list[Path]:
    """The modules of the project's packages, without the `__init__` of each."""
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if path.name != "__init__.py"]


def test_no_class_name_occurs_twice() -> None:
    homes: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_no_module_name_occurs_twice_in_a_room() -> None:
    """A room is a folder of a package with all that is below it; the same role in two rooms keeps the same name."""
    homes: dict[tuple[str, ...], list[str]] = {}
    for path in modules():
        *folders, name = path.relative_to(ROOT).parts
        homes.setdefault((*folders[:2], name), []).append(path.relative_to(ROOT).as_posix())
    assert [paths for paths in homes.values() if len(paths) > 1] == []


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
