"""One server for all tests of the page, and a browser for each file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import CHROMIUM, FLAGS, DemoServer, Opener


@pytest.fixture(scope="session")
def server() -> Iterator[DemoServer]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    served = DemoServer()
    yield served
    served.stop()


@pytest.fixture(scope="module")  # an open browser runs an event loop in this thread, and other files of tests need theirs
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


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
