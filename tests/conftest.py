"""Real parts for every test: the wardrobe's encoder, drawn pictures as files, a gallery of them."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test, settings

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, a core for each process

from helpers import FUZZ
from milvus_server import PROGRAM, LiteServer

import mmretrieve as mm
from mmretrieve.composers.simple import Sum
from mmretrieve.language.rewriters import TemplateRewriter
from mmretrieve.registry import (
    CAPTIONERS,
    COMPOSERS,
    ENCODERS,
    JUDGES,
    PARAPHRASERS,
    REWRITERS,
    RULES,
    register_composer,
    register_rewriter,
    register_rule,
)
from mmretrieve.rules import Product
from mmretrieve.wardrobe.dataset import drawings
from mmretrieve.wardrobe.draw import draw

HOME = Path(__file__).parent
SHARED = Path(os.environ.get("MMRETRIEVE_DATA", HOME.parents[1] / "shared" / "data"))

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("fixed" if FUZZ == 1 else "fuzz")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests of properties, and gives each MMRETRIEVE_FUZZ times its number of examples."""
    tests: dict[Callable[..., object], int] = {}
    for item in items:
        if is_hypothesis_test(function := getattr(item, "obj", None)):
            item.add_marker(pytest.mark.property)
            usual = function._hypothesis_internal_use_settings
            tests.setdefault(function, FUZZ * usual.max_examples)
            function._hypothesis_internal_use_settings = settings(usual, max_examples=tests[function])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Runs a `timed` test while no other process that tests this checkout executes one.

    Every test passes the gate and shares the floor; a timed one keeps the gate and has the floor to itself.
    """
    timed = item.get_closest_marker("timed") is not None
    with locked(HOME, fcntl.LOCK_EX) as gate, locked(HOME.parent, fcntl.LOCK_EX if timed else fcntl.LOCK_SH):
        if not timed:
            fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@contextmanager
def locked(folder: Path, how: int) -> Iterator[int]:
    """A lock on a folder, which needs no file of its own. Waits for it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, how)
        yield opened
    finally:
        os.close(opened)


@pytest.fixture(autouse=True)
def _shell_leaves_nothing_behind() -> Iterator[None]:
    """Undoes what a command that runs in this process sets for a process of its own: where warnings and logs go."""
    logger = logging.getLogger("mmretrieve")
    show, propagate, handlers = warnings.showwarning, logger.propagate, logger.handlers[:]
    yield
    warnings.showwarning, logger.propagate, logger.handlers[:] = show, propagate, handlers


@pytest.fixture(scope="session")
def encoder() -> mm.Encoder:
    return mm.load_encoder("wardrobe", dtype="float32")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawings as files, two folders deep."""
    folder = tmp_path_factory.mktemp("photos")
    for i, drawing in enumerate(drawings()[:60]):
        place = folder / ("summer" if i % 2 else "winter/old")
        place.mkdir(parents=True, exist_ok=True)
        draw(drawing.garment, drawing.detail, seed=drawing.seed, size=96).save(place / drawing.id)
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> Path:
    """A gallery of the sixty, not to be written to."""
    folder = tmp_path_factory.mktemp("galleries") / "sixty.gallery"
    mm.Gallery.create(folder, encoder=encoder).add(photos)
    return folder


@pytest.fixture
def gallery(tmp_path: Path, encoder: mm.Encoder, made: Path) -> mm.Gallery:
    """A copy of it, which a test may change."""
    return mm.Gallery.open(shutil.copytree(made, tmp_path / "own.gallery"), encoder=encoder)


@pytest.fixture(scope="session")
def retriever(made: Path, encoder: mm.Encoder) -> mm.Retriever:
    return mm.Retriever.open(made, encoder=encoder)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A composer `mine` that is "sum", a rule `my-rule` that is "product", and a rewriter `my-rewriter` that is the template."""
    for registry in (COMPOSERS, RULES, JUDGES, REWRITERS, PARAPHRASERS, CAPTIONERS, ENCODERS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    register_composer("mine", lambda context: Sum(context.encoder), keeps_weights=True)
    register_rule("my-rule", lambda learned_words: Product())  # noqa: ARG005
    register_rewriter("my-rewriter", lambda vocabulary: TemplateRewriter())  # noqa: ARG005


@pytest.fixture(scope="session")
def catalogue() -> Path:
    """The product catalogue of the research data."""
    folder = SHARED / "catalogue"
    if not folder.is_dir():
        pytest.skip(f"no research data at {SHARED} (set MMRETRIEVE_DATA)")
    return folder


@pytest.fixture(scope="session")
def circo() -> Path:
    """The captions and rewrites of the CIRCO test queries, as LDRE used them."""
    file = SHARED / "captions" / "circo_test_with_captions.json"
    if not file.is_file():
        pytest.skip(f"no research data at {SHARED} (set MMRETRIEVE_DATA)")
    return file


@pytest.fixture(scope="session")
def shared() -> Path:
    """The research data: a folder for each benchmark."""
    if not SHARED.is_dir():
        pytest.skip(f"no research data at {SHARED} (set MMRETRIEVE_DATA)")
    return SHARED


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteServer]:
    """A Milvus server that lives as long as the tests."""
    if not PROGRAM.exists():
        pytest.skip(f"NO MILVUS SERVER: {PROGRAM} is not there; `make test` builds it (or set MMRETRIEVE_MILVUS)")
    server = LiteServer(tmp_path_factory.mktemp("milvus"))
    yield server
    server.stop()
