"""The speed of the page in a real browser, with the built-in gallery: `python -m benchmarks.page --out results`.

First paint: from navigation to the first images of the gallery. Search: from a click on "Search" to its results. Move: from the
input of a slider, or of the point of the plane, to the end of the frame with its results.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from benchmarks.script import make_parser, write_result

BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
N_MOVES, N_SEARCHES, N_PAGE_LOADS = 120, 20, 7
PROMPTS = ("in red", "with long sleeves", "striped", "in navy with dots", "without sleeves")
SHOWN = "Number(document.documentElement.dataset.shown ?? 0)"
MOVE_SCRIPT = """async (moves) => {
  const shown = () => Number(document.documentElement.dataset.shown);
  const painted = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(null);
  }));
  const slider = document.querySelector('#control-beta'), pad = document.querySelector('#pad'), spent = { slider: [], point: [] };
  for (let i = 0; i < moves; i++) {
    const before = shown(), started = performance.now(), kind = i % 2 ? 'slider' : 'point';
    if (kind === 'slider') {
      slider.value = (i * 0.37) % 1;
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    } else pad.dispatchEvent(new KeyboardEvent('keydown', { key: i % 4 ? 'ArrowUp' : 'ArrowDown', bubbles: true, cancelable: true }));
    while (shown() === before) await new Promise((again) => setTimeout(again));
    await painted();
    spent[kind].push(performance.now() - started);
  }
  return spent;
}"""
SEARCH_SCRIPT = """async (prompt) => {
  const shown = () => Number(document.documentElement.dataset.shown), before = shown();
  document.querySelector('#prompt').value = prompt;
  const started = performance.now();
  document.querySelector('#go').click();
  while (shown() === before) await new Promise(requestAnimationFrame);
  return performance.now() - started;
}"""


def measure(address: str) -> dict[str, Any]:
    """All measurements, with the server at that address."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER_FLAGS)
        first = [_measure_first_paint(browser, address) for _ in range(N_PAGE_LOADS)]
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address)
        page.wait_for_selector(".card img")
        references = page.eval_on_selector_all("#current .card", "cards => cards.map(card => card.dataset.id)")
        searches = []
        for i in range(N_SEARCHES):
            page.goto(f"{address}/?q={_link(references[i])}")
            page.wait_for_function(f"{SHOWN} > 0")
            page.wait_for_timeout(300)
            searches.append(page.evaluate(SEARCH_SCRIPT, PROMPTS[i % len(PROMPTS)]))
        moves = page.evaluate(MOVE_SCRIPT, N_MOVES)
        browser.close()
    return {
        "first_paint_ms": _percentiles(first),
        "search_ms": _percentiles(searches),
        **{f"{kind}_ms": _percentiles(milliseconds) for kind, milliseconds in moves.items()},
        "cores": os.cpu_count(),
    }


@contextmanager
def serve_page() -> Iterator[str]:
    """Serves the page with the built-in gallery in a new process, and yields its address."""
    command = [sys.executable, "-m", "demo"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert server.stdout is not None
    try:
        yield next(match[0] for line in server.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
    finally:
        server.terminate()
        server.wait(30)


def _link(reference: str) -> str:
    """The state of a page with this reference, as an address holds it."""
    return quote(json.dumps({"references": [{"id": reference, "region": None, "weight": 1}]}))


def _measure_first_paint(browser: Any, address: str) -> float:
    """Milliseconds from navigation to the first images, with an empty browser cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("[...document.querySelectorAll('.card img')].some(img => img.complete && img.naturalWidth)")
    milliseconds: float = page.evaluate("performance.now()")
    context.close()
    return milliseconds


def _percentiles(milliseconds: list[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(milliseconds, share)), 1) for name, share in (("p50", 50), ("p95", 95))}


def main() -> None:
    options = make_parser(__doc__, "page").parse_args()
    with serve_page() as address:
        result = measure(address)
    write_result(result, options.out, "page")


if __name__ == "__main__":
    main()
