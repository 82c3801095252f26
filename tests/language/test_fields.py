"""Vocabularies and captions from the fields of a gallery."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmretrieve import wardrobe
from mmretrieve.errors import OptionError
from mmretrieve.language.fields import caption_from_fields, singular, vocabulary_from_fields
from mmretrieve.language.lexicon import general_lexicon
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import GENERAL, Vocabulary

ARTICLES, COLOURS, GENDERS = (
    ("Tshirts", "Watches", "Jeans", "Casual_Shoes"),
    ("Navy Blue", "black"),
    ("Men", "women", "Unisex", ""),
)
SHOP: list[dict[str, object]] = [
    {
        "id": str(i),
        "image": f"images/{i}.jpg",
        "masterCategory": "Apparel",
        "subCategory": ("Topwear", "Other")[i % 2],
        "articleType": ARTICLES[i % 4],
        "baseColour": COLOURS[i // 4 % 2],
        "gender": GENDERS[i // 8 % 4],
        "usage": ("Casual", "formal")[i % 2],
        "season": ("Summer", "Winter")[i % 2],
        "year": str(2010 + i % 2),
        "price": 9.5,
        "code": f"A{i % 3}",
        "productDisplayName": f"Acme {i} {COLOURS[i // 4 % 2]} thing",
    }
    for i in range(64)
]


def shop_vocabulary(names: list[str] | None = None, rows: list[dict[str, object]] = SHOP) -> Vocabulary:
    vocabulary = vocabulary_from_fields(rows, names)
    assert vocabulary is not None
    return vocabulary


def test_a_vocabulary_has_the_words_of_the_fields() -> None:
    vocabulary = shop_vocabulary()
    assert vocabulary.sentence == "a photo of a {baseColour} {usage} {articleType} {gender}"
    assert {group.name: group.words for group in vocabulary.groups} == {
        "articleType": ("casual shoe", "pair of jeans", "tshirt", "watch"),
        "baseColour": ("black", "navy blue"),
        "gender": ("", "for men", "for everyone", "for women"),
        "usage": ("casual", "formal"),
    }
    assert vocabulary.groups[0] == vocabulary.noun


def test_named_fields_keep_their_order() -> None:
    assert shop_vocabulary(["gender", "articleType"]).sentence == "a photo of a {articleType} {gender}"
    assert shop_vocabulary(["usage", "baseColour", "subCategory"]).sentence == "a photo of a {usage} {baseColour} {subCategory}"
    colours = shop_vocabulary(["baseColour"])
    assert colours.sentence == "a photo of a {baseColour} thing"
    assert colours.noun is None
    assert SwapRewriter(colours).rewrite(["a photo of a black thing"], ["in navy"]) == ["a photo of a navy blue thing, in navy"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nope"], "unknown field 'nope'; choose from: id, image"),
        (["price"], "'price' contains no words"),
        ([], "name at least one"),
    ],
)
def test_unknown_field_names_are_refused_in_one_line(names: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message) as error:
        vocabulary_from_fields(SHOP, names)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{"a": 1}, {"a": 2}],
        [{"id": str(i), "title": f"shirt number {i}"} for i in range(50)],
        [{"colour": colour} for colour in ("red", "blue") * 9],  # no noun
        [{"brand": brand} for brand in ("acme", "other shop") * 9],
        [{"kind": ("shirt", "hat", "bag")[i]} for i in range(3)],  # nothing repeats
    ],
)
def test_fields_without_words_give_no_vocabulary(rows: list[dict[str, object]]) -> None:
    assert vocabulary_from_fields(rows) is None


@pytest.mark.parametrize(
    ("item", "caption"),
    [
        ({}, "a photo of a navy blue casual tshirt for men"),
        ({"gender": ""}, "a photo of a navy blue casual tshirt"),
        ({"gender": None, "baseColour": "  BLACK "}, "a photo of a black casual tshirt for men"),
        ({"articleType": "watch", "baseColour": "X-42", "usage": 3}, "a photo of a watch for men"),
        ({"articleType": "Casual Shoes"}, "a photo of a navy blue casual shoe for men"),
        ({"articleType": "spaceship"}, "a photo of Acme 0 Navy Blue thing"),
        ({"caption": "A man in a  blue\nshirt. He smiles."}, "A man in a blue shirt"),
        ({"description": "<p>Soft cotton shirt</p>"}, "Soft cotton shirt"),
        ({"description": "SKU-99"}, "a photo of a navy blue casual tshirt for men"),
    ],
)
def test_captions_come_from_the_fields_of_an_item(item: dict[str, object], caption: str) -> None:
    fields = {**SHOP[0], **{name: value for name, value in item.items() if value is not None}}
    assert caption_from_fields(fields, shop_vocabulary()) == caption


def test_without_words_there_is_no_caption() -> None:
    assert caption_from_fields({"id": "1", "title": "12345"}, shop_vocabulary()) is None
    assert caption_from_fields({"baseColour": "black"}, shop_vocabulary()) is None
    assert caption_from_fields({"title": "ADIDAS Men Black Flip Flops"}, None) == "a photo of ADIDAS Men Black Flip Flops"


def test_captions_of_fields_can_be_rewritten() -> None:
    caption = caption_from_fields(SHOP[0], shop_vocabulary())
    assert caption is not None
    rewritten = SwapRewriter(shop_vocabulary()).rewrite([caption], ["in black for women"])
    assert rewritten == ["a photo of a black casual tshirt for women, in black for women"]


def test_the_vocabulary_of_the_wardrobe_comes_from_its_fields() -> None:
    rows: list[dict[str, object]] = [
        {"kind": str(d.garment.kind), "colour": str(d.garment.colour)} for d in wardrobe.drawings()
    ]
    assert shop_vocabulary(rows=rows).sentence == "a photo of a {colour} {kind}"
    assert (
        caption_from_fields({"kind": "trousers", "colour": "red"}, shop_vocabulary(rows=rows))
        == "a photo of a red pair of trousers"
    )


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("tshirts", "tshirt"),
        ("scarves", "scarf"),
        ("dresses", "dress"),
        ("jeans", "pair of jeans"),
        ("track pants", "pair of track pants"),
    ],
)
def test_nouns_have_a_form_that_follows_an_article(plural: str, expected: str) -> None:
    assert singular(plural) == singular(expected) == expected


VALUES: Any = st.one_of(st.none(), st.integers(), st.text(max_size=8), st.sampled_from(["Red", "blue", "shirt", "for men"]))
ROWS = st.lists(st.dictionaries(st.sampled_from(["colour", "kind", "a.b", "0", "{x}", "gender"]), VALUES), max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_any_fields_give_a_valid_caption_or_none(rows: list[dict[str, object]]) -> None:
    vocabulary = vocabulary_from_fields(rows)
    for row in rows:
        caption = caption_from_fields(row, vocabulary)
        assert caption is None or (caption.strip() and len(caption.splitlines()) == 1)


def test_the_general_vocabulary_is_large_and_has_no_duplicates() -> None:
    things, colours = Vocabulary.read(GENERAL).groups
    assert 400 < len(things.words) < 500
    assert len(set(things.words)) == len(things.words)
    assert {
        "t-shirt",
        "saree",
        "kurta",
        "sofa",
        "truck",
        "dog",
        "pizza",
        "person",
        "beach",
        "laptop",
        "rose",
        "football",
    } <= set(things.words)
    assert colours.words[0] == ""
    assert all(general_lexicon().meaning(word) is not None for word in things.words)
