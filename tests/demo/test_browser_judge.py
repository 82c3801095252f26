"""The judge of the page in a real browser: it looks at results that are shown already, and its own take their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from browser import Opener, cards, choose_reference, fine_tune, search, wait_for_results, wardrobe

import mmretrieve as mm

pytestmark = pytest.mark.browser
LOOKING = "Looking at the best 20…"


def choose_judge(page: Any, name: str = "local") -> Callable[[], object]:
    return lambda: (fine_tune(page), page.select_option("#judge", name))


def hold_judged(page: Any, answer: Callable[[Any], object]) -> None:
    """Calls `answer` with the route of each request that names a judge; others pass."""
    page.route("**/page/view", lambda route: answer(route) if "judge" in route.request.post_data_json else route.continue_())


def without_copies(ranking: mm.Ranking, page: Any) -> list[str]:
    """The ids of a ranking without near-copies of those before them, which the page hides."""
    assert cards(page)[0] == ranking[0].id
    return [id_ for id_ in ranking.ids if id_ in cards(page)]


def wait_for_judge(page: Any, act: Callable[[], object]) -> None:
    act()
    page.wait_for_function("document.querySelector('#judging').textContent !== ''")
    page.wait_for_function("document.querySelector('#judging').textContent === ''")


def test_results_of_the_judge_take_the_place_of_those_before(visit: Opener) -> None:
    page = visit()
    names = page.eval_on_selector_all("#judge option", "options => options.map(option => option.textContent)")
    assert names == ["none", "attributes", "local"]
    reference = choose_reference(page)
    search(page, "in red")
    before = cards(page)
    seen: list[tuple[str, list[str], str]] = []
    focus = "document.activeElement.closest('.card')?.dataset.id"

    def while_it_looks(route: Any) -> None:
        page.locator("#current .card .picture").nth(6).focus()
        seen.append((page.inner_text("#judging"), cards(page), page.evaluate(focus)))
        route.continue_()

    hold_judged(page, while_it_looks)
    choose_judge(page)()
    page.wait_for_function(
        "before => JSON.stringify([...document.querySelectorAll('#current .card')].map(c => c.dataset.id)) !== before",
        arg=json.dumps(before, separators=(",", ":")),
    )
    assert seen == [(LOOKING, before, before[6])]
    assert page.inner_text("#judging") == ""
    assert page.evaluate(focus) == before[6], "the card keeps the focus where it moves"
    ranking = wardrobe().search(reference_id=reference, prompt="in red", exclude_reference=True, k=24, judge="local")
    assert cards(page) == without_copies(ranking, page)
    page.click("#why-toggle")
    assert "judge" in page.locator("#current .card .term").all_inner_texts()
    page.reload()
    page.wait_for_function(
        "document.querySelector('#current .card .term')?.parentElement.parentElement.textContent.includes('judge')"
    )
    assert page.input_value("#judge") == "local"


def test_how_much_the_judge_counts(visit: Opener) -> None:
    page = visit()
    assert page.is_disabled("#judge-weight")
    reference = choose_reference(page)
    search(page, "in red")
    choose_judge(page, "attributes")()
    page.select_option("#judge-k", "5")
    wait_for_judge(page, lambda: page.select_option("#judge-weight", "inf"))
    options: dict[str, Any] = {"judge": "attributes", "judge_k": 5, "judge_weight": "inf"}
    ranking = wardrobe().search(reference_id=reference, prompt="in red", exclude_reference=True, k=24, **options)
    assert cards(page) == without_copies(ranking, page)


def test_a_newer_query_stops_the_judge(visit: Opener) -> None:
    page = visit(expected=("ERR_FAILED",))
    held: list[Any] = []
    hold_judged(page, held.append)
    choose_reference(page)
    search(page, "in red")
    choose_judge(page)()
    page.wait_for_timeout(700)
    assert [len(held), page.inner_text("#judging")] == [1, LOOKING]
    search(page, "with dots")
    after = cards(page)
    held[0].abort()
    page.wait_for_timeout(200)
    assert cards(page) == after
    wait_for_results(page, lambda: (page.unroute("**/page/view"), page.select_option("#judge", "")))
    assert [cards(page), page.inner_text("#judging")] == [after, ""]


def test_a_judge_that_fails_leaves_the_results(visit: Opener) -> None:
    page = visit(expected=("503",))
    choose_reference(page)
    search(page, "in red")
    before, answered = cards(page), Event()

    def fail(route: Any) -> None:
        route.fulfill(status=503, json={"error": "The server is busy."})
        answered.set()

    hold_judged(page, fail)
    choose_judge(page)()
    page.wait_for_function("document.querySelector('#judging').textContent.includes('without the judge')")
    assert answered.is_set()
    assert page.inner_text("#judging") == "The server is busy. This is the order without the judge."
    assert cards(page) == before
