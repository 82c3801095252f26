"""Real parts for every test: the wardrobe's encoder, drawn pictures as files, a gallery of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for a hub

from milvus_server import PROGRAM, LiteServer

import mmretrieve as mm
from mmretrieve.wardrobe.dataset import drawings
from mmretrieve.wardrobe.draw import draw

SHARED = Path(os.environ.get("MMRETRIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
def gallery(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> mm.Gallery:
    """A gallery of the sixty, to do with as one likes."""
    gallery = mm.Gallery.create(tmp_path / "own.gallery", encoder=encoder)
    gallery.add(photos)
    return gallery


@pytest.fixture(scope="session")
def retriever(made: Path, encoder: mm.Encoder) -> mm.Retriever:
    return mm.Retriever.open(made, encoder=encoder)


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
