"""The API and its own description of itself: whatever is sent, the answers are the documented ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers import FUZZ
from live_server import served

import mmretrieve as mm
from mmretrieve.server.app import create_app
from mmretrieve.server.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore:.* texts? cut to the")  # prompts at the edge of what is allowed are long
EXAMPLES = 8 * FUZZ  # at random, of each route, after some six hundred at the edges


@pytest.fixture(scope="module")
def link(retriever: mm.Retriever) -> Iterator[str]:
    with served(create_app(retriever, limits=Limits(body_bytes=2_000_000))) as link:
        yield link


@pytest.mark.property
def test_answers_are_as_documented(link: str, tmp_path: Path) -> None:
    # what contradicts itself is refused, which no schema can say: so not all that fits the schema is accepted
    how = ["--phases=coverage,fuzzing", f"--max-examples={EXAMPLES}", "--workers=2"]
    how += ["--generation-deterministic"] if FUZZ == 1 else []
    words = ["run", f"{link}/api/openapi.json", *how, "--exclude-checks=positive_data_acceptance", "--warnings=off"]
    program = Path(sys.executable).with_name("schemathesis")
    ended = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60 * EXAMPLES)
    assert ended.returncode == 0, ended.stdout[-6_000:]
    assert "Tested: 12" in ended.stdout


def test_every_route_is_described(link: str) -> None:
    described = httpx.get(f"{link}/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/search", "/api/search/form", "/api/batch", "/api/session", "/api/uploads", "/api/uploads/{upload}", "/api/items", "/api/item",
        "/api/thumbnail", "/api/image", "/api/info", "/api/health",
    }  # fmt: skip
    ask = described["components"]["schemas"]["SearchBody"]
    assert ask["additionalProperties"] is False
    assert all(field.get("description") for field in ask["properties"].values())
    for path, methods in described["paths"].items():
        for route in methods.values():
            assert route["summary"], path
            assert {"400", "401", "413", "503", "504"} <= set(route["responses"]), path
            errors = {status: response for status, response in route["responses"].items() if status >= "400"}
            for response in errors.values():
                assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
