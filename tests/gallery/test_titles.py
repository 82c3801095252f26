"""The title of an item: the same in shell, API and page, from the field that was chosen or detected."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import mmretrieve as mm
from demo.page_service import PageService
from demo.schemas import PageRequest
from mmretrieve.cli.main import main
from mmretrieve.gallery.manifest import TITLE_FIELDS, Manifest, detect_title_field, readable_id
from mmretrieve.gallery.store.records import FieldType
from mmretrieve.milvus.manifest import from_text, to_text
from mmretrieve.server.context import AppContext
from mmretrieve.server.limits import Limits
from mmretrieve.server.schemas import SearchBody


def run(*words: object) -> int:
    return main([*map(str, words)])


@pytest.fixture
def table(tmp_path: Path, photos: Path) -> Path:
    """Three images with a title and a label; the second has no title."""
    path = tmp_path / "items.csv"
    rows = [
        f"{i},{file},{'' if i == 1 else f'Item No. {i}'},label {i}" for i, file in enumerate(sorted(photos.rglob("*.png"))[:3])
    ]
    path.write_text("\n".join(["id,image,Title,label", *rows]))
    return path


@pytest.fixture
def shop(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run("index", table, "--gallery", tmp_path / "g", "--encoder", "wardrobe", "--dtype", "float32", "--quiet") == 0
    capsys.readouterr()
    return tmp_path / "g"


def titles(folder: Path, encoder: mm.Encoder, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The titles of all items by id, after a check that all front ends agree."""
    assert run("search", folder, "--prompt", "red", "--json") == 0
    hits = sorted(map(json.loads, capsys.readouterr().out.splitlines()), key=lambda hit: str(hit["id"]))
    context = AppContext.of(mm.Retriever.open(folder, encoder=encoder), Limits())
    of_shell = [hit["title"] for hit in hits]
    response = asyncio.run(context.search(SearchBody.model_validate({"prompt": "red"})))
    assert [hit.title for hit in sorted(response.hits, key=lambda hit: hit.id)] == of_shell
    for query in ({"prompt": "red"}, {}):
        cards = PageService(context).view(PageRequest.model_validate(query)).results.cards
        assert [card.title for card in sorted(cards, key=lambda card: card.id)] == of_shell
    return of_shell


def test_the_title_is_the_same_in_all_front_ends(shop: Path, encoder: mm.Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    assert titles(shop, encoder, capsys) == ["Item No. 0", "1", "Item No. 2"]
    assert mm.Gallery.open(shop).info()["title_field"] == "Title"


def test_plain_search_prints_the_title_after_the_id(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("search", shop, "--prompt", "red") == 0
    lines = {line.split("  ")[2]: line.split("  ")[3] for line in map(str.strip, capsys.readouterr().out.splitlines())}
    assert (lines["0"], lines["2"]) == ("Item No. 0", "Item No. 2")
    assert lines["1"].startswith("(")  # its id is not repeated


def test_a_chosen_title_field_is_kept(shop: Path, table: Path, encoder: mm.Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--gallery", shop, "--quiet")
    assert run("index", table, *where, "--title-field", "LABEL") == 0
    assert run("index", table, *where) == 0
    capsys.readouterr()
    assert titles(shop, encoder, capsys) == ["label 0", "label 1", "label 2"]
    assert mm.Gallery.open(shop).verify() == []
    assert run("index", table, *where, "--title-field", "tite") == 2
    assert capsys.readouterr().err == "mmretrieve: unknown field 'tite'; did you mean 'Title'? choose from: Title, label\n"
    assert mm.Gallery.open(shop).title_field == "label"


def test_a_collection_keeps_the_chosen_title_field(shop: Path) -> None:
    gallery = mm.Gallery.open(shop)
    gallery.choose_title_field("label")
    assert from_text(to_text(gallery.manifest), "there").title_field == "label"
    assert Manifest.from_dict(gallery.manifest.to_dict(), "here") == gallery.manifest


def test_text_fields_are_detected_in_the_order_of_the_list() -> None:
    for i, name in enumerate(TITLE_FIELDS):
        later = dict.fromkeys(reversed(TITLE_FIELDS[i:]), FieldType.TEXT)
        assert detect_title_field(later) == name
    assert detect_title_field({"title": FieldType.NUMBER, "colour": FieldType.TEXT}) is None


def test_an_id_becomes_readable_words() -> None:
    assert readable_id("summer/red-dress_7.png") == "red dress 7"
    assert readable_id("---") == "---"
