"""The page without a browser: from a request to a view, filters, suggestions, files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from demo.app import PAGE_FOLDER
from demo.page_service import MIN_COPY_SCORE, PageService, stack_copies, weigh_by_controls
from demo.schemas import Card, FieldFilter, PageRequest, ResultColumn, WeightControls, caption_origin, combine_filters
from mmretrieve.composition import Caption
from mmretrieve.errors import ExpiredError, OptionError
from mmretrieve.filters import read_filter
from mmretrieve.ranking import files
from mmretrieve.server.context import AppContext
from mmretrieve.server.limits import Limits
from mmretrieve.server.schemas import HitResponse, RankingResponse, SearchResponse
from mmretrieve.sources.base import SourceItem
from mmretrieve.sources.location import Location

CONTROLS = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
PAGE_SIZE = 24


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
def page(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> PageService:
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("page") / "shop.gallery", encoder=encoder, setting=mm.PDV(**CONTROLS))
    gallery.add(Priced(photos))
    return PageService(AppContext.of(mm.Retriever(gallery, encoder), Limits()))


def make_request(page: PageService, **more: object) -> PageRequest:
    query = {"reference_id": page.service.retriever.gallery.ids[5], "prompt": "in red", "exclude_reference": True}
    return PageRequest.model_validate(query | {"controls": CONTROLS, "k": PAGE_SIZE} | more)


QUERIES: list[dict[str, object]] = [
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


def with_ids(page: PageService, query: dict[str, object]) -> dict[str, object]:
    """The query with ids of items in the place of their numbers."""
    all_ids = page.service.retriever.gallery.ids
    numbers = {name: query[name] for name in ("reference_id", "exclude") if name in query}
    return query | {name: [all_ids[at] for at in np.atleast_1d(several)] for name, several in numbers.items()}


def ids(column: object) -> list[str]:
    return [id_ for card in column.cards for id_ in (card.id, *card.copies)]  # type: ignore[attr-defined]


def test_a_view_equals_a_search_with_the_same_controls(page: PageService) -> None:
    retriever = page.service.retriever
    for beta in (0.0, 0.3, 1.0):
        view = page.view(make_request(page, controls=CONTROLS | {"beta": beta}))
        query = {"reference_id": retriever.gallery.ids[5], "prompt": "in red", "exclude_reference": True, "k": 24}
        ranking = retriever.search(**query, **(CONTROLS | {"beta": beta}))
        assert sorted(ids(view.results)) == sorted(ranking.ids)
        scores = {hit.id: (hit.rank, hit.score) for hit in ranking}
        assert all((card.rank, card.score) == scores[card.id] for card in view.results.cards)
        assert view.results.hidden == {"excluded": 1}
    with_prompt = page.view(make_request(page, controls=CONTROLS | {"prompt": 1.5}))
    weights = WeightControls(**CONTROLS, prompt=1.5).weights
    expected = retriever.search(**query, weights=weights)
    assert [card.score for card in with_prompt.results.cards] == [
        hit.score for hit in expected if hit.id in {card.id for card in with_prompt.results.cards}
    ]
    assert set(with_prompt.results.cards[0].contributions) == {"image", "text", "composed", "prompt"}


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_by_default_a_view_equals_an_automatic_search(page: PageService, query: dict[str, object]) -> None:
    request = with_ids(page, query)
    ranking = page.service.retriever.search(**request, k=60)  # type: ignore[arg-type]
    view = page.view(PageRequest.model_validate(request | {"k": 60}))
    scores = {hit.id: (hit.rank, hit.score) for hit in ranking}
    assert sorted(ids(view.results)) == sorted(ranking.ids)
    assert [(card.rank, card.score) for card in view.results.cards] == [scores[card.id] for card in view.results.cards]
    assert (view.results.why, view.results.answerable, view.results.weights) == (
        ranking.why,
        ranking.answerable,
        ranking.weights,
    )
    assert view.words == ranking.words


@pytest.mark.parametrize("decay", [0, 0.5, 1])
def test_turns_equal_a_session(page: PageService, decay: float) -> None:
    turns = [
        with_ids(page, {"reference_id": 5}) | {"prompt": "in red"},
        {"prompt": ["longer", "striped"], "strength": [1, 0.5], "more_like": [page.service.retriever.gallery.ids[8]]},
        with_ids(page, {"reference_id": 9}) | {"prompt": "with dots", "exclude_reference": True, "min_score": None, "k": 60},
    ]
    session = page.service.retriever.session(decay=decay)
    for turn in turns:
        ranking = session.search(**turn)  # type: ignore[arg-type]
    *earlier, last = turns
    view = page.view(PageRequest.model_validate(last | {"turns": earlier, "decay": decay}))
    scores = {hit.id: hit.score for hit in ranking}
    assert [card.score for card in view.results.cards] == pytest.approx(
        [scores[card.id] for card in view.results.cards], abs=1e-6
    )
    assert sorted(ids(view.results)) == sorted(ranking.ids)
    assert view.words == ranking.words


def test_turns_that_do_not_fit_are_one_error(page: PageService) -> None:
    with pytest.raises(OptionError, match="prompt must have up to 16 values, got 17"):
        page.view(PageRequest.model_validate({"prompt": "a", "turns": [{"prompt": [f"b {i}" for i in range(16)]}]}))


def test_queries_with_other_captions_are_scored_again(page: PageService) -> None:
    one, other = (make_request(page, controls="auto") for _ in range(2))
    other.caption = ["a photo of a hat"]
    assert page.view(one).words["text"] != page.view(other).words["text"] == "a photo of a hat"
    assert ids(page.view(one).results) != ids(page.view(other).results)


def test_a_caption_says_where_it_comes_from(page: PageService) -> None:
    assert caption_origin(mm.Composition(("text",), np.eye(1, 4, dtype=np.float32), (1.0,), {"text": "a hat"})) == {}
    guessed = Caption("a hat", trust=0.4, source="tagger")
    composition = mm.Composition(("text",), np.eye(1, 4, dtype=np.float32), (1.0,), {"text": guessed})
    assert caption_origin(composition) == {"caption_source": "tagger", "caption_trust": 0.4}
    request = make_request(page)
    request.caption = ["a photo of a hat"]
    assert page.view(request).caption_source == "given"


def test_controls_of_automatic_weights_rank_alike(page: PageService) -> None:
    for query in ({"prompt": "in red"}, {"prompt": "in red without stripes"}, {"prompt": ["in red", "with long sleeves"]}):
        request = with_ids(page, {"reference_id": 5} | query) | {"k": 60}
        automatic = page.view(PageRequest.model_validate(request)).results
        assert automatic.controls is not None
        moved = page.view(PageRequest.model_validate(request | {"controls": automatic.controls})).results
        ranks = [{card.id: card.rank for card in one.cards} for one in (automatic, moved)]
        both = sorted(set(ranks[0]) & set(ranks[1]))
        assert np.corrcoef([[rank[id_] for id_ in both] for rank in ranks])[0, 1] > 0.98
        assert moved.weights["composed"] == pytest.approx(automatic.controls.weights["composed"])
        assert moved.why is None


def assert_near(one: WeightControls | None, other: WeightControls) -> None:
    """Equal but for the rounding of floating-point arithmetic."""
    assert one is not None
    assert one.model_dump() == pytest.approx(other.model_dump(), abs=1e-12)


def test_controls_reproduce_the_weights_they_came_from() -> None:
    names = ("image", "text", "composed", "prompt", "composed 2", "prompt 2", "avoid", "avoid 2")
    rows = np.eye(len(names), dtype=np.float32)
    composition = mm.Composition(names, rows, (0.0,) * len(names), shares={"composed 2": 0.5, "prompt 2": 0.5})
    controls = WeightControls(alpha_image=0.9, alpha_text=0.9, beta=0.6, prompt=0.3, avoid=-1.5)
    assert_near(WeightControls.of(weigh_by_controls(composition, controls)), controls)
    doubled = dataclasses.replace(
        weigh_by_controls(composition, controls), weights=tuple(2 * w for w in weigh_by_controls(composition, controls).weights)
    )
    assert_near(WeightControls.of(doubled), controls)
    assert WeightControls.of(composition) is None
    assert WeightControls.of(mm.Composition(("image",), rows[:1], (1.0,))) is None
    cancel = composition.weighted({"image": 1, "text": -2, "composed": 1})
    assert WeightControls.of(cancel) is None


def test_a_query_without_pdv_terms_stays_automatic(page: PageService) -> None:
    request = {"prompt": "a dress without stripes"}
    automatic, by_hand = (page.view(PageRequest.model_validate(request | more)) for more in ({}, {"controls": CONTROLS}))
    assert by_hand.results == automatic.results
    assert not by_hand.adjustable
    assert automatic.results.weights["avoid"] < 0


def test_a_query_without_a_match_is_reported(page: PageService) -> None:
    queries = [{"reference_id": page.service.retriever.gallery.ids[5]}, {"prompt": "refrigerator"}]
    present, absent = (page.view(PageRequest.model_validate(query)).results for query in queries)
    assert present.has_match
    assert not absent.has_match
    assert absent.cards


def test_every_front_end_has_all_fields_of_a_ranking() -> None:
    ranking = mm.Ranking(
        (mm.Hit(1, "a.jpg", 0.2, {"image": 0.2}, "/a.jpg"),), k=5, searched=1, weights={"image": 1.0}, answerable=0.1
    )
    names = {field.name for field in dataclasses.fields(mm.Ranking)} - {"gallery"} | {"caption", "has_match"}
    assert set(ranking.to_dict()) == names
    assert set(RankingResponse.model_fields) == set(ranking.query) == names - {"hits"}
    response, column = SearchResponse.of(ranking, ["a"], [{"colour": "red"}], 0.5), ResultColumn.of(ranking, [])
    assert json.loads(response.model_dump_json()) == {
        **ranking.query,
        "hits": [
            {"rank": 1, "id": "a.jpg", "score": 0.2, "title": "a", "contributions": {"image": 0.2}, "fields": {"colour": "red"}}
        ],
        "asked": 5,
        "seconds": 0.5,
    }
    assert json.loads(column.model_dump_json()) == {**ranking.query, "cards": [], "controls": None}
    assert set(HitResponse.model_fields) == set(ranking[0].to_dict()) - {"path"} | {"fields", "title"}


def test_the_state_of_the_page_has_the_names_of_the_request() -> None:
    script = (PAGE_FOLDER / "state.js").read_text(encoding="utf-8")
    state = set(re.findall(r"^  (\w+): \[", script.partition("const FIELDS = {")[2].partition("\n};")[0], re.MULTILINE))
    converted = re.search(r"const \{ turns, sort, ([\w, ]+), \.\.\.unchanged \} = state", script)
    assert converted
    assert set(converted[1].split(", ")) < state, "the fields that are sent in some cases only"
    assert {"turns", "decay", "sort", "k", "where"} < state
    assert state - {"sort"} < set(PageRequest.model_fields)


def test_settings_are_validated() -> None:
    assert PageRequest().controls == "auto"
    assert PageRequest().comparison is None
    assert PageRequest.model_validate(
        {"controls": CONTROLS | {"prompt": 0.5}, "comparison": CONTROLS}
    ).controls == WeightControls(**CONTROLS, prompt=0.5)
    assert PageRequest.model_validate({"controls": CONTROLS, "comparison": "auto"}).comparison == "auto"
    for wrong in ({"controls": "base"}, {"controls": {"beta": 2}}, {"comparison": "none"}):
        with pytest.raises(ValueError, match=r"controls|comparison"):
            PageRequest.model_validate(wrong)


def test_a_moved_control_encodes_nothing(page: PageService, monkeypatch: pytest.MonkeyPatch) -> None:
    page.view(make_request(page))
    monkeypatch.setattr(page.service.retriever, "compose_requests", lambda _: pytest.fail("composed again"))
    assert page.view(make_request(page, controls=CONTROLS | {"beta": 0.1})).results.cards
    with pytest.raises(pytest.fail.Exception):
        page.view(PageRequest.model_validate({"prompt": "another"}))


def test_scores_are_computed_again_when_the_gallery_changes(tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    page = PageService(AppContext.of(mm.Retriever(gallery, encoder), Limits()))
    request = PageRequest.model_validate({"prompt": "a red dress"})
    best = page.view(request).results.cards[0].id
    gallery.delete([best])
    assert best not in ids(page.view(request).results)


def test_a_view_is_consistent(tmp_path: Path, encoder: mm.Encoder, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item is replaced between scoring and ranking: the number of items stays, the rows change."""
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    page = PageService(AppContext.of(mm.Retriever(gallery, encoder), Limits()))
    score, meanwhile = page.service.score, [gallery.ids[0]]

    def score_and_change(request: object) -> object:
        scored = score(request)  # type: ignore[arg-type]
        if meanwhile:
            gallery.delete([meanwhile.pop()])
            gallery.add_vectors(["new"], np.ones((1, gallery.dim)))
        return scored

    monkeypatch.setattr(page.service, "score", score_and_change)
    view = page.view(PageRequest.model_validate({"prompt": "a red dress"} | {"k": 60}))
    ranking = mm.Retriever(gallery, encoder).search(prompt="a red dress", k=60)
    assert sorted(ids(view.results)) == sorted(ranking.ids)
    assert all(card.score == next(hit.score for hit in ranking if hit.id == card.id) for card in view.results.cards)


@pytest.mark.parametrize("weights", ["base", "balanced", {"image": 0.3, "prompt": 1 / 3, "composed": 0.77}])
def test_weights_of_a_request_hold_on_the_page_to_the_last_digit(page: PageService, weights: object) -> None:
    request = with_ids(page, {"reference_id": 5, "prompt": "in red"}) | {"weights": weights}
    ranking = page.service.retriever.search(**request, k=60)  # type: ignore[arg-type]
    now = page.view(PageRequest.model_validate(request | {"k": 60})).results
    scores = {hit.id: (hit.rank, hit.score, hit.contributions) for hit in ranking}
    assert now.weights == ranking.weights
    for card in now.cards:
        rank, score, contributions = scores[card.id]
        assert (card.rank, card.score, card.contributions) == (
            rank,
            score,
            {name: contributions[name] for name in card.contributions},
        )
    assert now.controls is not None
    by_hand = page.view(PageRequest.model_validate(request | {"k": 60, "controls": now.controls.model_dump()})).results
    expected = page.service.retriever.search(**request | {"k": 60, "weights": now.controls.weights})  # type: ignore[arg-type]
    assert [(card.id, card.score) for card in by_hand.cards] == [
        (hit.id, hit.score) for hit in expected if hit.id in {card.id for card in by_hand.cards}
    ]


def test_without_a_query_a_sample_is_shown(page: PageService) -> None:
    one, other = (page.view(PageRequest.model_validate({"seed": seed, "k": PAGE_SIZE})).results for seed in (1, 2))
    assert len(one.cards) == 24
    assert ids(one) != ids(other)
    assert ids(one) == ids(page.view(PageRequest.model_validate({"seed": 1, "k": PAGE_SIZE})).results)
    assert one.cards[0].rank is None
    red = page.view(PageRequest.model_validate({"k": PAGE_SIZE, "filters": [{"field": "colour", "any_of": ["red"]}]})).results
    assert red.searched == len(red.cards) == sum("red-" in id_ for id_ in page.service.retriever.gallery.ids)
    assert red.hidden == {"hidden by the filter": 60 - red.searched}


def test_two_settings_are_compared(page: PageService) -> None:
    other = CONTROLS | {"beta": 0.0}
    view = page.view(make_request(page, comparison=other))
    assert view.comparison is not None
    assert ids(view.comparison) == ids(page.view(make_request(page, controls=other)).results) != ids(view.results)
    assert view.comparison.why is None
    automatic = page.view(make_request(page, controls="auto")).results
    assert page.view(make_request(page, comparison="auto")).comparison == automatic
    assert page.view(make_request(page)).comparison is None


def test_weak_matches_score_closer_to_the_average_than_to_the_best(page: PageService) -> None:
    view = page.view(make_request(page, k=60))
    composition = weigh_by_controls(page.service.retriever.compose(None, "in red", reference_id=page.service.retriever.gallery.ids[5]), WeightControls(**CONTROLS))  # fmt: skip
    scores = page.service.retriever.gallery.vectors().astype(float) @ composition.vector
    limit = (view.results.cards[0].score + scores.mean()) / 2
    assert {card.id for card in view.results.cards if card.weak} == {
        card.id for card in view.results.cards if card.score < limit - 1e-6
    }
    assert any(card.weak for card in view.results.cards)
    assert not view.results.cards[0].weak


@pytest.mark.parametrize("controls", ["auto", CONTROLS])
def test_without_a_good_match_all_matches_are_weak(page: PageService, controls: object) -> None:
    """A filter leaves only what is further away than the gallery's average item."""
    whole = page.view(make_request(page, controls=controls, k=60)).results
    assert 0 < sum(card.weak for card in whole.cards) < len(whole.cards)
    last = whole.cards[-1]
    assert last.score is not None
    price = last.fields.get("price")
    where = f"colour = '{last.fields['colour']}' AND price IS " + ("NULL" if price is None else str(price))
    remaining = page.view(
        PageRequest.model_validate(make_request(page).model_dump() | {"where": where, "controls": controls})
    ).results
    assert remaining.cards
    assert all(card.weak for card in remaining.cards)


def test_near_duplicates_are_stacked_under_the_first() -> None:
    rows = np.eye(4, dtype=np.float32)[[0, 1, 0, 2, 1, 0]]
    rows[5] = [MIN_COPY_SCORE, np.sqrt(1 - MIN_COPY_SCORE**2), 0, 0]
    shown = stack_copies([Card(id=name, title=name) for name in "abcdef"], rows)
    assert [(card.id, card.copies) for card in shown] == [("a", ["c", "f"]), ("b", ["e"]), ("d", [])]


def test_uploads_and_regions_are_references(page: PageService, photos: Path) -> None:
    file = sorted(photos.rglob("*.png"))[3]
    token = page.uploads.add(file.read_bytes())
    whole = page.view(PageRequest.model_validate({"upload": token}))
    assert whole.results.cards[0].id == file.name
    assert file.name not in ids(page.view(PageRequest.model_validate({"upload": token, "exclude_reference": True})).results)
    part = page.view(PageRequest.model_validate({"upload": token, "region": [0, 0, 0.5, 0.5]}))
    assert ids(part.results) != ids(whole.results)
    with pytest.raises(ExpiredError, match="not stored any more"):
        page.view(PageRequest.model_validate({"upload": "0" * 32}))


def test_facets_describe_the_fields(page: PageService) -> None:
    start = page.start()
    colour, price = start["facets"]
    assert colour["field"] == "colour"
    assert sum(count for _, count in colour["choices"]) == 60
    assert (price["lowest"], price["highest"]) == (1.5, 59 * 1.5)
    assert {name: start["setting"][name] for name in CONTROLS} == CONTROLS
    assert WeightControls(**start["base"]) == WeightControls(alpha_image=1, alpha_text=1, beta=1, prompt=0)
    assert start["published"]["ldre"] == {"alpha_image": 1.4, "alpha_text": 1.4, "beta": 0.75, "prompt": 0.0}


@pytest.mark.parametrize(
    ("filters", "where", "expression"),
    [
        ([], None, None),
        ([], "price < 3", "price < 3"),
        ([{"field": "colour", "any_of": ["red", "o'b"]}], None, "fields.colour IN ('red', 'o''b')"),
        ([{"field": 'a"b', "at_least": 1, "at_most": 2.5}], None, 'fields."a""b" >= 1.0 AND fields."a""b" <= 2.5'),
        ([{"field": "price", "at_most": 9}], "colour = 'red' OR 1", "fields.price <= 9.0 AND (colour = 'red' OR 1)"),
    ],
)
def test_filters_become_one_expression(filters: list[dict[str, object]], where: str | None, expression: str | None) -> None:
    made = combine_filters([FieldFilter.model_validate(one) for one in filters], read_filter(where))
    assert made == read_filter(expression)


def test_filters_apply(page: PageService) -> None:
    filtered = [{"field": "colour", "any_of": ["red", "navy"]}, {"field": "price", "at_least": 10}]
    view = page.view(make_request(page, filters=filtered, k=60))
    assert view.results.cards
    for id_ in ids(view.results):
        fields = page.service.item(id_).fields
        assert fields["colour"] in ("red", "navy")
        assert fields["price"] >= 10
    assert view.results.hidden["hidden by the filter"] == 60 - view.results.searched - view.results.hidden.get("excluded", 0)


def test_a_whole_ranking_is_exported(page: PageService) -> None:
    request = make_request(page)
    made = {form: page.export(request, form) for form in files.ExportFormat}
    rows = list(csv.DictReader(io.StringIO(made[files.ExportFormat.CSV].content.decode("utf-8-sig"))))
    document = json.loads(made[files.ExportFormat.JSON].content)
    assert len(rows) == len(document["hits"]) == 59
    assert [row["id"] for row in rows] == [hit["id"] for hit in document["hits"]]
    assert float(rows[0]["score"]) == document["hits"][0]["score"] == page.view(request).results.cards[0].score
    assert sum(document["hits"][0]["contributions"].values()) == pytest.approx(document["hits"][0]["score"])
    with zipfile.ZipFile(io.BytesIO(made[files.ExportFormat.ZIP].content)) as file:
        assert len(file.namelist()) == 60
        assert file.namelist()[0].startswith("001-")
        assert Image.open(file.open(file.namelist()[0])).format == "JPEG"
    assert "path" not in document["hits"][0]
    assert document["why"] is None
    automatic = make_request(page, controls="auto")
    document = json.loads(page.export(automatic, files.ExportFormat.JSON).content)
    assert document["hits"][0]["score"] == page.view(automatic).results.cards[0].score
    assert document["why"] == page.view(automatic).results.why
    assert document["caption"] == page.view(automatic).words["text"]


def test_a_zip_is_limited(page: PageService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ZIP_IMAGES", 3)
    with zipfile.ZipFile(io.BytesIO(page.export(make_request(page), files.ExportFormat.ZIP).content)) as file:
        assert len(file.namelist()) == 4


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =", "\ufeff=", "\u200b@", "\x00="]
)
def test_a_table_runs_no_formulas(start: str) -> None:
    text = f"{start}cmd()"
    ranking = mm.Ranking((mm.Hit(1, text, 0.5, {"image": 0.5}),), 1, 1, {"image": 1.0})
    fields = [{text: text, "harmless": "a=b"}]
    table = files.export(ranking, fields, files.ExportFormat.CSV, lambda _: b"").content.decode("utf-8-sig")
    header, row = csv.reader(io.StringIO(table, newline=""))
    assert sorted(header[4:]) == ["'" + text, "harmless"]
    assert dict(zip(header, row, strict=True)) == {
        "rank": "1", "id": "'" + text, "score": "0.5", "contribution image": "0.5", "'" + text: "'" + text, "harmless": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("separator", [";", "|", "\t", "\n"])
def test_a_table_runs_no_formulas_where_something_else_separates_columns(separator: str) -> None:
    ranking = mm.Ranking((mm.Hit(1, "a", 0.5, {"image": 0.5}),), 1, 1, {"image": 1.0})
    table = files.export(ranking, [{"title": f"Shirt{separator} =cmd()"}], files.ExportFormat.CSV, lambda _: b"")
    assert f"Shirt{separator}' =cmd()" in table.content.decode("utf-8-sig")


def test_what_one_does_not_want_is_not_shown(page: PageService) -> None:
    query = with_ids(page, {"reference_id": 5}) | {"exclude_reference": True, "k": 60}
    disliked = ids(page.view(PageRequest.model_validate(query)).results)[3]
    results = page.view(PageRequest.model_validate(query | {"less_like": disliked})).results
    assert disliked not in ids(results)
    assert results.hidden == {"excluded": 2}


def test_a_chosen_method_waits_for_a_reference_and_a_prompt(page: PageService) -> None:
    method = {"composer": "sum", "rule": "product", "k": 60}
    for query in ({"prompt": "a red dress"}, with_ids(page, {"reference_id": 5}), {}):
        plain, chosen = (page.view(PageRequest.model_validate(query | more | {"k": 60})) for more in ({}, method))
        assert chosen.results == plain.results
    both = page.view(PageRequest.model_validate(with_ids(page, {"reference_id": 5}) | {"prompt": "in red"} | method))
    assert (both.results.rule, set(both.results.weights)) == ("product", {"image", "prompt"})
    assert page.start()["composers"] == page.service.retriever.composers


def test_private_columns_cannot_be_filtered() -> None:
    for name in ("path", "Source", "STAMP"):
        with pytest.raises(ValueError, match="tells where files are"):
            FieldFilter(field=name, any_of=["/home"])
