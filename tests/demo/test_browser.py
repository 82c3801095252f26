"""The page in a real browser, with the real server and the built-in gallery."""

from __future__ import annotations

import csv
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import mmretrieve as mm
from demo.schemas import WeightControls

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
HOSTILE = "<img src=x onerror=alert(1)>.png"
pytestmark = pytest.mark.browser


class DemoServer:
    """`python -m demo` in a new process."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.start()

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "demo", *self.words, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert self.process.stdout is not None
        matches = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in self.process.stdout)
        match = next(filter(None, matches))
        self.address, self.port = match[0], match[1]

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) in (0, -signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    served = DemoServer()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Opener = Callable[..., Any]


@pytest.fixture
def visit(server: DemoServer, browser: Any) -> Iterator[Opener]:
    """Opens pages; the test fails if a page logs an error or sends a request elsewhere. expected: errors that the test provokes."""
    outside: list[str] = []
    errors: list[str] = []
    contexts = []

    def visit(path: str = "/", *, at: str | None = None, expected: tuple[str, ...] = (), **options: Any) -> Any:
        home = at or server.address
        context = browser.new_context(viewport={"width": 1400, "height": 1000}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else outside.append(r.url))
        page.on(
            "console", lambda m: errors.append(m.text) if m.type == "error" and not any(e in m.text for e in expected) else None
        )
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.on("dialog", lambda d: errors.append(f"dialog: {d.message}"))
        page.goto(home + path)
        page.wait_for_function("Number(document.documentElement.dataset.shown ?? 0) > 0")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert outside == []
    assert errors == []


def wait_for_results(page: Any, act: Callable[[], object]) -> None:
    """Calls `act`, and waits until new results are shown."""
    before = page.evaluate("Number(document.documentElement.dataset.shown)")
    act()
    page.wait_for_function("before => Number(document.documentElement.dataset.shown) > before", arg=before)
    page.wait_for_timeout(120)


def cards(page: Any, column: str = "#current") -> list[str]:
    return page.eval_on_selector_all(f"{column} .card", "cards => cards.map(card => card.dataset.id)")


def choose_reference(page: Any, number: int = 3) -> str:
    id_ = cards(page)[number]
    wait_for_results(page, lambda: page.locator("#current .card").nth(number).click())
    return id_


def search(page: Any, prompt: str) -> None:
    page.fill("#prompt", prompt)
    wait_for_results(page, lambda: page.press("#prompt", "Enter"))


def controls(page: Any) -> dict[str, float]:
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#controls input')].map(i => [i.name, Number(i.value)]))"
    )


def wardrobe() -> mm.Retriever:
    return mm.Retriever.open(mm.wardrobe.gallery_folder())


def test_a_search_equals_the_library(visit: Opener) -> None:
    page = visit()
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


def is_automatic(page: Any) -> bool:
    return page.locator("#automatic").get_attribute("aria-pressed") == "true"


def test_weights_are_automatic_until_set_and_can_be_again(visit: Opener) -> None:
    page = visit()
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
    choose_reference(page)
    search(page, "in red")
    start = controls(page)
    box, before = page.locator("#pad").bounding_box(), cards(page)
    scale = box["width"] / 350
    page.mouse.move(box["x"] + (10 + 246 * 0.2) * scale, box["y"] + (10 + 230 * (2 - 0.5) / 2.5) * scale)  # beta .2, gamma .5
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
    assert x == pytest.approx(256)
    page.locator("#pad").focus()
    wait_for_results(page, lambda: page.keyboard.press("ArrowLeft"))
    assert controls(page)["beta"] == 0.95
    wait_for_results(page, lambda: page.keyboard.press("Home"))
    assert is_automatic(page)
    assert controls(page) == start
    assert cards(page) == before


def test_presets_and_published_settings(visit: Opener) -> None:
    page = visit()
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


def test_two_settings_are_compared(visit: Opener) -> None:
    page = visit()
    reference = choose_reference(page)
    search(page, "in red")
    before = cards(page)
    wait_for_results(page, lambda: page.click("#compare"))
    wait_for_results(page, lambda: page.get_by_role("button", name="Keep the image").click())
    assert cards(page, "#pinned") == before
    assert cards(page) != before
    assert page.inner_text("#pinned h2") == "Pinned: automatic"
    assert "beta 0.1" in page.inner_text("#current h2")
    again = visit("/?" + urllib.parse.urlsplit(page.url).query)
    assert cards(again, "#pinned") == before
    page.locator("#pinned .card .details").first.click()
    ranking = wardrobe().search(reference_id=reference, prompt="in red", exclude_reference=True)
    assert f"composed\t{ranking.weights['composed']:.2f}" in page.inner_text("#details table")
    page.keyboard.press("Escape")
    assert page.locator("#current .rank-change:not([hidden])").count() > 0
    wait_for_results(page, lambda: page.click("#compare"))
    assert page.locator("#pinned").is_hidden()


def test_details_more_results_and_other_samples(visit: Opener) -> None:
    page = visit()
    start = cards(page)
    wait_for_results(page, lambda: page.click("#other-sample"))
    assert cards(page) != start
    choose_reference(page)
    wait_for_results(page, lambda: page.click("#show-more"))
    count = page.eval_on_selector_all("#current .card", "cards => cards.flatMap(({card}) => [card.id, ...card.copies]).length")
    assert count == 48
    page.locator("#current .card .details").first.click()
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
        page.locator("#current .card .details").first.click()
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
        page.wait_for_selector("#current .card .rank:not([hidden])")
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
