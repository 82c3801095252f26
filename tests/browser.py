"""The page in a browser, as tests use it: the server as a process, and what a person does on the page."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmretrieve as mm

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
Opener = Callable[..., Any]


class DemoServer:
    """`python -m demo` in a new process."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.start()

    def start(self, *more: str) -> None:
        command = [sys.executable, "-m", "demo", *self.words, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        assert self.process.stdout is not None
        matches = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in self.process.stdout)
        match = next(filter(None, matches))
        self.address, self.port = match[0], match[1]

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) in (0, -signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.close()


def wait_for_results(page: Any, act: Callable[[], object]) -> None:
    """Calls `act`, and waits until new results are shown."""
    before = page.evaluate("Number(document.documentElement.dataset.shown)")
    act()
    page.wait_for_function("before => Number(document.documentElement.dataset.shown) > before", arg=before)
    page.wait_for_timeout(120)


def cards(page: Any, column: str = "#current") -> list[str]:
    return page.eval_on_selector_all(f"{column} .card", "cards => cards.map(card => card.dataset.id)")


def choose_reference(page: Any, number: int = 3) -> str:
    """Searches with a result. Returns its id."""
    id_ = cards(page)[number]
    page.locator("#current .card").nth(number).hover()
    wait_for_results(page, lambda: page.locator("#current .card .choose").nth(number).click())
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


def fine_tune(page: Any) -> None:
    """Opens the panel with the method, the rule and the weights."""
    page.evaluate("document.querySelector('#weights-panel').open = true")


def is_automatic(page: Any) -> bool:
    return page.locator("#automatic").get_attribute("aria-pressed") == "true"
