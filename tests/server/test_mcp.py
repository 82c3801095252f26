"""The MCP tools, through the client of the protocol: over HTTP, over stdin and stdout, and on a server with a page."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from live_server import ROOT, SlowRetriever, served
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult
from PIL import Image

import mmretrieve as mm
from mmretrieve.filters import parse, to_dict
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth
from mmretrieve.server.limits import Limits
from mmretrieve.server.mcp import MAX_THUMBNAILS

TOKEN = "correct-horse"
KNOBS = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
Using = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def link(retriever: mm.Retriever) -> Iterator[str]:
    with served(create_app(retriever)) as link:
        yield f"{link}/mcp"


def use(server: Any, using: Using, **how: Any) -> None:
    """Connects, does that, and leaves."""

    async def session() -> None:
        async with Client(server, read_timeout_seconds=60, **how) as client:
            await using(client)

    anyio.run(session)


def with_token(link: str, token: str) -> AbstractAsyncContextManager[Any]:
    return streamable_http_client(link, http_client=httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}))


def stdio(gallery: Path) -> StdioServerParameters:
    known = {name: value for name, value in os.environ.items() if name in ("PYTHONPATH", "MMRETRIEVE_CACHE")}
    words = ["-m", "mmretrieve.cli.main", "serve", str(gallery), "--stdio"]
    return StdioServerParameters(command=sys.executable, args=words, cwd=ROOT, env=known)


def hits_of(answer: CallToolResult) -> list[tuple[str, float, dict[str, float]]]:
    assert not answer.is_error, answer.content
    return [(hit["id"], hit["score"], hit["contributions"]) for hit in answer.structured_content["hits"]]


def expected(ranking: mm.Ranking) -> list[tuple[str, float, dict[str, float]]]:
    return [(hit.id, hit.score, dict(hit.contributions)) for hit in ranking]


def refused(answer: CallToolResult) -> str:
    """The one line of a tool's error."""
    assert answer.is_error
    (content,) = answer.content
    assert "\n" not in content.text
    assert "Traceback" not in content.text
    line: str = content.text
    return line


async def assert_all_tools_work(client: Client, retriever: mm.Retriever, photos: Path) -> None:
    """What every tool gives, whatever carries it."""
    listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(listed) == {"search", "session", "similar", "item", "info"}
    assert all(tool.annotations.read_only_hint and tool.output_schema and tool.description for tool in listed.values())
    file, item = sorted(photos.rglob("*.png"))[7], retriever.gallery.ids[11]

    coded = base64.b64encode(file.read_bytes()).decode()
    ask = {"image": coded, "prompt": "in red", "k": 7, "exclude_reference": True} | KNOBS
    by_picture = await client.call_tool("search", ask)
    assert hits_of(by_picture) == expected(retriever.search(file, "in red", k=7, exclude_reference=True, **KNOBS))
    assert next(iter(by_picture.structured_content)) == "hits"
    assert [content.type for content in by_picture.content] == ["text"]
    by_id = await client.call_tool("search", {"reference_id": item, "prompt": "in red"})
    assert hits_of(by_id) == expected(retriever.search(reference_id=item, prompt="in red"))
    long = {"reference_id": item, "prompt": "in red", "caption": "a photo of a long blue dress " * 9}
    shortened = (await client.call_tool("search", long)).structured_content
    assert shortened["words"]["composed"].endswith(", in red")
    assert shortened["note"] == retriever.search(**long).note
    assert "words, so that the prompt fits into the encoder's 40 tokens" in shortened["note"]
    filtered = await client.call_tool("search", {"prompt": "in red", "where": to_dict(parse("width < 90"))})
    assert hits_of(filtered) == expected(retriever.search(prompt="in red", where="width < 90"))
    similar = await client.call_tool("similar", {"id": item, "k": 4})
    assert hits_of(similar) == expected(retriever.search(reference_id=item, k=4, exclude_reference=True))

    turns: list[dict[str, Any]] = [{"reference_id": item, "prompt": "in red"}, {"prompt": "with dots", "k": 4}]
    session = await client.call_tool("session", {"turns": turns, "decay": 0.5})
    assert hits_of(session) == expected(retriever.search(**mm.merge_turns(turns, 0.5)))

    known = await client.call_tool("item", {"id": item})
    assert (known.structured_content["id"], known.structured_content["width"]) == (item, 96)
    assert "path" not in known.structured_content
    info = await client.call_tool("info", {})
    assert info.structured_content["items"] == len(retriever.gallery)
    assert str(retriever.gallery.path) not in info.content[0].text

    pictured = await client.call_tool("search", {"prompt": "in red", "k": 30, "thumbnails": True})
    pictures = [content for content in pictured.content if content.type == "image"]
    assert len(pictures) == MAX_THUMBNAILS
    for content, hit in zip(pictures, pictured.structured_content["hits"], strict=False):
        assert content.mime_type == "image/jpeg"
        assert base64.b64decode(content.data) == retriever.gallery.thumbnail(hit["id"])
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].data))) as picture:
        assert picture.format == "JPEG"

    wrong = {
        "no item 'none' in this gallery": ("similar", {"id": "none"}),
        "the query is empty; give image,": ("search", {}),
        "unknown field 'colour'; choose from: ": ("search", {"colour": "red"}),
        "k must be at most 1000, got 5000": ("similar", {"id": item, "k": 5_000}),
        "a URL is not an image": ("search", {"image": "http://example.com/a.jpg"}),
        "image: not an image": ("search", {"image": base64.b64encode(b"nothing").decode()}),
        "id is missing; every request needs it": ("item", {}),
        "turns must have 1 or more values, got 0": ("session", {"turns": []}),
        "turns must be a list, got 3": ("session", {"turns": 3}),
        "unknown tool 'serch'; did you mean 'search'? choose from: search, session, similar, item, info": ("serch", {}),
        "source tells where files are": ("search", {"prompt": "a", "where": "items.[source] LIKE '/%'"}),
    }
    for line, (tool, arguments) in wrong.items():
        assert line in refused(await client.call_tool(tool, arguments))


async def assert_lists_as_text_work(client: Client, retriever: mm.Retriever) -> None:
    """Several prompts, ids and numbers as agents send them."""
    first, second = retriever.gallery.ids[3], retriever.gallery.ids[11]
    several = {"reference_id": [first, second], "prompt": ["in red", "striped"], "strength": [1, 0.5], "image_weight": [2, 1]}
    ranking = expected(retriever.search(**several, k=5))
    as_text = {name: json.dumps(value) for name, value in several.items()}
    assert hits_of(await client.call_tool("search", as_text | {"k": 5})) == ranking
    region = {"reference_id": first, "region": [0, 0, 1, 0.5]}
    of_region = expected(retriever.search(**region, k=5))
    for text in ("[0, 0, 1, 0.5]", " [[0, 0, 1, 0.5]]\n"):
        assert hits_of(await client.call_tool("search", region | {"region": text, "k": 5})) == of_region
    one = expected(retriever.search(prompt="in red", k=5))
    assert hits_of(await client.call_tool("search", {"prompt": "in red", "avoid": "[]", "exclude": "[ ]", "k": 5})) == one
    turns = [as_text | {"where": "width < 90"}, {"k": 5, "drop": '["where"]'}]
    for sent in (turns, json.dumps(turns)):
        assert hits_of(await client.call_tool("session", {"turns": sent})) == ranking
    wrong = {
        "prompt must be text, got 1": {"prompt": "[1]"},
        "prompt is a text in brackets that is not a list as JSON; send a list, [\"['in red', 'striped']\"]": {
            "prompt": "['in red', 'striped']"
        },
        "strength must be a number, got '1'": {"prompt": "in red", "strength": '["1"]'},
    }
    for line, arguments in wrong.items():
        assert line in refused(await client.call_tool("search", arguments))
    in_brackets = await client.call_tool("search", {"prompt": ["[in red]"], "k": 5})
    assert hits_of(in_brackets) == expected(retriever.search(prompt="[in red]", k=5))


def test_lists_as_json_text_are_lists(link: str, retriever: mm.Retriever) -> None:
    use(link, lambda client: assert_lists_as_text_work(client, retriever))


def test_schemas_of_tools_have_no_references(link: str) -> None:
    async def ask(client: Client) -> None:
        for tool in (await client.list_tools()).tools:
            for schema in (tool.input_schema, tool.output_schema):
                assert "$ref" not in json.dumps(schema)
                assert "$defs" not in schema
            if tool.name == "search":
                hit = tool.output_schema["properties"]["hits"]["items"]["properties"]
                assert {"rank", "id", "score", "contributions"} <= set(hit)
                assert "path of a file" not in tool.input_schema["properties"]["image"]["description"]

    use(link, ask)


def test_over_stdin_and_stdout_a_path_is_an_image(made: Path, encoder: mm.Encoder, photos: Path, tmp_path: Path) -> None:
    file = sorted(photos.rglob("*.png"))[7]
    named = tmp_path / "a b.png"
    named.write_bytes(file.read_bytes())
    ranking = expected(mm.Retriever.open(made, encoder=encoder).search(file, "in red", k=5))

    async def ask(client: Client) -> None:
        for place in (str(file), named.as_uri(), [str(named)], base64.b64encode(file.read_bytes()).decode()):
            query = {"image": place, "prompt": "in red", "k": 5}
            assert hits_of(await client.call_tool("search", query)) == ranking
        assert hits_of(await client.call_tool("session", {"turns": [query]})) == ranking
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        of_turn = listed["session"].input_schema["properties"]["turns"]["items"]
        for schema in (listed["search"].input_schema, of_turn):
            assert "path of a file" in schema["properties"]["image"]["description"]
        for place, line in {
            str(tmp_path / "none.png"): "none.png: no such file, and not an image as base64",
            str(tmp_path): f"{tmp_path.name}: no such file",
            "/abcdefg": "abcdefg: no such file",
            "none.png": "none.png: no such file",
            "http://example.com/a.jpg": "a URL is not an image",
            str(ROOT / "README.md"): "README.md: not an image",
        }.items():
            assert line in refused(await client.call_tool("search", {"image": place}))

    use(stdio(made), ask)


def test_over_http_a_path_is_not_read(link: str, photos: Path) -> None:
    async def ask(client: Client) -> None:
        file = sorted(photos.rglob("*.png"))[7]
        for place in (str(file), file.as_uri()):
            assert "image" in refused(await client.call_tool("search", {"image": place}))

    use(link, ask)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_over_http(link: str, retriever: mm.Retriever, photos: Path, mode: str) -> None:
    use(link, lambda client: assert_all_tools_work(client, retriever, photos), mode=mode)


def test_over_stdin_and_stdout(made: Path, encoder: mm.Encoder, photos: Path) -> None:
    use(stdio(made), lambda client: assert_all_tools_work(client, mm.Retriever.open(made, encoder=encoder), photos))


def test_stdout_contains_only_the_protocol(made: Path) -> None:
    hello = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
    place = stdio(made)
    ended = subprocess.run([place.command, *place.args], input=hello, capture_output=True, text=True, cwd=ROOT, timeout=120)
    (line,) = ended.stdout.splitlines()
    assert '"serverInfo":{"name":"mmretrieve"' in line
    assert (ended.returncode, ended.stderr) == (0, "")


def test_tools_require_the_token(retriever: mm.Retriever) -> None:
    async def ask(client: Client) -> None:
        assert not (await client.call_tool("info", {})).is_error

    with served(create_app(retriever, auth=Auth(token=TOKEN))) as link:
        use(with_token(f"{link}/mcp", TOKEN), ask)
        with pytest.raises(ExceptionGroup):
            use(with_token(f"{link}/mcp", "wrong-horse"), ask)
        assert httpx2.post(f"{link}/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).status_code == 401


def test_tools_share_the_time_limit_of_requests(retriever: mm.Retriever) -> None:
    async def ask(client: Client) -> None:
        assert "took longer than 0.1 seconds" in refused(await client.call_tool("search", {"prompt": "in red"}))

    slow = SlowRetriever(retriever)
    with served(create_app(slow, limits=Limits(seconds=0.1))) as link:
        use(f"{link}/mcp", ask)
        slow.let.set()


def test_one_server_has_tools_and_a_page(retriever: mm.Retriever) -> None:
    from demo.app import page

    async def ask(client: Client) -> None:
        ranking = retriever.search(prompt="in red")
        assert hits_of(await client.call_tool("search", {"prompt": "in red"})) == expected(ranking)

    with served(create_app(retriever, page=page)) as link:
        use(f"{link}/mcp", ask)
        assert "gradio" in httpx2.get(link).text
        assert httpx2.get(f"{link}/api/health").status_code == 200
