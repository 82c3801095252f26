"""The pages of the API and of the MCP tools, from the JSON schemas that a server gives out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.generate.markdown import anchor, sentence, table

Schema = Mapping[str, Any]
LINKS = "#/components/schemas/"
API_INTRODUCTION = (
    "Every server describes its API at `/api/openapi.json`; this page is written from that document. "
    "[The server](../guides/server.md) shows requests, authentication and limits."
)
MCP_INTRODUCTION = (
    "A server offers these tools at `/mcp`, and `mmretrieve serve G --stdio` offers them over standard input and output. This page "
    "is written from the list that a server gives out. [The server](../guides/server.md) shows how to connect an agent."
)


def served() -> tuple[Schema, list[Schema]]:
    """The OpenAPI document and the list of MCP tools of a server of an empty gallery."""
    from starlette.testclient import TestClient

    import mmretrieve as mm
    from mmretrieve.server.app import create_app

    class UnusedEncoder:
        identity = mm.EncoderIdentity("none", "none", "none")
        dim = 2

        def encode_images(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("nothing is searched")

        encode_texts = encode_images

    with tempfile.TemporaryDirectory() as folder:
        encoder = UnusedEncoder()
        retriever = mm.Retriever(mm.Gallery.create(Path(folder, "empty.gallery"), encoder=encoder), encoder)
        with TestClient(create_app(retriever), base_url="http://127.0.0.1:7860") as client:
            openapi: Schema = client.get("/api/openapi.json").json()
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            tools = client.post("/mcp", json=call, headers={"Accept": "application/json, text/event-stream"}).json()
    return openapi, tools["result"]["tools"]


def api_blocks(openapi: Schema) -> Iterator[str]:
    """Every route, error and schema of the API. UndocumentedError for a route, a parameter or a field without a description."""
    yield API_INTRODUCTION
    schemas: Mapping[str, Schema] = openapi["components"]["schemas"]
    routes = {f"{method.upper()} {path}": route for path, of in openapi["paths"].items() for method, route in of.items()}
    rows = [(f"[`{name}`](#{anchor(name)})", sentence(route.get("summary"), name)) for name, route in routes.items()]
    yield table(("route", "what it does"), rows)
    for name, route in routes.items():
        yield from _route(name, route, schemas)
    yield "## Errors"
    yield 'Every error is a JSON object with one line: `{"error": "…"}`.'
    responses = [response for route in routes.values() for response in route["responses"].items()]
    yield table(
        ("status", "meaning"),
        sorted({status: response["description"] for status, response in responses if status >= "400"}.items()),
    )
    yield "## Schemas"
    for name, schema in sorted(schemas.items()):
        if not name.startswith(("Body_", "HTTPValidation", "Validation")):
            yield f"### `{name}` {{ #schema-{anchor(name)} }}"
            yield sentence(schema.get("description"), name)
            yield _fields(name, schema)


def tool_blocks(tools: Sequence[Schema]) -> Iterator[str]:
    """Every MCP tool with its arguments. UndocumentedError for one without a description."""
    yield MCP_INTRODUCTION
    rows = [(f"[`{tool['name']}`](#{anchor(tool['name'])})", sentence(tool.get("description"), tool["name"])) for tool in tools]
    yield table(("tool", "what it does"), rows)
    for tool, (_, description) in zip(tools, rows, strict=True):
        yield f"## `{tool['name']}`"
        yield description
        yield _fields(tool["name"], tool["inputSchema"])


def _route(name: str, route: Schema, schemas: Mapping[str, Schema]) -> Iterator[str]:
    yield f"## `{name}` {{ #{anchor(name)} }}"
    yield sentence(route["summary"], name)
    if parameters := route.get("parameters"):
        yield table(("parameter", "type", "meaning"), (_row(name, one["name"], one["schema"], one) for one in parameters))
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        form = schemas.get(content["schema"].get("$ref", "").removeprefix(LINKS), {})
        if kind == "multipart/form-data" and form:
            yield f"Body: `{kind}` with these fields:"
            yield _fields(name, {**form, "additionalProperties": False})
        else:
            yield f"Body: `{kind}`, {_type(content['schema']) if '$ref' in content['schema'] else 'the bytes of the image'}"
    for status, answer in route["responses"].items():
        for kind, content in answer.get("content", {}).items() if status < "300" else ():
            schema = content.get("schema")
            yield f"Answer {status}: `{kind}`" + (f", {_type(schema)}" if schema else "")


def _fields(where: str, schema: Schema) -> str:
    """A table of an object's fields. UndocumentedError for a field without a description."""
    properties = schema.get("properties")
    if not properties:
        return "It takes no arguments." if schema.get("type") == "object" else f"One of {_type(schema)}."
    required = (
        schema.get("required", ()) if schema.get("additionalProperties") is False else ()
    )  # a response has all its fields
    rows = [_row(where, name, of, {"required": name in required}) for name, of in properties.items()]
    return table(("field", "type", "meaning"), rows)


def _row(where: str, name: str, schema: Schema, described: Schema) -> tuple[str, str, str]:
    meaning = sentence(described.get("description") or schema.get("description"), f"{where}: {name}")
    default = schema.get("default")
    if default not in (None, [], {}, False) and "default" not in meaning:
        meaning = f"{meaning} Default: `{default}`."
    return f"`{name}`" + (" (required)" if described.get("required") else ""), _type(schema), meaning


def _type(schema: Schema) -> str:
    """A JSON schema in a few words: `"string, or a list of at most 8"`."""
    if reference := schema.get("$ref"):
        name = reference.rsplit("/", 1)[1]
        return f"[`{name}`](#schema-{anchor(name)})" if reference.startswith(LINKS) else f"`{name}`"
    if options := schema.get("anyOf"):
        return _union([option for option in options if option.get("type") != "null"])
    if choices := schema.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("format") == "binary":
        return "file"
    if "items" in schema:
        return f"{_length(schema)} {_type(schema['items'])}"
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        return f"object of {_type(values)}"
    return str(schema.get("type", "any JSON value")) + _bounds(schema)


def _union(options: Sequence[Schema]) -> str:
    """One type, or several; a list of a type that is there by itself is "a list"."""
    names = [_type(option) for option in options]
    shown = []
    for option, name in zip(options, names, strict=True):
        item = _type(option["items"]) if "items" in option else None
        shown.append(_length(option).removesuffix(" of") if item in names else name)
    return " or ".join(dict.fromkeys(shown))


def _length(schema: Schema) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if high is None:
        return "list of"
    return f"list ({high}) of" if low == high else f"list (≤ {high:,}) of"


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 1_000_000:
        return f" ({low:g} to {high:g})"
    return f" (≤ {schema['maxLength']:,} characters)" if "maxLength" in schema else ""
