"""The HTML of rankings in a real browser: hostile ids run nothing, and light and dark themes are readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mmretrieve as mm

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)>"
CONTRAST = """([text, ground]) => {
  const light = (color) => color.map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const [high, low] = [light(text), light(ground)].sort((one, other) => other - one);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_ranking_in_a_browser(browser: Any, tmp_path: Path, scheme: str) -> None:
    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    ranking = retriever.search(reference_id="red-checked-dress-1815.png", prompt="in blue", k=4)
    hits = [mm.Hit(hit.rank, HOSTILE if hit.rank == 2 else hit.id, hit.score, hit.contributions) for hit in ranking]
    shown = mm.Ranking(
        tuple(hits), 4, 2000, ranking.weights, {"text": HOSTILE}, HOSTILE, why=ranking.why, gallery=ranking.gallery
    )
    path, problems = shown.save(tmp_path / "ranking.html"), []
    page = browser.new_page(color_scheme=scheme, viewport={"width": 700, "height": 400})
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else problems.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_timeout(100)
    assert problems == []
    assert page.locator("img").count() == 3
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.get_by_text(HOSTILE).count() >= 1, "it is text"
    canvas, text = (
        [255, 255, 255] if scheme == "light" else [18, 18, 18],
        page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)"),
    )
    assert page.evaluate(CONTRAST, [text, canvas]) > 7
    page.close()
