"""The gallery as tools that agents call (MCP): search, similar, item, info. Ids and scores first, pictures where asked for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmretrieve import __version__
from mmretrieve.errors import MMRetrieveError
from mmretrieve.options import DEFAULT_K
from mmretrieve.server import limits
from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.errors import said
from mmretrieve.server.request_schemas import Id, SearchBody
from mmretrieve.server.schemas import ItemResponse, SearchResponse
from mmretrieve.server.service import SearchService

PICTURED = 20  # hits whose thumbnails an answer holds at most
INSTRUCTIONS = (
    "Finds images of one gallery that are like a reference image, but different as a prompt says. "
    "Search with words, with an item's id, with an image as base64, or with several of them; `similar` looks around one item."
)


class ImageArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")
    thumbnails: bool = Field(default=False, description=f"send small pictures too, of the first {PICTURED} hits")


class SearchArguments(SearchBody, ImageArguments):
    """A composed query."""


class SimilarArguments(ImageArguments):
    id: Id = Field(description="the item to look around")
    k: int = Field(default=DEFAULT_K, ge=1, le=limits.K, description="how many items")


class ItemArguments(ImageArguments):
    id: Id = Field(description="the item to describe")


class NoArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InfoResult(BaseModel):
    """What the gallery is."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class ToolResult:
    """What a tool gives: data, and the items whose pictures go with it."""

    data: BaseModel
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class McpTool:
    """A tool: what it is for, what it takes and gives, and how."""

    told: str
    takes: type[BaseModel]
    gives: type[BaseModel]
    run: Callable[[Any], ToolResult]


def tools(answers: SearchService) -> dict[str, McpTool]:
    """By name."""

    def ranked(found: SearchResponse) -> ToolResult:
        return ToolResult(found, tuple(hit.id for hit in found.hits[:PICTURED]))

    return {
        "search": McpTool(
            "Find images like a reference, but different as the prompt says",
            SearchArguments,
            SearchResponse,
            lambda ask: ranked(answers.found(ask)),
        ),
        "similar": McpTool(
            "Find images like one item of the gallery",
            SimilarArguments,
            SearchResponse,
            lambda ask: ranked(answers.similar(ask.id, ask.k)),
        ),
        "item": McpTool(
            "Tell what is known of one item",
            ItemArguments,
            ItemResponse,
            lambda ask: ToolResult(ItemResponse.of(answers.item(ask.id)), (ask.id,)),
        ),
        "info": McpTool(
            "Tell what the gallery is: items, encoder, fields for filters",
            NoArguments,
            InfoResult,
            lambda _: ToolResult(InfoResult(**answers.info())),
        ),
    }


def agent_server(answers: SearchService, gate: BoundedExecutor) -> Server[Any]:
    """The MCP server; `streamable_http_app()` of it speaks HTTP, `speak` speaks over stdin and stdout."""
    known = tools(answers)

    async def listed(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_described(name, tool) for name, tool in known.items()])

    async def call(_: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = known.get(params.name)
        if tool is None:
            return _failed(f"unknown tool {params.name!r}; there are: {', '.join(known)}")
        try:
            ask = tool.takes.model_validate(params.arguments or {})
            return await gate.run(lambda: _result(answers, tool.run(ask), getattr(ask, "thumbnails", False)))
        except ValidationError as error:
            return _failed(said(error.errors()))
        except MMRetrieveError as error:
            return _failed(answers.told(error))

    return Server("mmretrieve", version=__version__, instructions=INSTRUCTIONS, on_list_tools=listed, on_call_tool=call)


async def speak(server: Server[Any]) -> None:
    """One client over stdin and stdout, until it leaves."""
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (coming, going):
        await server.run(coming, going, server.create_initialization_options())


def _described(name: str, tool: McpTool) -> Tool:
    return Tool(
        name=name,
        description=tool.told,
        input_schema=tool.takes.model_json_schema(),
        output_schema=tool.gives.model_json_schema(),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _result(answers: SearchService, answer: ToolResult, thumbnails: bool) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(type="text", text=answer.data.model_dump_json())]
    if thumbnails:
        content += [_image(answers.thumbnail(id_)) for id_ in answer.shown]
    return CallToolResult(content=content, structured_content=answer.data.model_dump(mode="json"))


def _image(jpeg: bytes) -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(jpeg).decode(), mime_type="image/jpeg")


def _failed(line: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=line)], is_error=True)
