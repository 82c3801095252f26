"""What the page does, without a browser: from a look to what it shows, its filters, its words to try, its files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from demo import exports, filters, state
from demo.page_service import MIN_COPY_SCORE, PageService, readable_name, stack_copies, weigh_by_controls
from demo.state import Card, PageRequest, WeightControls
from mmretrieve.composition import Caption
from mmretrieve.errors import ExpiredError
from mmretrieve.filters import read_filter
from mmretrieve.server.context import AppContext
from mmretrieve.server.limits import Limits
from mmretrieve.sources.base import SourceItem
from mmretrieve.sources.location import Location

KNOBS = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}


class Priced:
    """The sixty drawings with a colour and a price, every third without one."""

    name = "priced"

    def __init__(self, photos: Path) -> None:
        self._files = sorted(photos.rglob("*.png"))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for number, file in enumerate(self._files):
            price = None if number % 3 == 0 else number * 1.5
            yield SourceItem(file.name, Location(str(file)), {"colour": file.name.split("-")[0], "price": price})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> PageService:
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("page") / "shop.gallery", encoder=encoder, setting=mm.PDV(**KNOBS))
    gallery.add(Priced(photos))
    return PageService(AppContext.of(mm.Retriever(gallery, encoder), Limits()))


def look(shop: PageService, **more: object) -> PageRequest:
    ask = {"reference_id": shop.service.retriever.gallery.ids[5], "prompt": "in red", "exclude_reference": True}
    return PageRequest.model_validate({"ask": ask, "knobs": KNOBS} | more)


QUESTIONS: list[dict[str, object]] = [
    {"reference_id": 5},
    {"prompt": "a red dress"},
    {"reference_id": 5, "prompt": "in red", "exclude_reference": True},
    {"reference_id": 5, "prompt": "in red", "caption": "a photo of a hat"},
    {"reference_id": 5, "prompt": ["in red", "with long sleeves"], "strength": [1.0, 0.5]},
    {"reference_id": [5, 9], "prompt": "in red", "image_weight": [2.0, 1.0]},
    {"reference_id": 5, "prompt": "in red", "avoid": "stripes"},
    {"reference_id": 5, "prompt": "in red without stripes"},
    {"prompt": "a dress without stripes"},
    {"reference_id": 5, "avoid": ["stripes", "dots"]},
    {"reference_id": 5, "prompt": "in red", "composer": "sum"},
    {"reference_id": 5, "prompt": "in red without stripes", "composer": "sdr"},
    {"reference_id": 5, "prompt": "in red", "composer": "ldre"},
    {"reference_id": 5, "prompt": "in red", "rule": "hinge"},
    {"reference_id": 5, "prompt": "in red", "rule": "product"},
    {"reference_id": 5, "prompt": "in red", "where": "price < 60", "exclude": 7},
]


def named(shop: PageService, question: dict[str, object]) -> dict[str, object]:
    """The question with ids of items in the place of their numbers."""
    all_ids = shop.service.retriever.gallery.ids
    numbers = {name: question[name] for name in ("reference_id", "exclude") if name in question}
    return question | {name: [all_ids[at] for at in np.atleast_1d(several)] for name, several in numbers.items()}


def ids(column: object) -> list[str]:
    return [id_ for card in column.cards for id_ in (card.id, *card.copies)]  # type: ignore[attr-defined]


def test_a_view_is_what_a_search_gives_under_any_knobs(shop: PageService) -> None:
    retriever = shop.service.retriever
    for beta in (0.0, 0.3, 1.0):
        view = shop.view(look(shop, knobs=KNOBS | {"beta": beta}))
        question = {"reference_id": retriever.gallery.ids[5], "prompt": "in red", "exclude_reference": True, "k": 24}
        ranking = retriever.search(**question, **(KNOBS | {"beta": beta}))
        assert sorted(ids(view.now)) == sorted(ranking.ids)
        scores = {hit.id: (hit.rank, hit.score) for hit in ranking}
        assert all((card.rank, card.score) == scores[card.id] for card in view.now.cards)
        assert view.now.hidden == {"excluded": 1}
    with_prompt = shop.view(look(shop, knobs=KNOBS | {"prompt": 1.5}))
    weights = WeightControls(**KNOBS, prompt=1.5).weights
    wanted = retriever.search(**question, weights=weights)
    assert [card.score for card in with_prompt.now.cards] == [
        hit.score for hit in wanted if hit.id in {card.id for card in with_prompt.now.cards}
    ]
    assert set(with_prompt.now.cards[0].gave) == {"image", "text", "composed", "prompt"}


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_a_view_is_automatic_and_then_what_a_search_gives(shop: PageService, question: dict[str, object]) -> None:
    asked = named(shop, question)
    ranking = shop.service.retriever.search(**asked, k=60)  # type: ignore[arg-type]
    view = shop.view(PageRequest.model_validate({"ask": asked, "shown": 60}))
    scores = {hit.id: (hit.rank, hit.score) for hit in ranking}
    assert sorted(ids(view.now)) == sorted(ranking.ids)
    assert [(card.rank, card.score) for card in view.now.cards] == [scores[card.id] for card in view.now.cards]
    assert (view.now.why, view.now.answerable, view.now.weights) == (ranking.why, ranking.answerable, ranking.weights)
    assert view.words == ranking.words


def test_two_captions_are_two_questions(shop: PageService) -> None:
    one, other = (look(shop, knobs="auto") for _ in range(2))
    other.ask.caption = ["a photo of a hat"]
    assert shop.view(one).words["text"] != shop.view(other).words["text"] == "a photo of a hat"
    assert ids(shop.view(one).now) != ids(shop.view(other).now)


def test_a_caption_says_where_it_comes_from(shop: PageService) -> None:
    assert state.caption_origin(mm.Composition(("text",), np.eye(1, 4, dtype=np.float32), (1.0,), {"text": "a hat"})) == {}
    guessed = Caption("a hat", trust=0.4, source="tagger")
    composition = mm.Composition(("text",), np.eye(1, 4, dtype=np.float32), (1.0,), {"text": guessed})
    assert state.caption_origin(composition) == {"caption_source": "tagger", "caption_trust": 0.4}
    asked = look(shop)
    asked.ask.caption = ["a photo of a hat"]
    assert shop.view(asked).caption_source == "given"


def test_knobs_nearest_to_automatic_weights_rank_alike(shop: PageService) -> None:
    for question in ({"prompt": "in red"}, {"prompt": "in red without stripes"}, {"prompt": ["in red", "with long sleeves"]}):
        asked = {"ask": named(shop, {"reference_id": 5} | question), "shown": 60}
        automatic = shop.view(PageRequest.model_validate(asked)).now
        assert automatic.knobs is not None
        moved = shop.view(PageRequest.model_validate(asked | {"knobs": automatic.knobs})).now
        ranks = [{card.id: card.rank for card in one.cards} for one in (automatic, moved)]
        both = sorted(set(ranks[0]) & set(ranks[1]))
        assert np.corrcoef([[rank[id_] for id_ in both] for rank in ranks])[0, 1] > 0.98
        assert moved.weights["composed"] == pytest.approx(automatic.knobs.weights["composed"])
        assert moved.why is None


def assert_near(one: WeightControls | None, other: WeightControls) -> None:
    """Equal but for the rounding of floating-point arithmetic."""
    assert one is not None
    assert one.model_dump() == pytest.approx(other.model_dump(), abs=1e-12)


def test_knobs_give_back_the_weights_they_came_from() -> None:
    names = ("image", "text", "composed", "prompt", "composed 2", "prompt 2", "avoid", "avoid 2")
    rows = np.eye(len(names), dtype=np.float32)
    composition = mm.Composition(names, rows, (0.0,) * len(names), shares={"composed 2": 0.5, "prompt 2": 0.5})
    knobs = WeightControls(alpha_image=0.9, alpha_text=0.9, beta=0.6, prompt=0.3, avoid=-1.5)
    assert_near(WeightControls.of(weigh_by_controls(composition, knobs)), knobs)
    doubled = dataclasses.replace(
        weigh_by_controls(composition, knobs), weights=tuple(2 * w for w in weigh_by_controls(composition, knobs).weights)
    )
    assert_near(WeightControls.of(doubled), knobs)
    assert WeightControls.of(composition) is None
    assert WeightControls.of(mm.Composition(("image",), rows[:1], (1.0,))) is None
    cancel = composition.weighted({"image": 1, "text": -2, "composed": 1})
    assert WeightControls.of(cancel) is None


def test_what_the_knobs_do_not_weigh_stays_automatic(shop: PageService) -> None:
    asked = {"ask": {"prompt": "a dress without stripes"}}
    automatic, set_ = (shop.view(PageRequest.model_validate(asked | more)) for more in ({}, {"knobs": KNOBS}))
    assert set_.now == automatic.now
    assert not set_.tunable
    assert automatic.now.weights["avoid"] < 0


def test_what_the_gallery_does_not_have_is_said(shop: PageService) -> None:
    asked = [{"reference_id": shop.service.retriever.gallery.ids[5]}, {"prompt": "refrigerator"}]
    there, absent = (shop.view(PageRequest.model_validate({"ask": ask})).now for ask in asked)
    assert there.has_match
    assert not absent.has_match
    assert absent.cards


def test_looks_of_earlier_links_are_read() -> None:
    assert PageRequest().knobs == "auto"
    assert PageRequest().beside is None
    assert PageRequest.model_validate({"knobs": KNOBS | {"prompt": 0.5}, "beside": KNOBS}).knobs == WeightControls(
        **KNOBS, prompt=0.5
    )
    assert PageRequest.model_validate({"knobs": KNOBS, "beside": "auto"}).beside == "auto"
    for wrong in ({"knobs": "base"}, {"knobs": {"beta": 2}}, {"beside": "none"}):
        with pytest.raises(ValueError, match=r"knobs|beside"):
            PageRequest.model_validate(wrong)


def test_a_moved_knob_encodes_nothing(shop: PageService, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.view(look(shop))
    monkeypatch.setattr(shop.service.retriever, "compose_requests", lambda _: pytest.fail("composed again"))
    assert shop.view(look(shop, knobs=KNOBS | {"beta": 0.1})).now.cards
    with pytest.raises(pytest.fail.Exception):
        shop.view(PageRequest.model_validate({"ask": {"prompt": "another"}}))


def test_what_is_remembered_is_forgotten_when_the_gallery_changes(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    shop = PageService(AppContext.of(mm.Retriever(gallery, encoder), Limits()))
    asked = PageRequest.model_validate({"ask": {"prompt": "a red dress"}})
    best = shop.view(asked).now.cards[0].id
    gallery.delete([best])
    assert best not in ids(shop.view(asked).now)


def test_a_view_is_of_one_moment(tmp_path: Path, encoder: mm.Encoder, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one replaces an item between scoring and ranking: as many items as before, and other rows."""
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    shop = PageService(AppContext.of(mm.Retriever(gallery, encoder), Limits()))
    score, meanwhile = shop.service.score, [gallery.ids[0]]

    def and_then_another_writes(ask: object) -> object:
        scored = score(ask)  # type: ignore[arg-type]
        if meanwhile:
            gallery.delete([meanwhile.pop()])
            gallery.add_vectors(["new"], np.ones((1, gallery.dim)))
        return scored

    monkeypatch.setattr(shop.service, "score", and_then_another_writes)
    view = shop.view(PageRequest.model_validate({"ask": {"prompt": "a red dress"}, "shown": 60}))
    ranking = mm.Retriever(gallery, encoder).search(prompt="a red dress", k=60)
    assert sorted(ids(view.now)) == sorted(ranking.ids)
    assert all(card.score == next(hit.score for hit in ranking if hit.id == card.id) for card in view.now.cards)


@pytest.mark.parametrize("weights", ["base", "balanced", {"image": 0.3, "prompt": 1 / 3, "composed": 0.77}])
def test_weights_of_a_request_hold_on_the_page_to_the_last_digit(shop: PageService, weights: object) -> None:
    asked = named(shop, {"reference_id": 5, "prompt": "in red"}) | {"weights": weights}
    ranking = shop.service.retriever.search(**asked, k=60)  # type: ignore[arg-type]
    now = shop.view(PageRequest.model_validate({"ask": asked, "shown": 60})).now
    scores = {hit.id: (hit.rank, hit.score, hit.contributions) for hit in ranking}
    assert now.weights == ranking.weights
    for card in now.cards:
        rank, score, contributions = scores[card.id]
        assert (card.rank, card.score, card.gave) == (rank, score, {name: contributions[name] for name in card.gave})
    assert now.knobs is not None
    by_hand = shop.view(PageRequest.model_validate({"ask": asked, "shown": 60, "knobs": now.knobs.model_dump()})).now
    expected = shop.service.retriever.search(**asked | {"k": 60, "weights": now.knobs.weights})  # type: ignore[arg-type]
    assert [(card.id, card.score) for card in by_hand.cards] == [
        (hit.id, hit.score) for hit in expected if hit.id in {card.id for card in by_hand.cards}
    ]


def test_without_a_question_some_items_are_shown(shop: PageService) -> None:
    one, other = (shop.view(PageRequest(seed=seed)).now for seed in (1, 2))
    assert len(one.cards) == 24
    assert ids(one) != ids(other)
    assert ids(one) == ids(shop.view(PageRequest(seed=1)).now)
    assert one.cards[0].rank is None
    red = shop.view(PageRequest.model_validate({"filters": [{"field": "colour", "any_of": ["red"]}]})).now
    assert red.searched == len(red.cards) == sum("red-" in id_ for id_ in shop.service.retriever.gallery.ids)
    assert red.hidden == {"hidden by the filter": 60 - red.searched}


def test_two_settings_stand_side_by_side(shop: PageService) -> None:
    other = KNOBS | {"beta": 0.0}
    view = shop.view(look(shop, beside=other))
    assert view.beside is not None
    assert ids(view.beside) == ids(shop.view(look(shop, knobs=other)).now) != ids(view.now)
    assert view.beside.why is None
    automatic = shop.view(look(shop, knobs="auto")).now
    assert shop.view(look(shop, beside="auto")).beside == automatic
    assert shop.view(look(shop)).beside is None


def test_weak_matches_lie_nearer_to_the_average_than_to_the_best(shop: PageService) -> None:
    view = shop.view(look(shop, shown=60))
    composition = weigh_by_controls(shop.service.retriever.compose(None, "in red", reference_id=shop.service.retriever.gallery.ids[5]), WeightControls(**KNOBS))  # fmt: skip
    scores = shop.service.retriever.gallery.vectors().astype(float) @ composition.vector
    floor = (view.now.cards[0].score + scores.mean()) / 2
    assert {card.id for card in view.now.cards if card.weak} == {
        card.id for card in view.now.cards if card.score < floor - 1e-6
    }
    assert any(card.weak for card in view.now.cards)
    assert not view.now.cards[0].weak


@pytest.mark.parametrize("knobs", ["auto", KNOBS])
def test_without_a_good_match_all_matches_are_weak(shop: PageService, knobs: object) -> None:
    """A filter leaves only what is further away than the gallery's average item."""
    whole = shop.view(look(shop, knobs=knobs, shown=60)).now
    assert 0 < sum(card.weak for card in whole.cards) < len(whole.cards)
    last = whole.cards[-1]
    assert last.score is not None
    price = last.fields.get("price")
    where = f"colour = '{last.fields['colour']}' AND price IS " + ("NULL" if price is None else str(price))
    left = shop.view(PageRequest.model_validate({"ask": look(shop).ask.model_dump() | {"where": where}, "knobs": knobs})).now
    assert left.cards
    assert all(card.weak for card in left.cards)


def test_near_copies_lie_under_the_first_of_them() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 1, 0, 2, 1, 0]]
    rows[5] = [MIN_COPY_SCORE, np.sqrt(1 - MIN_COPY_SCORE**2), 0, 0]
    shown = stack_copies([Card(id=name, name=name) for name in "abcdef"], rows)
    assert [(card.id, card.copies) for card in shown] == [("a", ["c", "f"]), ("b", ["e"]), ("d", [])]


def test_words_to_try_are_new_and_belong_to_the_picture(shop: PageService) -> None:
    words = shop.suggestions(look(shop))
    caption = shop.view(look(shop)).words["text"]
    assert 4 <= len(words) <= 8
    assert len(set(words)) == len(words)
    assert not [word for word in words if f" {word} " in f" {caption} "]
    assert shop.suggestions(PageRequest.model_validate({"ask": {"prompt": "in red"}})) == []


def test_uploads_and_parts_of_them_are_references(shop: PageService, photos: Path) -> None:
    file = sorted(photos.rglob("*.png"))[3]
    token = shop.uploads.add(file.read_bytes())
    whole = shop.view(PageRequest.model_validate({"ask": {"upload": token}}))
    assert whole.now.cards[0].id == file.name
    assert file.name not in ids(
        shop.view(PageRequest.model_validate({"ask": {"upload": token, "exclude_reference": True}})).now
    )
    part = shop.view(PageRequest.model_validate({"ask": {"upload": token, "region": [0, 0, 0.5, 0.5]}}))
    assert ids(part.now) != ids(whole.now)
    with pytest.raises(ExpiredError, match="not stored any more"):
        shop.view(PageRequest.model_validate({"ask": {"upload": "0" * 32}}))


def test_facets_say_what_fields_hold(shop: PageService) -> None:
    start = shop.start()
    colour, price = start["facets"]
    assert colour["field"] == "colour"
    assert sum(count for _, count in colour["choices"]) == 60
    assert (price["lowest"], price["highest"]) == (1.5, 59 * 1.5)
    assert {name: start["setting"][name] for name in KNOBS} == KNOBS
    assert WeightControls(**start["base"]) == WeightControls(alpha_image=1, alpha_text=1, beta=1, prompt=0)
    assert start["published"]["ldre"] == {"alpha_image": 1.4, "alpha_text": 1.4, "beta": 0.75, "prompt": 0.0}


@pytest.mark.parametrize(
    ("wanted", "where", "expression"),
    [
        ([], None, None),
        ([], "price < 3", "price < 3"),
        ([{"field": "colour", "any_of": ["red", "o'b"]}], None, "fields.colour IN ('red', 'o''b')"),
        ([{"field": 'a"b', "at_least": 1, "at_most": 2.5}], None, 'fields."a""b" >= 1.0 AND fields."a""b" <= 2.5'),
        ([{"field": "price", "at_most": 9}], "colour = 'red' OR 1", "fields.price <= 9.0 AND (colour = 'red' OR 1)"),
    ],
)
def test_filters_become_one_expression(wanted: list[dict[str, object]], where: str | None, expression: str | None) -> None:
    made = filters.expression([filters.FieldFilter.model_validate(one) for one in wanted], read_filter(where))
    assert made == read_filter(expression)


def test_filters_hold(shop: PageService) -> None:
    filtered = [{"field": "colour", "any_of": ["red", "navy"]}, {"field": "price", "at_least": 10}]
    view = shop.view(look(shop, filters=filtered, shown=60))
    assert view.now.cards
    for id_ in ids(view.now):
        fields = shop.service.item(id_).fields
        assert fields["colour"] in ("red", "navy")
        assert fields["price"] >= 10
    assert view.now.hidden["hidden by the filter"] == 60 - view.now.searched - view.now.hidden.get("excluded", 0)


def test_a_whole_ranking_is_a_file(shop: PageService) -> None:
    asked = look(shop)
    made = {form: shop.export(asked, form) for form in exports.ExportFormat}
    rows = list(csv.DictReader(io.StringIO(made[exports.ExportFormat.CSV].content.decode("utf-8-sig"))))
    told = json.loads(made[exports.ExportFormat.JSON].content)
    assert len(rows) == len(told["hits"]) == 59
    assert [row["id"] for row in rows] == [hit["id"] for hit in told["hits"]]
    assert float(rows[0]["score"]) == told["hits"][0]["score"] == shop.view(asked).now.cards[0].score
    assert sum(told["hits"][0]["contributions"].values()) == pytest.approx(told["hits"][0]["score"])
    with zipfile.ZipFile(io.BytesIO(made[exports.ExportFormat.ZIP].content)) as file:
        assert len(file.namelist()) == 60
        assert file.namelist()[0].startswith("001-")
        assert Image.open(file.open(file.namelist()[0])).format == "JPEG"
    assert "path" not in told["hits"][0]
    assert told["why"] is None
    automatic = look(shop, knobs="auto")
    said = json.loads(shop.export(automatic, exports.ExportFormat.JSON).content)
    assert said["hits"][0]["score"] == shop.view(automatic).now.cards[0].score
    assert said["why"] == shop.view(automatic).now.why
    assert said["caption"] == shop.view(automatic).words["text"]


def test_a_zip_has_a_cap_and_a_table_runs_nothing(shop: PageService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "ZIPPED", 3)
    with zipfile.ZipFile(io.BytesIO(shop.export(look(shop), exports.ExportFormat.ZIP).content)) as file:
        assert len(file.namelist()) == 4
    hit = mm.Hit(1, "=cmd()", 0.5, {"image": 0.5})
    ranking = mm.Ranking((hit,), 1, 1, {"image": 1.0})
    table = exports.export(ranking, [{"x": "@run"}], exports.ExportFormat.CSV, lambda _: b"").content.decode("utf-8-sig")
    assert table.splitlines()[1] == "1,'=cmd(),0.5,0.5,'@run"


def test_names_are_said_as_people_would() -> None:
    assert readable_name("summer/red-dress_7.png") == "red dress 7"
    assert readable_name("---") == "---"


def test_no_filter_asks_where_files_lie() -> None:
    for name in ("path", "Source", "STAMP"):
        with pytest.raises(ValueError, match="tells where files are"):
            filters.FieldFilter(field=name, any_of=["/home"])
