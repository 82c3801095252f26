"""The page in a real browser, with the real server and the built-in gallery."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from browser import DemoServer, Opener, cards, choose_reference, controls, fine_tune, search, wait_for_results, wardrobe
from PIL import Image

import mmretrieve as mm

HOSTILE = "<img src=x onerror=alert(1)>.png"
pytestmark = pytest.mark.browser


def test_a_search_equals_the_library(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    assert len(cards(page)) == 24
    reference = choose_reference(page)
    assert reference not in cards(page)
    search(page, "in red")
    assert "in red" in page.inner_text("#interpretation")
    assert page.inner_text("#status").startswith("Top 24 of 1,999 images · 1 left out")
    ranking = wardrobe().search(reference_id=reference, prompt="in red", exclude_reference=True, k=24)
    weights = [f"{term} × {weight:.2f}".replace("-", "−") for term, weight in ranking.weights.items()]
    assert page.locator(".weight").all_inner_texts() == weights
    shown = page.eval_on_selector_all(
        "#current .card", "cards => cards.map(({card}) => [card.id, card.rank, card.score, card.contributions, card.copies])"
    )
    hits = {hit.id: hit for hit in ranking}
    assert sorted(id_ for id_, *_, copies in shown for id_ in (id_, *copies)) == sorted(hits)
    for id_, rank, score, gave, _ in shown:
        assert (rank, score) == (hits[id_].rank, hits[id_].score)
        assert gave == {term: value for term, value in hits[id_].contributions.items() if value}
    assert page.locator("#current .card").first.locator(".contribution").count() == 4


def test_images_are_uploaded_pasted_and_dropped(visit: Opener) -> None:
    page, source = visit(), mm.wardrobe.pictures_folder() / mm.wardrobe.drawings()[7].id
    wait_for_results(page, lambda: page.set_input_files("#file", source))
    page.wait_for_function("document.querySelector('#tiles img')?.naturalWidth > 0")
    assert page.locator("#tiles .tile").count() == 1
    put = """([bytes, kind]) => {
      const file = new File([new Uint8Array(bytes)], 'a.png', { type: 'image/png' }), data = new DataTransfer();
      data.items.add(file);
      const event = kind === 'paste' ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true }) : new DragEvent('drop', { dataTransfer: data, bubbles: true });
      document.querySelector('#query-form').dispatchEvent(event);
    }"""
    for number, kind in ((8, "paste"), (9, "drop")):
        other = (mm.wardrobe.pictures_folder() / mm.wardrobe.drawings()[number].id).read_bytes()
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
    choose_reference(page)
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


def test_several_references_and_a_region(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    first = choose_reference(page, 2)
    wait_for_results(page, lambda: page.locator("#current .card").nth(4).click(modifiers=["Shift"]))
    assert page.locator("#tiles .tile").count() == 2
    assert [text.split(" × ")[0] for text in page.locator(".weight").all_inner_texts()] == ["image", "image 2"]
    both = cards(page)
    wait_for_results(page, lambda: page.locator("#tiles .remove").last.click())
    assert cards(page) != both
    whole = cards(page)
    frame = page.locator("#tiles .frame").bounding_box()
    page.mouse.move(frame["x"] + 0.1 * frame["width"], frame["y"] + 0.1 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.6 * frame["width"], frame["y"] + 0.7 * frame["height"], steps=4)
    wait_for_results(page, page.mouse.up)
    left, top, right, bottom = json.loads(page.locator("#tiles .box").get_attribute("data-region"))
    assert (left, top, right, bottom) == pytest.approx((0.1, 0.1, 0.6, 0.7), abs=0.02)
    ranking = wardrobe().search(reference_id=first, region=(left, top, right, bottom), exclude_reference=True, k=24)
    part = page.eval_on_selector_all("#current .card", "cards => cards.flatMap(({card}) => [card.id, ...card.copies])")
    assert sorted(part) == sorted(ranking.ids)
    page.locator("#tiles .box").focus()
    wait_for_results(page, lambda: page.keyboard.press("ArrowRight"))
    assert json.loads(page.locator("#tiles .box").get_attribute("data-region"))[0] == pytest.approx(left + 0.05, abs=0.001)
    wait_for_results(page, lambda: page.keyboard.press("Escape"))
    assert cards(page) == whole


def test_suggestions_strengths_avoid_and_feedback(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    choose_reference(page)
    page.wait_for_selector("#suggestions .chip")
    word = page.locator("#suggestions .chip").first.inner_text()
    wait_for_results(page, lambda: page.locator("#suggestions .chip").first.click())
    assert page.input_value("#prompt") == word
    assert word in page.inner_text("#interpretation")
    page.click("#more-options summary")
    page.click("#add-prompt")
    page.fill("#prompts li:last-child input[type=text]", "in red")
    wait_for_results(page, lambda: page.press("#prompts li:last-child input[type=text]", "Tab"))
    assert "composed 2" in " ".join(page.locator(".weight").all_inner_texts())
    before = cards(page)
    wait_for_results(page, lambda: page.fill("#prompts li:last-child input[type=range]", "-1"))
    assert cards(page) != before
    page.fill("#avoid", "stripes")
    wait_for_results(page, lambda: page.press("#avoid", "Tab"))
    assert "avoid" in " ".join(page.locator(".weight").all_inner_texts())
    assert "avoid: stripes" in page.inner_text("#prompt-line")
    wait_for_results(page, lambda: page.locator("#current .card .more_like").nth(2).click())
    wait_for_results(page, lambda: page.locator("#current .card .less_like").nth(5).click())
    assert page.locator("#feedback .chip").count() == 2
    assert {"more", "less"} <= {text.split(" × ")[0] for text in page.locator(".weight").all_inner_texts()}
    wait_for_results(page, lambda: page.locator("#feedback .chip").first.click())
    assert page.locator("#feedback .chip").count() == 1


def test_undo_redo_and_links(visit: Opener) -> None:
    page = visit()
    fine_tune(page)
    start = cards(page)
    choose_reference(page)
    first = cards(page)
    search(page, "in red")
    second = cards(page)
    wait_for_results(page, lambda: page.click("#undo"))
    assert cards(page) == first
    wait_for_results(page, lambda: page.click("#undo"))
    assert cards(page) == start
    assert page.locator("#undo").is_disabled()
    assert page.input_value("#prompt") == ""
    wait_for_results(page, lambda: page.keyboard.press("Control+Shift+Z"))
    wait_for_results(page, lambda: page.click("#redo"))
    assert cards(page) == second
    assert page.locator("#redo").is_disabled()
    wait_for_results(page, lambda: page.get_by_role("button", name="Follow the prompt").click())
    moved = cards(page)
    link = page.url.split("127.0.0.1", 1)[1].split("/", 1)[1]
    again = visit("/" + link)
    assert cards(again) == moved
    assert again.input_value("#prompt") == "in red"
    assert controls(again) == controls(page)
    for broken in (
        "{broken",
        '{"filters": {"kind": {"any_of": 5}}}',
        '{"references": [{"id": "x", "region": 5, "weight": 1}]}',
        '{"controls": {"beta": 5}}',
        '{"prompts": []}',
        '{"references": [5], "knobs": {}, "shown": 1e9, "more": "x", "sort": null}',
        "[]",
        "7",
    ):
        assert cards(visit("/?q=" + urllib.parse.quote(broken))) == start
    wait_for_results(again, lambda: again.click("#new-search"))
    assert cards(again) == start


def test_links_of_earlier_versions_open(visit: Opener) -> None:
    """The names that links had before the state took those of the search request."""
    one, other, liked = (drawing.id for drawing in mm.wardrobe.drawings()[:3])
    by_hand = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75, "prompt": 0}
    reference = {"references": [{"id": one, "region": None, "weight": 1}], "prompts": [{"text": "in red", "strength": 1}]}
    before = {"knobs": by_hand, "beside": "auto", "more": [other], "less": [liked], "min": -9, "alone": False, "shown": 48}
    page = visit("/?q=" + urllib.parse.quote(json.dumps(reference | before)))
    fine_tune(page)
    assert controls(page) == by_hand
    assert page.inner_text("#pinned h2") == "Left: automatic"
    assert page.locator("#feedback .chip").all_inner_texts() == [f"more like {other} ✕", f"less like {liked} ✕"]
    assert page.input_value("#min-score") == "-9"
    assert not page.is_checked("#exclude-reference")
    assert (
        page.eval_on_selector_all("#current .card", "cards => cards.flatMap(({card}) => [card.id, ...card.copies]).length")
        == 48
    )


def test_keyboard_shortcuts(visit: Opener) -> None:
    page = visit()
    page.locator("#current .card .picture").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    across = page.evaluate("new Set([...document.querySelectorAll('#current .card')].map(c => c.offsetLeft)).size")
    assert page.evaluate("document.activeElement.closest('.card').dataset.id") == cards(page)[1 + across]
    target = cards(page)[1 + across]
    page.keyboard.press("Enter")
    assert page.locator("#details").is_visible()
    page.keyboard.press("Escape")
    wait_for_results(page, lambda: page.keyboard.press("s"))
    assert target in page.locator("#tiles img").get_attribute("alt")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("in red")
    wait_for_results(page, lambda: page.keyboard.press("Enter"))
    page.locator("#current .card .picture").nth(1).focus()
    wait_for_results(page, lambda: page.keyboard.press("m"))
    page.locator("#current .card .picture").nth(2).focus()
    wait_for_results(page, lambda: page.keyboard.press("l"))
    assert page.locator("#feedback .chip").count() == 2
    page.locator("#current .card .picture").nth(2).focus()
    page.keyboard.press("d")
    assert page.locator("#details").is_visible()
    page.keyboard.press("Escape")
    page.locator("#current .card .picture").nth(2).focus()
    page.keyboard.press("t")
    assert page.evaluate("document.activeElement.id") == "pad"
    page.keyboard.press("?")
    assert page.locator("#shortcuts").is_visible()


@pytest.mark.parametrize(
    "options", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}]
)
def test_accessibility(visit: Opener, options: dict[str, Any]) -> None:
    """Every control has a name, text has a contrast of at least 4.5, and nothing overflows horizontally."""
    page = visit()
    if viewport := options.pop("viewport", None):
        page.set_viewport_size(viewport)
    else:
        page.emulate_media(**options)
        page.reload()
        page.wait_for_selector(".card img")
    choose_reference(page)
    search(page, "in red")
    unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, select, [role=slider], [tabindex="0"]')]
      .filter(e => e.checkVisibility() && !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.title || e.placeholder)).map(e => e.outerHTML)""")
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('img')].filter(i => !i.hasAttribute('alt')).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.evaluate(LOW_CONTRAST) == []


LOW_CONTRAST = """() => {
  const numbers = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = numbers(c).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor, n = numbers(c); if (n.length < 4 || n[3] > .85) return c; } return 'rgb(255,255,255)'; };
  const out = new Set();
  for (const e of document.querySelectorAll('#layout *, .top *')) {
    if (!e.checkVisibility({ opacityProperty: true }) || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest('svg, :disabled, .hint, option')) continue;
    const style = getComputedStyle(e), a = light(style.color), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) out.add(`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return [...out];
}"""


def test_a_file_may_have_any_name(visit: Opener, tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    Image.new("RGB", (80, 80), "red").save(tmp_path / HOSTILE)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    gallery.add(tmp_path / HOSTILE)
    served = DemoServer(str(tmp_path / "g"))
    try:
        link = "/?q=" + urllib.request.quote(json.dumps({"references": [{"id": HOSTILE, "region": None, "weight": 1}], "more_like": [HOSTILE], "k": 61, "exclude_reference": False}))  # fmt: skip
        page = visit(link, at=served.address)
        assert HOSTILE in cards(page)
        assert page.locator("img[onerror]").count() == 0
        page.locator("#current .card").first.click()
        assert page.locator("img[onerror]").count() == 0
        page.close()  # before the server stops, which images may still be loaded from
    finally:
        served.stop()


def test_a_link_with_a_token_gives_access(visit: Opener, tmp_path: Path, encoder: mm.Encoder, photos: Path) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    served = DemoServer(str(tmp_path / "g"), "--token", "correct-horse")
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(served.address)
        page = visit("/?token=correct-horse", at=served.address)
        assert "token" not in page.url
        page.wait_for_function("document.querySelector('.card img')?.naturalWidth > 0")
        choose_reference(page)
        page.reload()
        page.wait_for_selector("#current .card .score:not(:empty)")
        page.close()
    finally:
        served.stop()


def test_the_page_continues_after_a_restart_of_the_server(
    visit: Opener, tmp_path: Path, encoder: mm.Encoder, photos: Path
) -> None:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add(photos)
    served = DemoServer(str(tmp_path / "g"))
    page = visit(at=served.address, expected=("ERR_CONNECTION_REFUSED", "410", "Failed to load"))
    wait_for_results(page, lambda: page.set_input_files("#file", sorted(photos.rglob("*.png"))[4]))
    link = page.url
    served.stop()
    page.fill("#prompt", "in red")
    page.press("#prompt", "Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "is not responding" in page.inner_text("#error")
    served.start("--port", served.port)
    page.wait_for_function("document.querySelector('#error').hidden && document.querySelector('.weight.composed')")
    stranger = visit("/" + link.split("/", 3)[3], at=served.address, expected=("410", "Failed to load"))
    assert cards(stranger)  # the image was uploaded again, with the same token
    served.stop()
    served.start("--port", served.port)
    late = browser_page(page, link)
    late.wait_for_selector("#error:not([hidden])")
    assert "send the image again" in late.inner_text("#error")
    served.stop()


def browser_page(page: Any, link: str) -> Any:
    other = page.context.new_page()
    other.goto(link)
    return other


@pytest.mark.parametrize(
    "path",
    [
        "page/../app.py", "page/%2e%2e/app.py", "page/..%2fpage_service.py", "page//etc/passwd", "page/%2fetc%2fpasswd", "page/view/x",
        "gradio_api/file=/etc/passwd", "gradio_api/file=demo/app.py", "gradio_api/file=http://127.0.0.1/", "assets/../../../etc/passwd",
        "static/%2e%2e/%2e%2e/x", "gradio_api/proxy=http://127.0.0.1/", "api/thumbnail?id=../../etc/passwd", "api/image?id=/etc/passwd",
        "api/nope",
        "api/search",
        "mcp",
        "gradio_api/queue/join",
        "gradio_api/run/predict",
        "api/uploads/..%2f..%2fetc%2fpasswd", "api/item?id=%00",
    ],
)  # fmt: skip
def test_only_the_gallery_is_served(server: DemoServer, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.port))
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    body = response.read()
    assert 400 <= response.status < 500
    assert b"root:" not in body
    assert b"import" not in body
    assert b"Traceback" not in body
    if path.startswith(("api/", "mcp", "gradio_api/")):
        assert json.loads(body)["error"]
    connection.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "x" * 10_000_000}, 400),
        ({"controls": {"beta": 2}}, 400),
        ({"filters": [{"field": "nothing", "any_of": ["x"]}]}, 400),
        ({"reference_id": "nothing"}, 404),
        ({"upload": "../../etc/passwd"}, 410),
        ({"prompt": "a", "k": 10**9}, 400),
        ({"unknown": 1}, 400),
        ([], 400),
    ],
)
def test_an_invalid_request_is_one_line(server: DemoServer, body: object, status: int) -> None:
    request = urllib.request.Request(
        f"{server.address}/page/view", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == status
    message = json.loads(caught.value.read())["error"]
    assert "\n" not in message
    assert len(message) < 1_000


@pytest.mark.timed
def test_speed(visit: Opener) -> None:
    """Loose bounds that a busy machine meets; `benchmarks/page.py` measures."""
    page = visit()
    assert page.evaluate("performance.now()") < 8_000
    choose_reference(page)
    search(page, "in red")
    spent = page.evaluate("""async () => {
      const shown = () => Number(document.documentElement.dataset.shown), slider = document.querySelector('#control-beta'), spent = [];
      for (let i = 0; i < 30; i++) {
        const before = shown(), started = performance.now();
        slider.value = (i * .37) % 1;
        slider.dispatchEvent(new Event('input', { bubbles: true }));
        while (shown() === before) await new Promise(requestAnimationFrame);
        spent.push(performance.now() - started);
      }
      return spent.sort((a, b) => a - b)[15];
    }""")
    assert spent < 300
