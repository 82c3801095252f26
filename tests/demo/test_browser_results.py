"""The results and the panels of the page in a real browser: cards, details, fine-tuning, comparison, filters."""

from __future__ import annotations

import csv
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import (
    DemoServer,
    Opener,
    cards,
    choose_reference,
    controls,
    fine_tune,
    is_automatic,
    search,
    wait_for_results,
    wardrobe,
)
from PIL import Image

import mmretrieve as mm
from demo.schemas import WeightControls
from mmretrieve.registry import RULES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> Iterator[DemoServer]:
    """A server with a gallery of sixty drawings that have a title, a number of their own and one price."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [
        f"{i},{file},Item No. {i},sku {i},10,{'red' if i % 2 else 'blue'}"
        for i, file in enumerate(sorted(photos.rglob("*.png")))
    ]
    (folder / "items.csv").write_text("\n".join(["id,image,title,sku,price,shade", *rows]))
    mm.Gallery.create(folder / "g", encoder=encoder).add(folder / "items.csv")
    served = DemoServer(str(folder / "g"))
    yield served
    served.stop()


def test_weights_are_automatic_until_set_and_can_be_again(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    assert is_automatic(page)
    reference = choose_reference(page)
    search(page, "in red without stripes")
    before, retriever = cards(page), wardrobe()
    ranking = retriever.search(reference_id=reference, prompt="in red without stripes", exclude_reference=True, k=24)
    assert ranking.why is not None
    assert f"automatic: {page.inner_text('#why')}".lower() == ranking.why.lower()
    assert "avoid: stripes" in page.inner_text("#prompt-line")
    nearest = WeightControls.of(retriever.weigh(retriever.compose(None, "in red without stripes", reference_id=reference)))
    assert nearest is not None
    assert controls(page)["alpha_text"] == pytest.approx(nearest.alpha_text, abs=0.03)
    assert "automatic" in page.locator("#pad .point").get_attribute("class")
    page.locator("#control-beta").focus()
    wait_for_results(page, lambda: page.keyboard.press("Home"))
    assert not is_automatic(page)
    assert cards(page) != before
    link = json.loads(urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query)["q"][0])
    assert link["controls"] == nearest.model_dump() | {"beta": 0}
    by_hand, again = cards(page), visit("/?" + urllib.parse.urlsplit(page.url).query)
    fine_tune(again)
    assert not is_automatic(again)
    assert cards(again) == by_hand
    wait_for_results(page, lambda: page.click("#automatic"))
    assert is_automatic(page)
    assert cards(page) == before
    assert "controls" not in page.url
    wait_for_results(page, lambda: page.click("#undo"))
    assert cards(page) == by_hand


def test_the_caption_can_be_edited(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    choose_reference(page)
    assert page.locator("#caption-line").is_hidden()
    search(page, "in red")
    generated, before = page.input_value("#caption"), cards(page)
    assert generated.startswith("a photo of")
    page.fill("#caption", "a photo of a hat")
    wait_for_results(page, lambda: page.press("#caption", "Enter"))
    assert page.inner_text("#caption-source") == "given by you"
    assert "hat" in page.inner_text("#rewritten-caption")
    assert cards(page) != before
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    fine_tune(again)
    assert again.input_value("#caption") == "a photo of a hat"
    assert cards(again) == cards(page)
    page.fill("#caption", "")
    wait_for_results(page, lambda: page.press("#caption", "Tab"))
    assert page.input_value("#caption") == generated
    assert cards(page) == before
    wait_for_results(again, lambda: again.click("#reset-caption"))
    assert again.input_value("#caption") == generated
    page.fill("#caption", "a photo of a hat")
    wait_for_results(page, lambda: page.press("#caption", "Tab"))
    choose_reference(page, 4)
    assert "hat" not in page.input_value("#caption")
    wait_for_results(page, lambda: page.locator("#current .card").nth(4).click(modifiers=["Shift"]))
    assert page.locator("#caption").get_attribute("readonly") is not None


def test_a_query_without_a_match_is_reported(visit: Opener) -> None:
    page = visit()
    assert page.locator("#no-match").is_hidden()
    choose_reference(page)
    assert page.locator("#no-match").is_hidden()
    wait_for_results(page, lambda: page.click("#new-search"))
    search(page, "refrigerator")
    assert page.inner_text("#no-match").startswith("No good match")
    assert len(cards(page)) > 0


def test_the_point_and_the_sliders_agree(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    choose_reference(page)
    search(page, "in red")
    start = controls(page)
    page.locator("#pad").scroll_into_view_if_needed()
    box, before = page.locator("#pad").bounding_box(), cards(page)
    scale = box["width"] / 350
    page.mouse.move(box["x"] + (64 + 186 * 0.2) * scale, box["y"] + (28 + 212 * (2 - 0.5) / 2.5) * scale)  # beta .2, gamma .5
    wait_for_results(page, page.mouse.down)
    page.mouse.up()
    page.wait_for_timeout(150)
    now = controls(page)
    assert now["beta"] == pytest.approx(0.2, abs=0.02)
    assert (1 - now["beta"]) * now["alpha_image"] + now["beta"] * now["alpha_text"] == pytest.approx(0.5, abs=0.03)
    assert now["alpha_image"] == now["alpha_text"]
    assert cards(page) != before
    page.locator("#control-beta").focus()
    wait_for_results(page, lambda: page.keyboard.press("End"))
    assert page.locator("#pad").get_attribute("aria-valuenow") == "1"
    x = float(page.locator("#pad .point").get_attribute("cx"))
    assert x == pytest.approx(250)
    page.locator("#pad").focus()
    wait_for_results(page, lambda: page.keyboard.press("ArrowLeft"))
    assert controls(page)["beta"] == 0.95
    wait_for_results(page, lambda: page.keyboard.press("Home"))
    assert is_automatic(page)
    assert controls(page) == start
    assert cards(page) == before


def test_presets_and_published_settings(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    choose_reference(page)
    search(page, "in red")
    seen = {tuple(cards(page))}
    for name in ("Base method", "Keep the image", "Follow the prompt"):
        wait_for_results(page, lambda name=name: page.get_by_role("button", name=name).click())
        assert page.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
        seen.add(tuple(cards(page)))
    assert len(seen) == 4
    wait_for_results(page, lambda: page.select_option("#published", label="pic2word"))
    assert controls(page) == {"beta": 0.85, "alpha_image": 1.2, "alpha_text": 1.0, "prompt": 0}
    wait_for_results(page, lambda: page.select_option("#published", label="this gallery"))
    assert controls(page) == {"beta": 0.75, "alpha_image": 1.4, "alpha_text": 1.2, "prompt": 0}
    assert page.locator(".weight").all_inner_texts() == ["image × 0.25", "text × −0.50", "composed × 1.25"]
    wait_for_results(page, lambda: page.get_by_role("button", name="Automatic").click())
    assert is_automatic(page)


def test_filters_minimum_score_and_sort(visit: Opener) -> None:
    page = visit(expected=("400",))
    reference = choose_reference(page)
    page.click("#filters-panel > summary")
    page.click("#facets [data-field=colour] summary")
    wait_for_results(page, lambda: page.check("#facets input[value=red]"))
    fields = "cards => cards.map(({card}) => card.fields)"
    assert {one["colour"] for one in page.eval_on_selector_all("#current .card", fields)} == {"red"}
    assert "hidden by filters" in page.inner_text("#status")
    wait_for_results(page, lambda: page.select_option("#sort", "kind"))
    kinds = [one["kind"] for one in page.eval_on_selector_all("#current .card", fields)]
    assert kinds == sorted(kinds)
    page.fill("#where", "kind = 'dress' AND")
    page.press("#where", "Tab")
    page.wait_for_selector("#error:not([hidden])")
    assert "where" in page.inner_text("#error")
    page.fill("#where", "kind = 'dress'")
    wait_for_results(page, lambda: page.press("#where", "Tab"))
    assert {one["kind"] for one in page.eval_on_selector_all("#current .card", fields)} == {"dress"}
    lowest = page.eval_on_selector_all("#current .card", "cards => cards.map(({card}) => card.score)")
    page.fill("#min-score", "5")
    wait_for_results(page, lambda: page.press("#min-score", "Tab"))
    assert "scores 5 or more" in page.inner_text("#status")
    assert page.locator("#other-sample").is_hidden()
    page.fill("#min-score", str(max(lowest) - 0.001))
    wait_for_results(page, lambda: page.press("#min-score", "Tab"))
    assert 1 <= len(cards(page)) < len(lowest)
    wait_for_results(page, lambda: page.click("#clear-filters"))
    assert "hidden" not in page.inner_text("#status")
    wait_for_results(page, lambda: page.select_option("#sort", ""))
    wait_for_results(page, lambda: page.uncheck("#exclude-reference"))
    assert cards(page)[0] == reference


def test_filters_speak_of_the_fields_of_the_gallery(visit: Opener, shop: DemoServer) -> None:
    page = visit(at=shop.address, expected=("400",))
    page.click("#filters-panel > summary")
    assert page.locator("#facets summary").all_inner_texts() == [
        "Shade"
    ]  # no facet of titles, of numbers of items, and of one price
    example = page.locator("#where").get_attribute("placeholder")
    assert example == "shade = 'blue'"
    page.fill("#where", example)
    wait_for_results(page, lambda: page.press("#where", "Tab"))
    assert page.eval_on_selector_all("#current .card", "cards => new Set(cards.map(({card}) => card.fields.shade)).size") == 1
    page.fill("#where", "shade = red")
    page.press("#where", "Tab")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == "where shade = red: no such column: red; put text in quotes: shade = 'red'"


def test_two_settings_that_differ_are_compared(visit: Opener) -> None:
    page = visit()
    reference = choose_reference(page)
    search(page, "in red")
    right = cards(page)
    wait_for_results(page, lambda: page.click("#compare"))
    assert page.inner_text("#compare-hint").startswith("The same query with two settings.")
    assert (page.inner_text("#pinned h2"), page.inner_text("#current h2")) == ("Left: base method", "Right: automatic")
    assert cards(page) == right
    assert cards(page, "#pinned") != right
    assert page.locator("#current .rank-change:not([hidden])").count() > 0
    wait_for_results(page, lambda: page.select_option("#left-setting", label="keep the image"))
    left = cards(page, "#pinned")
    assert page.inner_text("#pinned h2") == "Left: keep the image"
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    assert (cards(again, "#pinned"), cards(again)) == (left, right)
    assert again.input_value("#left-setting") == page.input_value("#left-setting")
    page.click("#right-setting")
    wait_for_results(page, lambda: page.get_by_role("button", name="Base method").click())
    assert page.inner_text("#current h2") == "Right: base method"
    assert cards(page, "#pinned") == left
    page.locator("#pinned .card").first.click()
    controls = {"beta": 0.1, "alpha_image": 1.4, "alpha_text": 1.4}
    ranking = wardrobe().search(reference_id=reference, prompt="in red", exclude_reference=True, **controls)
    assert f"composed\t{ranking.weights['composed']:.2f}" in page.inner_text("#details .reason")
    page.keyboard.press("Escape")
    wait_for_results(page, lambda: page.click("#compare"))
    assert page.locator("#pinned").is_hidden()
    wait_for_results(page, lambda: page.click("#compare"))
    assert (page.inner_text("#pinned h2"), page.inner_text("#current h2")) == ("Left: automatic", "Right: base method")


def test_method_and_rule_can_be_chosen(visit: Opener) -> None:
    page = visit()
    assert page.locator("#weights-panel").get_attribute("open") is None
    assert page.locator("#pad").is_hidden()
    fine_tune(page)
    methods = page.locator("#composer option").all_inner_texts()
    assert methods == ["automatic", *wardrobe().composers]
    assert "one-step" not in methods  # it needs a describer
    assert page.locator("#rule option").all_inner_texts() == ["automatic", *RULES.names]
    wait_for_results(page, lambda: page.select_option("#composer", "sum"))
    assert page.locator("#method-hint").is_visible()
    reference = choose_reference(page)
    search(page, "in red")
    assert page.locator("#method-hint").is_hidden()
    wait_for_results(page, lambda: page.select_option("#rule", "product"))
    ranking = wardrobe().search(
        reference_id=reference, prompt="in red", exclude_reference=True, k=24, composer="sum", rule="product"
    )
    shown = page.eval_on_selector_all("#current .card", "cards => cards.map(({card}) => [card.id, card.score])")
    assert shown == [[hit.id, hit.score] for hit in ranking if hit.id in cards(page)]
    assert page.inner_text("#setting") == "sum · product"
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    assert cards(again) == cards(page)
    wait_for_results(page, lambda: page.click("#new-search"))
    assert page.inner_text("#setting") == "automatic"


def test_the_point_never_covers_a_label(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    overlaps = page.evaluate("""() => {
      const labels = [...document.querySelectorAll('#pad text')].map(text => text.getBBox()), field = document.querySelector('#pad .field').getBBox();
      const radius = 11;  // with its outline
      return labels.filter(label => label.x < field.x + field.width + radius && label.x + label.width > field.x - radius
        && label.y < field.y + field.height + radius && label.y + label.height > field.y - radius).length;
    }""")
    assert overlaps == 0
    clipped = "[...document.querySelectorAll('#pad text')].filter(t => t.getBBox().x < 0 || t.getBBox().x + t.getBBox().width > 350).length"
    assert page.evaluate(clipped) == 0


def test_cards_show_the_whole_picture_a_title_and_one_score(visit: Opener, shop: DemoServer) -> None:
    page = visit(at=shop.address)
    search(page, "a red dress")
    first = page.locator("#current .card").first
    assert re.fullmatch(
        r"Item No\. \d+\n1 · score [\d.]+", re.sub(r"\s*\n\s*", "\n", first.inner_text().split("\nSearch")[0].strip())
    )
    assert page.evaluate("getComputedStyle(document.querySelector('.card img')).objectFit") == "contain"
    page.wait_for_function("document.querySelector('.card img').naturalWidth > 0")
    assert box_aspect(page) == 1  # the drawings are square
    assert page.locator(".bars").first.is_hidden()
    page.click("#why-toggle")
    assert page.locator(".bars .contribution").first.is_visible()
    page.locator(".card").first.click()  # no quick action is in the middle
    assert page.locator("#details").is_visible()
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector(".card")
    assert page.locator("#why-toggle").get_attribute("aria-pressed") == "true"
    page.wait_for_selector(".bars .contribution")
    page.click("#why-toggle")
    assert page.locator(".bars").first.is_hidden()


def box_aspect(page: Any) -> float:
    return page.evaluate("(box => box.width / box.height)(document.querySelector('.picture').getBoundingClientRect())")


def test_boxes_are_as_tall_as_the_pictures_need(visit: Opener, tmp_path: Path, encoder: mm.Encoder) -> None:
    for i, size in enumerate([(90, 100), (60, 100), (100, 80)]):
        Image.new("RGB", size, (80 * i, 20, 60)).save(tmp_path / f"{i}.png")
    mm.Gallery.create(tmp_path / "g", encoder=encoder).add(tmp_path)
    served = DemoServer(str(tmp_path / "g"))
    try:
        page = visit(at=served.address)
        page.wait_for_function("[...document.querySelectorAll('.card img')].every(image => image.naturalWidth > 0)")
        assert box_aspect(page) == pytest.approx(3 / 4, abs=0.01)
        page.close()
    finally:
        served.stop()


def test_the_positions_on_cards_have_no_gaps(visit: Opener) -> None:
    page = visit()
    choose_reference(page)
    wait_for_results(page, lambda: page.click("#show-more"))
    ranks = page.eval_on_selector_all("#current .card", "cards => cards.map(({card}) => card.rank)")
    assert ranks != list(range(1, len(ranks) + 1))  # near-copies are in a stack
    shown = page.locator("#current .score").all_inner_texts()
    assert [int(text.split(" · ")[0]) for text in shown] == list(range(1, len(ranks) + 1))
    copies = page.locator("#current .copies:not(:empty)").first
    assert re.fullmatch(r"\+\d+ nearly the same", copies.inner_text())
    card = page.locator("#current .card", has=page.locator(".copies:not(:empty)")).first
    card.click()
    ids = card.evaluate("card => card.card.copies")
    assert [image.get_attribute("alt") for image in page.locator("#details .copies-list img").all()] == ids


def test_a_disliked_item_leaves_the_list(visit: Opener) -> None:
    page = visit()
    choose_reference(page)
    disliked = cards(page)[4]
    page.locator("#current .card").nth(4).hover()
    wait_for_results(page, lambda: page.locator("#current .card .less_like").nth(4).click())
    shown = page.eval_on_selector_all("#current .card", "cards => cards.flatMap(({card}) => [card.id, ...card.copies])")
    assert disliked not in shown
    assert len(shown) == 24
    assert "2 left out" in page.inner_text("#status")


def test_a_click_opens_the_original_and_what_can_be_done_with_it(visit: Opener) -> None:
    page = visit()
    id_ = cards(page)[2]
    page.locator("#current .card").nth(2).click()
    page.wait_for_function("document.querySelector('#details .large img')?.naturalWidth >= 224")
    assert page.locator("#details .large a").get_attribute("href") == f"api/image?id={id_}"
    assert page.locator("#details .actions button").all_inner_texts() == [
        "Search with this", "Add as reference", "More like this", "Less like this",
    ]  # fmt: skip
    wait_for_results(page, lambda: page.get_by_role("button", name="Search with this", exact=True).click())
    assert id_ in page.locator("#tiles img").get_attribute("alt")
    page.locator("#current .card .picture").first.focus()
    other = cards(page)[0]
    wait_for_results(page, lambda: page.keyboard.press("s"))
    assert other in page.locator("#tiles img").get_attribute("alt")


def test_details_more_results_and_other_samples(visit: Opener) -> None:
    page = visit()
    start = cards(page)
    wait_for_results(page, lambda: page.click("#other-sample"))
    assert cards(page) != start
    choose_reference(page)
    wait_for_results(page, lambda: page.click("#show-more"))
    count = page.eval_on_selector_all("#current .card", "cards => cards.flatMap(({card}) => [card.id, ...card.copies]).length")
    assert count == 48
    page.locator("#current .card").first.click()
    page.wait_for_function("document.querySelector('#details img')?.naturalWidth > 0")
    assert cards(page)[0] in page.inner_text("#details")
    assert "colour" in page.inner_text("#details")
    page.keyboard.press("Escape")
    assert page.locator("#details").is_hidden()


def rows(page: Any) -> list[str]:
    """The list of results in order: cards, weak cards, and the divider."""
    kind = "item.classList.contains('divider') ? 'divider' : item.card.weak ? 'weak' : 'card'"
    return page.eval_on_selector_all("#current ol > li", f"items => items.map(item => {kind})")


def test_a_divider_precedes_weak_matches(visit: Opener) -> None:
    reference = {"id": mm.wardrobe.drawings()[5].id, "region": None, "weight": 1}
    page = visit("/?q=" + urllib.parse.quote(json.dumps({"references": [reference], "k": 96})))
    strong = rows(page).index("divider")
    assert 0 < strong < len(rows(page)) - 1
    assert rows(page) == ["card"] * strong + ["divider"] + ["weak"] * len(rows(page)[strong + 1 :])
    assert page.inner_text("#current .divider").startswith("Weaker matches")
    page.click("#filters-panel > summary")
    wait_for_results(page, lambda: page.select_option("#sort", "kind"))
    assert "divider" not in rows(page)


def test_export(visit: Opener, tmp_path: Path) -> None:
    page = visit()
    choose_reference(page)
    search(page, "in red")
    for form in ("csv", "json", "zip"):
        with page.expect_download() as download:
            page.select_option("#export", form)
        download.value.save_as(tmp_path / form)
    rows = list(csv.DictReader((tmp_path / "csv").read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == 1999
    assert rows[0]["id"] == cards(page)[0] == json.loads((tmp_path / "json").read_bytes())["hits"][0]["id"]
    assert (tmp_path / "zip").read_bytes()[:2] == b"PK"
