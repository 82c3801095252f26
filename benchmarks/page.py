"""How quick the page is in a real browser, on the built-in gallery: `python -m benchmarks.page --out results`.

First paint: from the address to pictures of the gallery on the screen. Search: from a click on "Search" to its results.
A move: from the input of a slider, or of the point, to the end of the frame in which its results stand.
"""

from __future__ import annotations

import argparse
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

import numpy as np

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MOVES, SEARCHES, OPENINGS = 120, 20, 7
PROMPTS = ("in red", "with long sleeves", "striped", "in navy with dots", "without sleeves")
SHOWN = "Number(document.documentElement.dataset.shown ?? 0)"
MOVED = """async (moves) => {
  const shown = () => Number(document.documentElement.dataset.shown);
  const painted = () => new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(null);
  }));
  const slider = document.querySelector('#knob-beta'), pad = document.querySelector('#pad'), spent = { slider: [], point: [] };
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
SEARCHED = """async (prompt) => {
  const shown = () => Number(document.documentElement.dataset.shown), before = shown();
  document.querySelector('#prompt').value = prompt;
  const started = performance.now();
  document.querySelector('#go').click();
  while (shown() === before) await new Promise(requestAnimationFrame);
  return performance.now() - started;
}"""


def measure(address: str) -> dict[str, Any]:
    """Everything, against a server that runs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        first = [_opening(browser, address) for _ in range(OPENINGS)]
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(address)
        page.wait_for_selector(".card img")
        searches = []
        for i in range(SEARCHES):
            page.locator("#current .card").nth(i % 12).click()
            page.wait_for_selector("#current .card .rank:not([hidden])")
            page.wait_for_timeout(300)
            searches.append(page.evaluate(SEARCHED, PROMPTS[i % len(PROMPTS)]))
        moves = page.evaluate(MOVED, MOVES)
        browser.close()
    return {
        "first_paint_ms": _told(first),
        "search_ms": _told(searches),
        **{f"{kind}_ms": _told(spent) for kind, spent in moves.items()},
        "cores": os.cpu_count(),
    }


@contextmanager
def served() -> Iterator[str]:
    """The address of a page over the built-in gallery, in a process of its own."""
    command = [sys.executable, "-m", "demo"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert server.stdout is not None
    try:
        yield next(found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    finally:
        server.terminate()
        server.wait(30)


def _opening(browser: Any, address: str) -> float:
    """Milliseconds until pictures stand there, in a browser that has never seen the page."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("[...document.querySelectorAll('.card img')].some(img => img.complete && img.naturalWidth)")
    spent: float = page.evaluate("performance.now()")
    context.close()
    return spent


def _told(spent: list[float]) -> dict[str, float]:
    return {name: round(float(np.percentile(spent, share)), 1) for name, share in (("p50", 50), ("p95", 95))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for page.json")
    options = parser.parse_args()
    with served() as address:
        found = measure(address)
    print(json.dumps(found, indent=1))
    if options.out:
        (options.out / "page.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
