"""The vocabulary of a gallery: found in the fields of its items, or made of those that were chosen, and kept."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.encoders.base import EncoderIdentity
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.gallery import vocabularies
from mmretrieve.gallery.manifest import Manifest
from mmretrieve.gallery.store.records import FieldType
from mmretrieve.gallery.vocabularies import AutomaticVocabulary, GalleryVocabulary
from mmretrieve.language.fields import vocabulary_from_fields
from mmretrieve.language.vocabulary import Vocabulary
from mmretrieve.milvus.manifest import from_text, to_text
from mmretrieve.milvus.transfer import pull_into, push
from mmretrieve.options import Decode

SHOP = [
    {"Article": article, "colour": colour, "gender": gender, "price": 3}
    for article in ("Hats", "shirt", "dress")
    for colour in ("red", "navy blue")
    for gender in ("Men", "women")
]
NAMED = "a photo of a {colour} {Article}"
FOUND = "a photo of a {colour} {Article} {gender}"


def fill(gallery: mm.Gallery, rows: Sequence[Mapping[str, Any]], first: int = 0) -> None:
    ids = [str(first + i) for i in range(len(rows))]
    gallery.add_vectors(ids, np.random.default_rng(first).normal(size=(len(rows), gallery.dim)), fields=rows)


@pytest.fixture
def shop(tmp_path: Path, encoder: mm.Encoder) -> mm.Gallery:
    """A gallery of two dozen vectors with fields."""
    gallery = mm.Gallery.create(tmp_path / "shop.gallery", encoder=encoder)
    fill(gallery, SHOP * 2)
    return gallery


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items' fields each vocabulary was made of."""
    sizes: list[int] = []

    def spy(rows: list[Mapping[str, object]], names: Any = None) -> Vocabulary | None:
        sizes.append(len(rows))
        return vocabulary_from_fields(rows, names)

    monkeypatch.setattr(vocabularies, "vocabulary_from_fields", spy)
    return sizes


def sentence(gallery: mm.Gallery) -> str | None:
    return None if gallery.vocabulary is None else gallery.vocabulary.sentence


# Found automatically


def test_a_vocabulary_is_found_and_nothing_is_written(shop: mm.Gallery) -> None:
    before = {path.name: path.read_bytes() for path in shop.path.iterdir()}
    assert shop.vocabulary == vocabulary_from_fields(SHOP * 2)
    assert shop.info()["vocabulary"] == f'"{FOUND}", found automatically'
    assert {path.name: path.read_bytes() for path in shop.path.iterdir()} == before


def test_fields_without_words_give_no_vocabulary(gallery: mm.Gallery) -> None:
    assert gallery.vocabulary is None
    assert gallery.info()["vocabulary"] == "none"
    fill(gallery, [{"price": 3}], 1000)
    assert gallery.vocabulary is None


def test_small_changes_read_no_items_again(shop: mm.Gallery, reads: list[int]) -> None:
    first = shop.vocabulary
    fill(shop, SHOP[:1], 100)
    shop.delete(["0", "1"])
    shop.compact()
    assert shop.vocabulary is first
    assert reads == [24]
    fill(shop, SHOP[:3], 200)  # 26, within a tenth of 24
    fill(shop, SHOP[:1], 300)
    assert len(shop) == 27
    assert shop.vocabulary == first
    assert reads == [24, 27]  # the drift is counted from what was read
    fill(shop, [{**SHOP[0], "pattern": "striped"}], 400)
    _ = shop.vocabulary, shop.vocabulary
    assert reads == [24, 27, 28]  # another field


def test_a_vocabulary_is_reused_across_versions_that_did_not_read_it(shop: mm.Gallery, reads: list[int]) -> None:
    _ = shop.vocabulary
    for i in range(2):
        fill(shop, SHOP[:1], 100 + i)
    _ = shop.vocabulary
    assert reads == [24]


def test_many_items_are_sampled_evenly(shop: mm.Gallery, reads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabularies, "MAX_ITEMS", 10)
    _ = shop.vocabulary
    assert reads == [8]  # every third of 24
    shop.choose_vocabulary(["colour"])
    assert reads == [8, 8]


def test_an_automatic_vocabulary_is_valid_within_a_tenth() -> None:
    kinds = {"colour": FieldType.TEXT}
    automatic = AutomaticVocabulary(None, kinds, 100)
    assert [automatic.is_valid_for(kinds, items) for items in (89, 90, 100, 110, 111)] == [False, True, True, True, False]
    assert not automatic.is_valid_for({}, 100)
    assert not AutomaticVocabulary(None, {}, 0).is_valid_for({}, 1)


# Chosen


def test_a_chosen_vocabulary_is_kept(shop: mm.Gallery) -> None:
    _ = shop.vocabulary
    chosen = shop.choose_vocabulary(["colour", "ARTICLE"])
    assert chosen.sentence == NAMED
    for gallery in (shop, mm.Gallery.open(shop.path)):
        assert gallery.vocabulary == chosen
        assert gallery.info()["vocabulary"] == f'"{NAMED}", from fields colour, Article'
    shop.delete(["0"])
    shop.compact()
    assert mm.Gallery.open(shop.path).vocabulary == chosen
    assert shop.verify() == []


def test_a_vocabulary_is_renewed_from_the_same_fields(shop: mm.Gallery, caplog: pytest.LogCaptureFixture) -> None:
    assert shop.renew_vocabulary() is None
    shop.choose_vocabulary(["colour", "article"])
    fill(shop, [{"Article": "scarves", "colour": "green"}], 100)
    assert "green" not in str(shop.vocabulary)
    renewed = shop.renew_vocabulary()
    assert renewed is not None
    assert [group.words for group in renewed.groups] == [
        ("dress", "hat", "scarf", "shirt"),
        ("green", "navy blue", "red"),
    ]
    generation = shop._view.version.generation
    assert shop.renew_vocabulary() == renewed
    assert shop._view.version.generation == generation  # nothing new, nothing written
    shop.delete([id_ for id_ in shop.ids if id_ != "0"])
    shop.delete(["0"])
    assert shop.renew_vocabulary() == renewed
    assert "the vocabulary stays as it is: unknown field 'colour'" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["nope", "colour"], "unknown field 'nope'; choose from: Article, colour, gender, price"),
        (["price"], "'price' contains no words"),
        ([], "name at least one"),
        ("colour", "expected a list of fields, got one string 'colour'"),
        (3, "expected a list of fields, got 3"),
    ],
)
def test_wrong_fields_change_nothing(shop: mm.Gallery, fields: Any, message: str) -> None:
    chosen = shop.choose_vocabulary(["colour"])
    with pytest.raises(OptionError, match=message):
        shop.choose_vocabulary(fields)
    assert mm.Gallery.open(shop.path).vocabulary == chosen
    assert shop.verify() == []


def test_items_without_fields_have_no_vocabulary_to_choose(gallery: mm.Gallery) -> None:
    with pytest.raises(OptionError, match="no field 'colour': the items of this gallery have no fields"):
        gallery.choose_vocabulary(["colour"])


def test_a_gallery_keeps_its_choice_when_another_is_merged(shop: mm.Gallery, tmp_path: Path, encoder: mm.Encoder) -> None:
    other = mm.Gallery.create(tmp_path / "other.gallery", encoder=encoder)
    fill(other, SHOP, 500)
    other.choose_vocabulary(["gender"])
    chosen = shop.choose_vocabulary(["colour"])
    shop.merge(other.path)
    assert len(shop) == 36
    assert shop.vocabulary == chosen


def test_others_see_the_choice_after_a_refresh(shop: mm.Gallery) -> None:
    reader = mm.Gallery.open(shop.path)
    assert sentence(reader) == FOUND
    shop.choose_vocabulary(["colour", "Article"])
    assert sentence(reader) == FOUND
    reader.refresh()
    assert sentence(reader) == NAMED


def test_a_damaged_choice_is_named(shop: mm.Gallery) -> None:
    with sqlite3.connect(shop.path / "gallery.sqlite") as db:
        db.execute("INSERT INTO meta VALUES ('vocabulary', ?)", (json.dumps({"vocabulary": {"sentence": "x"}}),))
    with pytest.raises(
        GalleryError, match=r"gallery.sqlite: the stored vocabulary is damaged; restore it from a copy, or index again"
    ):
        _ = shop.vocabulary


# The shell


@pytest.fixture
def table(tmp_path: Path, photos: Path) -> Path:
    """A CSV of twelve drawings and what they are said to show."""
    path = tmp_path / "shop.csv"
    pictures = sorted(photos.rglob("*.png"))[: len(SHOP)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", *SHOP[0]])
        writer.writeheader()
        writer.writerows({"path": str(picture), **row} for picture, row in zip(pictures, SHOP, strict=True))
    return path


def run(*words: object) -> int:
    return main([*map(str, words)])


def test_the_shell_stores_and_renews(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--gallery", tmp_path / "g", "--quiet")
    assert run("index", table, *where, "--encoder", "wardrobe", "--vocabulary-fields", "colour, article") == 0
    assert run("info", tmp_path / "g") == 0
    assert f'vocabulary "{NAMED}", from fields colour, Article' in " ".join(capsys.readouterr().out.split())
    table.write_text(table.read_text().replace(",dress,", ",skirt,"))
    for command in ("index", "sync"):
        assert run(command, table, *where) == 0
        vocabulary = mm.Gallery.open(tmp_path / "g").vocabulary
        assert vocabulary is not None
        assert vocabulary.groups[0].words == ("hat", "shirt", "skirt")
    assert run("sync", table, *where, "--vocabulary-fields", "gender") == 0
    assert mm.Gallery.open(tmp_path / "g").info()["vocabulary"] == '"a photo of a thing {gender}", from fields gender'


def test_a_wrong_name_loses_nothing(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--gallery", tmp_path / "g", "--quiet")
    assert run("index", table, *where, "--encoder", "wardrobe", "--vocabulary-fields", "color") == 2
    out, err = capsys.readouterr()
    assert "12 added" in out
    assert err == "mmretrieve: unknown field 'color'; did you mean 'colour'? choose from: Article, colour, gender, price\n"
    gallery = mm.Gallery.open(tmp_path / "g")
    assert (len(gallery), gallery.verify(), sentence(gallery)) == (12, [], FOUND)
    with pytest.raises(SystemExit) as exit_:
        run("index", table, *where, "--vocabulary-fields", " , ")
    assert exit_.value.code == 2
    assert "expected names such as article,colour" in capsys.readouterr().err


def test_a_gallery_as_a_source_can_be_given_a_vocabulary(shop: mm.Gallery, tmp_path: Path) -> None:
    assert run("index", shop.path, "--gallery", tmp_path / "g", "--quiet", "--vocabulary-fields", "colour") == 0
    assert sentence(mm.Gallery.open(tmp_path / "g")) == "a photo of a {colour} thing"


# Milvus


def test_collections_without_a_vocabulary_open_as_before() -> None:
    plain = Manifest(EncoderIdentity("model", "weights", "preprocessing"), 2, Decode.EXACT)
    old = json.loads(to_text(plain))
    del old["vocabulary"]
    assert from_text(json.dumps(old), "here") == plain
    chosen = GalleryVocabulary(vocabulary_from_fields(SHOP, ["colour"]), ("colour",))
    with_one = Manifest(plain.encoder, 2, Decode.EXACT, vocabulary=chosen)
    assert json.loads(to_text(with_one))["format"] == 1
    assert from_text(to_text(with_one), "here") == with_one
    damaged = json.loads(to_text(with_one)) | {"vocabulary": {"fields": []}}
    with pytest.raises(GalleryError, match="here: the stored vocabulary is damaged"):
        from_text(json.dumps(damaged), "here")


def test_a_vocabulary_is_pushed_and_pulled(shop: mm.Gallery, milvus: Any, tmp_path: Path) -> None:
    address = milvus.address("vocabulary")
    push(shop.path, address)
    collection: Any = mm.open_gallery(address)
    assert collection.vocabulary == shop.vocabulary
    assert collection.info()["vocabulary"] == f'"{FOUND}", found automatically'
    chosen = shop.choose_vocabulary(["colour", "article"])
    push(shop.path, address)
    collection.refresh()
    assert collection.vocabulary == chosen
    assert collection.info()["vocabulary"] == f'"{NAMED}", from fields colour, Article'
    pull_into(tmp_path / "again", address)
    assert mm.Gallery.open(tmp_path / "again").vocabulary == chosen
