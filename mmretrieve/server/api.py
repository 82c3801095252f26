"""The JSON API, under /api. It documents itself as OpenAPI, at /api/openapi.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, Response, UploadFile
from pydantic import WithJsonSchema

from mmretrieve.errors import ImageError, MMRetrieveError, OptionError, unknown
from mmretrieve.server import limits
from mmretrieve.server.context import AppContext
from mmretrieve.server.errors import RESPONSES, ErrorResponse, error_line, parse_json, validate
from mmretrieve.server.schemas import (
    BatchRequest,
    BatchResponse,
    HealthResponse,
    Id,
    InfoResponse,
    ItemPageResponse,
    ItemResponse,
    PublicFilterText,
    SearchBody,
    SearchResponse,
    SessionRequest,
    UploadResponse,
)

FORM_FIELDS = ("image", "request")
BINARY = {"type": "string", "format": "binary"}
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {"schema": BINARY}}, "description": "a JPEG image"}}
IMAGE_BODY = {  # the file of a form, which is accepted too, is left out: generators of clients expect one kind of body
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": BINARY}}}
}
ImageFile = Annotated[UploadFile, WithJsonSchema(BINARY)]
OneId = Annotated[Id, Query(description="the item's id, as every other response gives it")]
UploadName = Annotated[str, Path(description="the name that the response to an upload gives")]


def api_routes(context: AppContext) -> APIRouter:
    """Every route; what computes goes through one executor, what only reads through another."""
    router = APIRouter(prefix="/api", responses=RESPONSES, dependencies=[Depends(_check_query_names)])
    service, uploads = context.service, context.uploads
    search_executor, read_executor = context.search_executor, context.read_executor

    async def answer(body: Any) -> SearchResponse | ErrorResponse:
        try:
            checked = body if isinstance(body, SearchBody) else validate(SearchBody, body)
            return await context.search(checked)
        except MMRetrieveError as error:
            return ErrorResponse(error=error_line(error, service.retriever.gallery))

    @router.post("/search", summary="Search with reference images and prompts")
    async def search(body: SearchBody) -> SearchResponse:
        return await context.search(body)

    @router.post("/search/form", summary="The same as a form: files, and the rest of the request as JSON")
    async def search_form(
        request: Request,
        image: Annotated[list[ImageFile], File(description="reference images", default_factory=list)],
        json_text: Annotated[str, Form(alias="request", description='the request, such as {"prompt": "in red"}')] = "{}",
    ) -> SearchResponse:
        form = await request.form()
        if unexpected := set(form) - {*FORM_FIELDS, "ask"}:
            raise OptionError(
                f"{unknown('field of a form', min(unexpected), FORM_FIELDS)}; send the fields of a search as JSON in request"
            )
        body = parse_json(SearchBody, str(form.get("ask", json_text)))  # ask: the earlier name of request
        if len(image) > limits.REFERENCES:
            raise OptionError(f"{len(image)} references; a request takes up to {limits.REFERENCES}")
        return await context.search(body, [await file.read() for file in image])

    @router.post("/batch", summary="Many requests at once; a wrong one does not affect the others")
    async def batch(batch: BatchRequest) -> BatchResponse:
        return BatchResponse(answers=[await answer(body) for body in batch.requests])

    @router.post("/session", summary="Search in several turns: the client sends all of them")
    async def session(turns: SessionRequest) -> SearchResponse:
        return await context.search(turns.to_search())

    @router.post("/uploads", summary="Send an image to be a reference", openapi_extra=IMAGE_BODY)
    async def upload(request: Request) -> UploadResponse:
        content = await _image_bytes(request)
        return UploadResponse(upload=await search_executor.run(lambda: uploads.add(content)))

    @router.get("/uploads/{upload}", summary="An uploaded image", response_class=Response, responses=JPEG)
    async def uploaded(upload: UploadName, request: Request) -> Response:
        return await _jpeg(context, request, upload, lambda: uploads.preview(upload))

    @router.get("/items", summary="The items of the gallery")
    async def items(
        where: Annotated[PublicFilterText | None, Query(description="an SQL expression over the items' fields")] = None,
        offset: Annotated[int, Query(ge=0, le=10**9, description="how many items to skip")] = 0,
        limit: Annotated[int, Query(ge=1, le=limits.PAGE, description="how many items to list")] = 50,
    ) -> ItemPageResponse:
        executor = read_executor if where is None else context.filter_executor
        return ItemPageResponse.of(await executor.run(lambda: service.items(where, offset, limit)))

    # An id may hold slashes and dots: it is a query parameter, never a part of the path.
    @router.get("/item", summary="One item")
    async def item(id: OneId) -> ItemResponse:
        return ItemResponse.of(await read_executor.run(lambda: service.item(id)))

    @router.get("/thumbnail", summary="Its thumbnail", response_class=Response, responses=JPEG)
    async def thumbnail(id: OneId, request: Request) -> Response:
        return await _jpeg(context, request, await content_of(id), lambda: service.thumbnail(id))

    @router.get("/image", summary="Its image", response_class=Response, responses=JPEG)
    async def image(id: OneId, request: Request) -> Response:
        return await _jpeg(context, request, await content_of(id), lambda: service.picture(id))

    @router.get("/info", summary="What the gallery is")
    async def info() -> InfoResponse:
        return await read_executor.run(lambda: InfoResponse.of(service.info()))

    @router.get("/health", summary="Whether the server answers")
    def health() -> HealthResponse:  # in a thread of the framework: it waits for no other request
        return HealthResponse(items=len(service.gallery))

    async def content_of(id_: str) -> str:
        return (await read_executor.run(lambda: service.item(id_))).hash

    return router


async def _check_query_names(request: Request) -> None:
    """Raises OptionError for a parameter of the URL that the route does not have: a misspelled filter must not list everything."""
    expected = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in expected:
            raise (
                unknown("parameter", name, expected)
                if expected
                else OptionError(f"unknown parameter {name!r:.100}; leave it out")
            )


async def _jpeg(context: AppContext, request: Request, content: str, make: Callable[[], bytes]) -> Response:
    """A JPEG, or 304 if the browser has it already."""
    tag = f'"{hashlib.blake2b(content.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(await context.read_executor.run(make), media_type="image/jpeg", headers=headers)


async def _image_bytes(request: Request) -> bytes:
    """The image of a request: its body, or the first file of a form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        content = await request.body()
    else:
        async with request.form() as form:
            files = [value for value in form.values() if not isinstance(value, str)]
            content = await files[0].read() if files else b""
    if not content:
        raise ImageError("the request has no image; send its bytes as the body, or as a file of a form")
    return content
