"""The query on the page, in a real browser: prompts, references, parts of them, suggestions; on a phone and by keyboard."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from browser import Opener, cards, controls, fine_tune, search, wait_for_results, wardrobe

import mmretrieve as mm

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
SHOWN_ITEMS = "cards => cards.flatMap(({card}) => [card.id, ...card.copies])"


def link(**state: Any) -> str:
    return "/?q=" + urllib.parse.quote(json.dumps(state))


def item(number: int) -> dict[str, Any]:
    return {"id": mm.wardrobe.drawings()[number].id, "region": None, "weight": 1}


def picture(number: int) -> Path:
    return mm.wardrobe.pictures_folder() / mm.wardrobe.drawings()[number].id


def prompts(page: Any) -> list[str]:
    return page.locator("#turns .words").all_inner_texts()


def weights(page: Any) -> dict[str, str]:
    """The weight of each term, as shown."""
    fine_tune(page)
    return dict(text.split(" × ") for text in page.locator(".weight").all_inner_texts())


def shown_items(page: Any) -> list[str]:
    return sorted(page.eval_on_selector_all("#current .card", SHOWN_ITEMS))


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.closest('.card')?.dataset.id ?? document.activeElement.id")


def draw_box(page: Any) -> None:
    """Drags from (0.1, 0.1) to (0.6, 0.7) of the first reference."""
    frame = page.locator("#tiles .frame").first.bounding_box()
    page.mouse.move(frame["x"] + 0.1 * frame["width"], frame["y"] + 0.1 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.6 * frame["width"], frame["y"] + 0.7 * frame["height"], steps=4)
    page.mouse.up()


def test_prompts_add_up_until_they_are_removed(visit: Opener) -> None:
    page, reference = visit(link(references=[item(3)])), item(3)["id"]
    search(page, "in red")
    one = shown_items(page)
    search(page, "with long sleeves")
    assert prompts(page) == ["in red", "with long sleeves"]
    assert page.input_value("#prompt") == ""
    both = ["in red", "with long sleeves"]
    ranking = wardrobe().search(reference_id=reference, prompt=both, exclude_reference=True, k=24)
    assert shown_items(page) == sorted(ranking.ids)
    search(page, " IN RED ")
    assert prompts(page) == both
    wait_for_results(page, lambda: page.click("text=Undo"))
    assert prompts(page) == ["in red"]
    assert shown_items(page) == one
    wait_for_results(page, lambda: page.click("text=Redo"))
    wait_for_results(page, lambda: page.click("[aria-label='Remove in red']"))
    assert prompts(page) == ["with long sleeves"]


def test_a_search_is_a_conversation(visit: Opener) -> None:
    """ "in red", "longer", "like the third, but cheaper": the page finds what the session finds, and goes back to earlier turns."""
    page, session = visit(link(references=[item(3)])), wardrobe().session(decay=0.5)
    options = {"k": 24, "exclude_reference": True}
    search(page, "in red")
    session.search(reference_id=item(3)["id"], prompt="in red", **options)
    search(page, "with long sleeves")
    second = session.search(prompt="with long sleeves")
    third = page.locator("#current .card").nth(2).get_attribute("data-id")
    page.locator("#current .card").nth(2).hover()
    wait_for_results(page, lambda: page.locator("#current .card .choose").nth(2).click())
    search(page, "striped")
    assert page.locator("#turns .return").all_inner_texts() == ["1", "2", "3"]
    assert page.locator("#turns .turn").all_inner_texts()[2].split() == ["3", "striped", "×"]
    assert page.locator("#turns .turn img").evaluate_all("images => images.map(image => image.title)") == [
        f"item {item(3)['id']}",
        f"item {third}",
    ]
    page.click("#more-options > summary")
    page.get_by_label("Earlier turns count").fill("0.5")
    page.wait_for_function("location.search.includes('decay')")
    page.wait_for_timeout(300)
    assert shown_items(page) == sorted(session.search(reference_id=third, prompt="striped").ids)
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    assert cards(again) == cards(page)
    wait_for_results(again, lambda: again.click("[aria-label='Return to turn 2']"))
    assert prompts(again) == ["in red", "with long sleeves"]
    assert shown_items(again) == sorted(second.ids)
    wait_for_results(again, lambda: again.click("#undo"))
    assert cards(again) == cards(page)


def test_likes_belong_to_the_turn_in_which_they_are_said(visit: Opener) -> None:
    page = visit(link(references=[item(3)], prompts=[{"text": "in red", "strength": 1}]))
    liked = cards(page)[1]
    for key, kind in (("m", "more_like"), ("l", "less_like"), ("m", "more_like")):
        id_ = cards(page)[1]
        page.locator("#current .card .picture").nth(1).focus()
        wait_for_results(page, lambda key=key: page.keyboard.press(key))
        assert page.locator(f"#turns .turn:last-child .{kind}").last.get_attribute("title") == id_
    assert page.locator("#turns .turn").count() == 2
    search(page, "striped")  # words end the turn
    search(page, "in navy")
    assert [text.split()[0] for text in page.locator("#turns .turn").all_inner_texts()] == ["1", "2", "3"]
    wait_for_results(page, lambda: page.click(f"[aria-label='Remove: more like {liked}']"))
    assert page.locator(f"#turns [title='{liked}']").count() == 0


def test_a_click_on_a_prompt_edits_it(visit: Opener) -> None:
    page = visit(link(references=[item(3)], prompts=[{"text": text, "strength": 1} for text in ("in red", "striped")]))
    wait_for_results(page, lambda: page.click("[aria-label='Edit in red']"))
    assert page.input_value("#prompt") == "in red"
    assert focused(page) == "prompt"
    assert prompts(page) == ["striped"]
    search(page, "in blue")
    assert prompts(page) == ["striped", "in blue"]


def test_a_suggestion_is_one_more_prompt(visit: Opener) -> None:
    page = visit(link(references=[item(3)], prompts=[{"text": "in red", "strength": 1}]))
    suggestion = page.locator("#suggestions .chip").first
    word = suggestion.inner_text()
    wait_for_results(page, suggestion.click)
    assert prompts(page) == ["in red", word]
    assert word not in page.locator("#suggestions .chip").all_inner_texts()


def test_several_prompts_show_each_once(visit: Opener) -> None:
    texts = ["in red", "striped", "in red", "Striped", ""]
    page = visit(link(references=[item(3)], prompts=[{"text": text, "strength": 1} for text in texts]))
    assert prompts(page) == ["in red", "striped"]
    assert page.locator("#query-form").inner_text().count("in red") == 1
    assert page.input_value("#prompt") == ""


def test_strengths_avoid_and_feedback(visit: Opener) -> None:
    page = visit(link(references=[item(3)], prompts=[{"text": text, "strength": 1} for text in ("striped", "in red")]))
    assert "composed 2" in weights(page)
    page.click("#more-options > summary")
    before = cards(page)
    wait_for_results(page, lambda: page.get_by_label("Strength of in red").fill("-1"))
    assert cards(page) != before
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    assert again.get_by_label("Strength of in red").input_value() == "-1"
    page.fill("#avoid", "stripes")
    wait_for_results(page, lambda: page.press("#avoid", "Tab"))
    assert "avoid" in weights(page)
    more, less, *_ = cards(page)
    feedback = visit(link(references=[item(3)], more_like=[more], less_like=[less]))
    assert feedback.locator("#turns :is(.more_like, .less_like)").count() == 2
    assert {"more", "less"} <= set(weights(feedback))
    wait_for_results(feedback, lambda: feedback.locator("#turns :is(.more_like, .less_like)").first.click())
    assert feedback.locator("#turns :is(.more_like, .less_like)").count() == 1


def test_images_are_uploaded_pasted_and_dropped(visit: Opener) -> None:
    page = visit()
    wait_for_results(page, lambda: page.set_input_files("#file", picture(7)))
    page.wait_for_function("document.querySelector('#tiles img')?.naturalWidth > 0")
    assert page.locator("#tiles .tile").count() == 1
    put = """([bytes, kind]) => {
      const file = new File([new Uint8Array(bytes)], 'a.png', { type: 'image/png' }), data = new DataTransfer();
      data.items.add(file);
      const event = kind === 'paste' ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true }) : new DragEvent('drop', { dataTransfer: data, bubbles: true });
      document.querySelector('#query-form').dispatchEvent(event);
    }"""
    for number, kind in ((8, "paste"), (9, "drop")):
        other = picture(number).read_bytes()
        wait_for_results(page, lambda kind=kind, other=other: page.evaluate(put, [list(other), kind]))
    assert page.locator("#tiles .tile").count() == 3
    wait_for_results(page, lambda: page.locator("#tiles .remove").first.click())
    assert page.locator("#tiles .tile").count() == 2


def test_a_file_that_is_no_image_is_an_error(visit: Opener, tmp_path: Path) -> None:
    page = visit(expected=("422",))
    (tmp_path / "notes.png").write_bytes(b"not a picture")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("#error:not([hidden])")
    assert "not an image" in page.inner_text("#error")
    assert "/" not in page.inner_text("#error")
    search(page, "in red")
    assert page.locator("#error").is_hidden()
    assert page.locator("#columns.stale").count() == 0


def test_a_url_is_not_fetched(visit: Opener) -> None:
    page = visit()
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.setData('text/uri-list', 'http://example.com/dress.jpg');
      document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true }));
    }""")
    page.wait_for_selector("#error:not([hidden])")
    assert "does not fetch URLs" in page.inner_text("#error")


def test_terms_and_weights_belong_to_the_picture_beside_them(visit: Opener) -> None:
    page, id_ = visit(link(references=[item(2)])), item(2)["id"]
    page.click("#add-picture > summary")
    wait_for_results(page, lambda: page.set_input_files("#file", picture(7)))
    tiles = page.locator("#tiles .tile")
    labels = {tile.locator("img").get_attribute("alt"): tile.locator(".tile-weight").inner_text() for tile in tiles.all()}
    assert labels == {"Reference: uploaded image": "image", f"Reference: {id_}": "image 2"}
    wait_for_results(page, lambda: page.get_by_label(f"Weight of {id_}").fill("0"))
    ranking = wardrobe().search(image=picture(7), reference_id=id_, image_weight=[1, 0], exclude_reference=True, k=24)
    assert ranking.weights["image"] > 0 == ranking.weights["image 2"]
    assert list(weights(page)) == ["image"]
    assert set(shown_items(page)) == set(ranking.ids)


def test_one_button_uploads_and_picks_from_the_gallery(visit: Opener) -> None:
    page = visit(link(references=[item(2)]))
    assert page.locator("#pick").is_hidden()
    page.click("#add-picture > summary")
    assert page.locator("label:has(#file)").is_visible()
    page.click("#pick")
    assert "Click a picture" in page.inner_text("#pick-hint")
    box = page.locator("#pick-hint").bounding_box()
    seen = "([x, y]) => document.elementFromPoint(x, y).closest('#pick-hint') !== null"
    assert page.evaluate(seen, [box["x"] + 12, box["y"] + box["height"] / 2])  # the pictures do not cover it
    page.keyboard.press("Escape")
    assert page.locator("#pick-hint").is_hidden()
    assert page.locator("#pick").is_hidden()
    page.click("#add-picture > summary")
    page.click("#pick")
    picked = cards(page)[4]
    wait_for_results(page, lambda: page.locator("#current .card .picture").nth(4).click())
    alts = [image.get_attribute("alt") for image in page.locator("#tiles img").all()]
    assert alts == [f"Reference: {item(2)['id']}", f"Reference: {picked}"]
    assert page.locator("#pick-hint").is_hidden()
    assert page.locator("dialog[open]").count() == 0
    assert page.locator("#pick").is_hidden()


def test_nothing_is_searched_before_a_box_is_drawn(visit: Opener) -> None:
    page, id_ = visit(link(references=[item(2)])), item(2)["id"]
    whole = cards(page)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for leave in (lambda: page.keyboard.press("Escape"), lambda: page.click(".part")):
        page.click(".part")
        assert page.inner_text(".frame-hint") == "Drag over the part that counts"
        leave()
        assert page.locator(".frame-hint").is_hidden()
    page.click(".part")
    page.wait_for_timeout(200)
    assert requests == []
    assert "region" not in page.url.replace(urllib.parse.quote('"region": null'), "")
    wait_for_results(page, lambda: draw_box(page))
    assert page.locator(".frame-hint").is_hidden()
    region = json.loads(page.locator("#tiles .box").get_attribute("data-region"))
    assert region == pytest.approx([0.1, 0.1, 0.6, 0.7], abs=0.02)
    ranking = wardrobe().search(reference_id=id_, region=tuple(region), exclude_reference=True, k=24)
    assert shown_items(page) == sorted(ranking.ids)
    page.locator("#tiles .box").focus()
    wait_for_results(page, lambda: page.keyboard.press("ArrowRight"))
    moved = json.loads(page.locator("#tiles .box").get_attribute("data-region"))
    assert moved[0] == pytest.approx(region[0] + 0.05, abs=0.001)
    wait_for_results(page, lambda: page.keyboard.press("Escape"))
    assert cards(page) == whole
    page.click(".part")
    wait_for_results(page, lambda: page.keyboard.press("Enter"))
    assert json.loads(page.locator("#tiles .box").get_attribute("data-region")) == [0.25, 0.25, 0.75, 0.75]


def test_the_demo_says_what_it_knows(visit: Opener) -> None:
    page = visit(link(references=[item(2)]))
    assert page.locator("#demo-note").is_hidden()
    page.click("#add-picture > summary")
    wait_for_results(page, lambda: page.set_input_files("#file", picture(7)))
    assert "drawings of clothes and nothing else" in page.inner_text("#demo-note")
    wait_for_results(page, lambda: page.locator("#tiles .remove").first.click())
    assert page.locator("#demo-note").is_hidden()


def test_words_to_try_come_from_the_gallery(visit: Opener) -> None:
    page = visit()
    vocabulary = wardrobe().gallery.vocabulary
    assert vocabulary is not None
    words = {word for group in vocabulary.groups for word in group.words}
    page.wait_for_selector("#suggestions .chip")
    suggested = page.locator("#suggestions .chip").all_inner_texts()
    assert len(suggested) > 3
    assert set(suggested) <= words
    wait_for_results(page, lambda: page.click("#other-sample"))
    page.wait_for_function(
        "before => document.querySelector('#suggestions').innerText !== before", arg="Try:\n" + "\n".join(suggested)
    )
    wait_for_results(page, page.locator("#suggestions .chip").first.click)
    assert set(prompts(page)) <= words


def test_undo_redo_and_links(visit: Opener) -> None:
    page = visit()
    start = cards(page)
    page.click("#pick")
    wait_for_results(page, lambda: page.locator("#current .card .picture").nth(3).click())
    first = cards(page)
    search(page, "in red")
    second = cards(page)
    wait_for_results(page, lambda: page.press("#prompt", "Control+z"))
    assert cards(page) == first
    wait_for_results(page, lambda: page.click("#undo"))
    assert cards(page) == start
    assert page.locator("#undo").is_disabled()
    assert prompts(page) == []
    wait_for_results(page, lambda: page.keyboard.press("Control+Shift+Z"))
    wait_for_results(page, lambda: page.click("#redo"))
    assert cards(page) == second
    assert page.locator("#redo").is_disabled()
    fine_tune(page)
    wait_for_results(page, lambda: page.get_by_role("button", name="Follow the prompt").click())
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    assert cards(again) == cards(page) != second
    assert prompts(again) == ["in red"]
    assert controls(again) == controls(page)
    for broken in (
        "{broken",
        '{"filters": {"kind": {"any_of": 5}}}',
        '{"references": [{"id": "x", "region": 5, "weight": 1}]}',
        '{"controls": {"beta": 5}}',
        '{"prompts": [{"text": 5, "strength": 1}]}',
        '{"references": [5], "knobs": {}, "shown": 1e9, "more": "x", "sort": null}',
        "[]",
        "7",
    ):
        assert cards(visit("/?q=" + urllib.parse.quote(broken))) == start
    wait_for_results(again, lambda: again.click("#new-search"))
    assert cards(again) == start


def test_links_of_earlier_versions_open(visit: Opener) -> None:
    """The names that links had before the state took those of the search request, and an empty prompt."""
    other, liked = (drawing.id for drawing in mm.wardrobe.drawings()[1:3])
    by_hand = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75, "prompt": 0}
    query = {"references": [item(0)], "prompts": [{"text": "in red", "strength": 1}, {"text": "", "strength": 1}]}
    before = {"knobs": by_hand, "beside": "auto", "more": [other], "less": [liked], "min": -9, "alone": False, "shown": 48}
    page = visit(link(**query, **before))
    assert prompts(page) == ["in red"]
    assert controls(page) == by_hand
    assert page.locator("#pinned").is_visible()
    assert page.locator("#turns .more_like").get_attribute("title") == other
    assert page.locator("#turns .less_like").get_attribute("title") == liked
    assert page.input_value("#min-score") == "-9"
    assert not page.is_checked("#exclude-reference")
    assert len(shown_items(page)) in (47, 48)  # with or without the item that is disliked


def test_the_keyboard_reaches_results_and_leaves_the_prompt(visit: Opener) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert focused(page) == "skip"
    page.keyboard.press("Enter")
    assert focused(page) == cards(page)[0]
    page.focus("#skip")
    page.keyboard.press("ArrowDown")
    assert focused(page) == cards(page)[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    across = page.evaluate("new Set([...document.querySelectorAll('#current .card')].map(card => card.offsetLeft)).size")
    assert focused(page) == cards(page)[1 + across]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert focused(page) == "prompt"
    page.keyboard.press("ArrowDown")
    assert focused(page) == cards(page)[0]
    page.keyboard.press("/")
    assert focused(page) == "prompt"
    page.keyboard.press("Escape")
    assert focused(page) != "prompt"


def test_letters_in_an_input_are_no_shortcuts(visit: Opener) -> None:
    page = visit()
    page.click("#more-options > summary")
    page.click("#filters-panel > summary")
    for name in ("prompt", "avoid", "where"):
        page.focus(f"#{name}")
        page.keyboard.type("tamlsd/?")
        assert page.input_value(f"#{name}") == "tamlsd/?"
        assert focused(page) == name
        page.fill(f"#{name}", "")
    assert page.locator("dialog[open]").count() == 0


def test_shortcuts_act_on_results(visit: Opener) -> None:
    page = visit(link(references=[item(2)]))
    first = page.locator("#current .card .picture").first
    for key, kind in (("m", "more_like"), ("l", "less_like")):
        first.focus()
        id_ = focused(page)
        wait_for_results(page, lambda key=key: page.keyboard.press(key))
        assert page.locator(f"#turns .{kind}").get_attribute("title") == id_
    first.focus()
    added = focused(page)
    wait_for_results(page, lambda: page.keyboard.press("a"))
    assert page.locator("#tiles img").last.get_attribute("alt") == f"Reference: {added}"
    first.focus()
    page.keyboard.press("d")
    assert page.locator("#details").is_visible()
    page.keyboard.press("Escape")
    first.focus()
    page.keyboard.press("t")
    assert focused(page) == "pad"
    page.keyboard.press("?")
    assert page.locator("#shortcuts").is_visible()


def test_a_screen_reader_hears_the_number_of_results(visit: Opener) -> None:
    page = visit(link(references=[item(2)]))
    live = page.locator("[role=status]:has-text('24 results')")
    assert live.count() == 1
    search(page, "in red")
    assert live.inner_text() == "24 results: in red"
    search(page, "striped")
    assert live.inner_text() == "24 results: in red, striped"


def test_an_axis_moves_results_and_sorts_the_gallery(visit: Opener) -> None:
    page = visit()
    page.click("#more-options summary")
    assert page.is_disabled("#axis-weight")
    page.fill("#axis-opposite", "without sleeves")
    page.fill("#axis", "with long sleeves, with sleeves")
    wait_for_results(page, lambda: page.press("#axis", "Tab"))
    ends = {"axis": ["with long sleeves", "with sleeves"], "axis_opposite": "without sleeves"}
    shown = page.eval_on_selector_all("#current .card", SHOWN_ITEMS)
    assert sorted(shown) == sorted(wardrobe().search(**ends, k=24).ids)
    page.focus("#axis-weight")
    wait_for_results(page, lambda: page.press("#axis-weight", "Home"))
    assert page.inner_text("#axis-lines output") == "−2.0"
    reversed_ids = wardrobe().search(**ends, axis_weight=-2, k=24).ids
    assert sorted(page.eval_on_selector_all("#current .card", SHOWN_ITEMS)) == sorted(reversed_ids)
    assert set(reversed_ids).isdisjoint(shown)
    state = json.loads(urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query)["q"][0])
    assert (state["axis"], state["axis_weight"]) == ("with long sleeves, with sleeves", -2)
    other = visit(link(references=[item(2)], prompts=[{"text": "in red", "strength": 1}], axis="long", axis_weight=0.5))
    assert other.is_visible("#axis")
    ranking = wardrobe().search(
        reference_id=item(2)["id"], prompt="in red", axis="long", axis_weight=0.5, exclude_reference=True, k=24
    )
    assert sorted(other.eval_on_selector_all("#current .card", SHOWN_ITEMS)) == sorted(ranking.ids)
    fine_tune(other)
    assert other.inner_text("#why").endswith("toward long")


@pytest.fixture
def phone(visit: Opener) -> Any:
    page = visit(link(references=[item(2)]), has_touch=True)
    page.set_viewport_size(PHONE)
    page.reload()
    page.wait_for_selector("#current .card")
    return page


def test_results_are_on_the_screen_of_a_phone(phone: Any) -> None:
    phone.evaluate("scrollTo(0, 0)")
    search(phone, "in red")
    assert focused(phone) != "prompt"  # the keyboard of the phone is away
    assert phone.evaluate("scrollY") == 0
    box = phone.locator("#current .picture").first.bounding_box()
    assert box["y"] + 0.6 * box["height"] < PHONE["height"]
    assert phone.evaluate(
        "([x, y]) => document.elementFromPoint(x, y).closest('.card') !== null", [box["x"] + 60, PHONE["height"] - 20]
    )
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_controls_of_a_phone_have_words_and_are_large(phone: Any) -> None:
    buttons = phone.locator(".top nav button:visible").all()
    assert [button.inner_text().split()[-1] for button in buttons] == ["Undo", "Redo", "search", "link"]
    for control in [*buttons, *phone.locator("#query-form :is(button, summary.button):visible").all()]:
        assert control.bounding_box()["height"] >= 38, control.inner_text()


@pytest.mark.parametrize("panel", ["#filters-panel", "#weights-panel"])
def test_sheets_of_a_phone_open_and_close(phone: Any, panel: str) -> None:
    summary = phone.locator(f"{panel} > summary")
    for close in (lambda: phone.keyboard.press("Escape"), summary.click):
        assert phone.locator(f"{panel}[open]").count() == 0
        assert phone.evaluate("panel => getComputedStyle(document.querySelector(panel)).position", panel) == "static"
        summary.click()
        assert phone.evaluate("panel => getComputedStyle(document.querySelector(panel)).position", panel) == "fixed"
        close()
    assert phone.locator(f"{panel}[open]").count() == 0
