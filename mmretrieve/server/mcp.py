"""The gallery as tools that agents call (MCP): search, session, similar, item, info. Ids and scores first, thumbnails on request."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
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
from pydantic import BaseModel, Field, ValidationError, model_validator

from mmretrieve import __version__
from mmretrieve.errors import MMRetrieveError, unknown
from mmretrieve.request import DEFAULTS, REQUEST_FIELDS
from mmretrieve.server import limits
from mmretrieve.server.agents import AgentSearch, inlined, read_list, read_lists
from mmretrieve.server.context import AppContext
from mmretrieve.server.errors import error_line, validation_line
from mmretrieve.server.schemas import (
    Id,
    InfoResponse,
    ItemResponse,
    SearchBody,
    SearchResponse,
    SessionRequest,
    StrictModel,
)

MAX_THUMBNAILS = 20  # hits whose thumbnails a result holds
INSTRUCTIONS = (
    "Finds images of one gallery that are like a reference image, changed as a prompt says. "
    "Search with text, with an item's id, with an image, or with several of them; `similar` finds the neighbors of one item. "
    "To refine a search, send all turns of the conversation to `session`."
)
FILE_HELP = ", or the path of a file"  # of an image, for an agent on this machine


class ThumbnailArguments(StrictModel):
    thumbnails: bool = Field(default=False, description=f"send thumbnails too, of the first {MAX_THUMBNAILS} hits")


class SearchArguments(AgentSearch, ThumbnailArguments):
    """A composed query."""


class SessionArguments(SessionRequest, ThumbnailArguments):
    """All turns of a conversation."""

    @model_validator(mode="before")
    @classmethod
    def _read_turns(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "turns" not in value:
            return value
        turns = read_list("turns", value["turns"])
        return value | {"turns": list(map(read_lists, turns)) if isinstance(turns, list) else turns}


class SimilarArguments(ThumbnailArguments):
    id: Id = Field(description="the item to compare with")
    k: int = Field(default=DEFAULTS["k"], ge=1, le=limits.K, description=REQUEST_FIELDS["k"].help)


class ItemArguments(ThumbnailArguments):
    id: Id = Field(description="the item to describe")


class NoArguments(StrictModel):
    """The tool takes no arguments."""


@dataclass(frozen=True)
class McpTool:
    """A tool: its description, the models of its arguments and its result, and its function.

    run: computes the result, and the items whose thumbnails go with it.
    """

    description: str
    arguments: type[StrictModel]
    result: type[BaseModel]
    run: Callable[[Any], Awaitable[tuple[BaseModel, Sequence[str]]]]


def make_tools(context: AppContext) -> dict[str, McpTool]:
    """The tools by name."""
    service = context.service

    async def search(body: SearchBody) -> tuple[SearchResponse, Sequence[str]]:
        response = await context.search(body)
        return response, [hit.id for hit in response.hits[:MAX_THUMBNAILS]]

    async def session(arguments: SessionArguments) -> tuple[SearchResponse, Sequence[str]]:
        return await search(arguments.to_search())

    async def similar(arguments: SimilarArguments) -> tuple[SearchResponse, Sequence[str]]:
        body = {"reference_id": arguments.id, "k": arguments.k, "exclude_reference": True}
        return await search(SearchBody.model_validate(body))

    async def item(arguments: ItemArguments) -> tuple[ItemResponse, Sequence[str]]:
        return ItemResponse.of(await context.read_executor.run(lambda: service.item(arguments.id))), [arguments.id]

    async def info(_: NoArguments) -> tuple[InfoResponse, Sequence[str]]:
        return await context.read_executor.run(lambda: InfoResponse.of(service.info())), []

    return {
        "search": McpTool(
            "Find images like a reference, changed as the prompt says",
            SearchArguments,
            SearchResponse,
            search,
        ),
        "session": McpTool(
            "Refine a search in several turns, such as 'in red', then 'longer'",
            SessionArguments,
            SearchResponse,
            session,
        ),
        "similar": McpTool("Find images like one item of the gallery", SimilarArguments, SearchResponse, similar),
        "item": McpTool(
            "Return the fields and the size of one item",
            ItemArguments,
            ItemResponse,
            item,
        ),
        "info": McpTool(
            "Return what the gallery is: items, encoder, fields for filters",
            NoArguments,
            InfoResponse,
            info,
        ),
    }


def make_mcp_server(context: AppContext) -> Server[Any]:
    """The MCP server; `streamable_http_app()` of it speaks HTTP, `serve_stdio` speaks over stdin and stdout."""
    tools = make_tools(context)
    described = [_describe(name, tool, context.uploads.reads_files) for name, tool in tools.items()]

    async def list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=described)

    async def call_tool(_: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            return _error_result(str(unknown("tool", params.name, tools)))
        try:
            arguments = tool.arguments.model_validate(params.arguments or {})
            result, ids = await tool.run(arguments)
            shown = ids if getattr(arguments, "thumbnails", False) else ()
            return await context.read_executor.run(lambda: _call_result(context, result, shown))
        except ValidationError as error:
            return _error_result(validation_line(error.errors()))
        except MMRetrieveError as error:
            return _error_result(error_line(error, context.service.retriever.gallery))

    return Server(
        "mmretrieve", version=__version__, instructions=INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )


async def serve_stdio(server: Server[Any]) -> None:
    """Serves one client over stdin and stdout, until it disconnects."""
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def _describe(name: str, tool: McpTool, reads_files: bool) -> Tool:
    arguments = inlined(tool.arguments.model_json_schema())
    for fields in (arguments["properties"], arguments["properties"].get("turns", {}).get("items", {}).get("properties", {})):
        if reads_files and "image" in fields:
            fields["image"]["description"] += FILE_HELP
    return Tool(
        name=name,
        description=tool.description,
        input_schema=arguments,
        output_schema=inlined(tool.result.model_json_schema()),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )


def _call_result(context: AppContext, result: BaseModel, ids: Sequence[str]) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(type="text", text=result.model_dump_json())]
    content += [_image_content(context.service.thumbnail(id_)) for id_ in ids]
    return CallToolResult(content=content, structured_content=result.model_dump(mode="json"))


def _image_content(jpeg: bytes) -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(jpeg).decode(), mime_type="image/jpeg")


def _error_result(line: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=line)], is_error=True)
