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
from browser import DemoServer, Opener, cards, choose_reference, fine_tune, search, wait_for_results, wardrobe
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


@pytest.mark.slow
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
