"""The page: its handlers as plain functions, its HTML, and the whole of it in a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import mmretrieve as mm
from demo import cards
from demo.handlers import Card, Shop

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KNOBS = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def shop(retriever: mm.Retriever) -> Shop:
    return Shop(retriever)


def test_folding_gives_what_a_fresh_search_gives(shop: Shop) -> None:
    search = shop.begin(None, 5, "in red", "")
    reference = shop.id_at(5)
    folded = shop.rank(search, **KNOBS)
    fresh = shop.retriever.search(reference_id=reference, prompt="in red", k=24, exclude=[reference], **KNOBS)
    assert folded == fresh
    assert reference not in folded.ids


def test_a_file_a_caption_and_words_alone(shop: Shop, photos: Path) -> None:
    file = str(next(photos.rglob("*.png")))
    assert shop.rank(shop.begin(file, None, "", ""), **KNOBS)[0].path == str(Path(file).resolve())
    assert shop.begin(file, None, "in red", "a blue dress").composition.words["text"] == "a blue dress"
    assert shop.begin(None, None, "a red dress", None).composition.names == ("prompt",)
    with pytest.raises(mm.MMRetrieveError):
        shop.begin(None, None, " ", None)


def test_thumbnails_are_by_number_only(shop: Shop) -> None:
    assert shop.thumbnail(0)[:2] == b"\xff\xd8"
    for wrong in (-1, 60):
        with pytest.raises(mm.MMRetrieveError, match="no item number"):
            shop.thumbnail(wrong)


def test_cards_escape_names_and_show_what_each_term_gave(shop: Shop) -> None:
    html = cards.grid(
        [Card(3, HOSTILE, 1, 0.5, (("image", 0.75), ("text", -0.25)))], cards.note({"prompt": HOSTILE}, {}, HOSTILE)
    )
    assert "<img src=x" not in html
    assert 'src="thumbnails/3"' in html
    assert "+0.75" in html
    assert "-0.25" in html
    assert "<script" not in cards.problem("<script>")
    ranking = shop.rank(shop.begin(None, 5, "in red", ""), **KNOBS)
    for card, hit in zip(shop.cards(ranking), ranking, strict=True):
        assert shop.id_at(card.position) == card.name == hit.id
        assert [name for name, _ in card.gave] == ["image", "text", "composed"]
        assert sum(value for _, value in card.gave) == pytest.approx(hit.score)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, encoder: mm.Encoder, photos: Path) -> Iterator[str]:
    """The real server over the sixty drawings and one picture with a hostile name."""
    folder = tmp_path_factory.mktemp("page") / "shop.gallery"
    hostile = tmp_path_factory.mktemp("hostile") / HOSTILE
    Image.new("RGB", (80, 80), "red").save(hostile)
    gallery = mm.Gallery.create(folder, encoder=encoder)
    gallery.add(photos)
    gallery.add(hostile)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "demo", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, f"the demo printed {line!r}"
    url = found[0]
    for _ in range(100):
        try:
            urllib.request.urlopen(url, timeout=5)
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    yield url
    server.send_signal(signal.SIGTERM)
    server.wait(20)
    server.stdout.close()


@pytest.mark.parametrize(
    "path", ["thumbnails/-1", "thumbnails/9999", "thumbnails/..%2f..%2fetc%2fpasswd", "gradio_api/file=/etc/passwd"]
)
def test_nothing_outside_the_gallery_is_served(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/{path}")
    assert 400 <= caught.value.code < 500


@pytest.fixture
def page(address: str) -> Iterator[object]:
    """A browser page that has watched every request and every error."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    outside: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else outside.append(r.url))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(address)
        page.wait_for_selector(".card img")
        yield page
        browser.close()
    assert outside == []
    assert errors == []


def shown(page: object) -> list[str]:
    return page.eval_on_selector_all(".card", "cards => cards.map(card => card.title)")


@pytest.mark.browser
def test_a_person_can_search(page: object, retriever: mm.Retriever, photos: Path) -> None:
    page.locator(".card").nth(2).click()
    page.wait_for_selector(".card .rank")
    chosen = page.locator("#reference img").first
    chosen.wait_for()

    page.fill("#prompt textarea, #prompt input", "in red")
    page.click("#go")
    page.wait_for_selector(".chip.composed")
    assert page.locator(".chip").count() == 1  # the base method: composed alone
    base = shown(page)
    page.get_by_text("Balanced", exact=True).click()
    page.wait_for_selector(".chip.image")
    assert page.locator(".card").first.locator(".gave").count() == 3
    balanced = shown(page)
    assert balanced != base

    page.locator("#beta input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        "titles => [...document.querySelectorAll('.card')].map(c => c.title).join() !== titles", arg=",".join(balanced)
    )
    page.wait_for_function(
        "!document.querySelector('.chip.text') || document.querySelector('.chip.text').textContent.includes('-1.40')"
    )
    followed = shown(page)
    assert followed != balanced

    file = sorted(photos.rglob("*.png"))[7]
    page.get_by_label("Remove Image").click()
    page.set_input_files("#reference input[type=file]", file)
    page.wait_for_function(
        "name => document.querySelector('.card').title.endsWith(name) || document.querySelector('.card .rank')", arg=file.name
    )
    page.wait_for_timeout(800)
    expected = retriever.search(file, "in red", k=24, alpha_image=1.4, alpha_text=1.2, beta=0.0)
    assert [title for title in shown(page) if title != HOSTILE][:20] == list(expected.ids)[:20]
    assert page.locator("img[onerror]").count() == 0


@pytest.mark.browser
def test_bad_input_is_a_message_not_a_crash(page: object, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"not a picture")
    page.set_input_files("#reference input[type=file]", tmp_path / "notes.png")
    page.wait_for_selector("#results .problem")
    said = page.inner_text("#results .problem")
    assert "not an image" in said
    assert "/" not in said
