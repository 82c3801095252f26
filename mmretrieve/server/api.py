"""The JSON API, under /api. What it answers is documented in its OpenAPI, at /api/openapi.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Query, Request, Response, UploadFile
from pydantic import BaseModel, Field

from mmretrieve.errors import ImageError, MMRetrieveError, OptionError
from mmretrieve.server import limits
from mmretrieve.server.concurrency import BoundedExecutor
from mmretrieve.server.errors import RESPONSES, read, validated
from mmretrieve.server.request_schemas import Id, PublicFilterText, SearchBody
from mmretrieve.server.schemas import (
    ErrorResponse,
    HealthResponse,
    ItemPageResponse,
    ItemResponse,
    SearchResponse,
    UploadResponse,
)
from mmretrieve.server.service import SearchService

JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "a JPEG picture"}}
BYTES = {"type": "string", "format": "binary"}
FORM = {"type": "object", "required": ["image"], "properties": {"image": BYTES}}
PICTURE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": BYTES}, "multipart/form-data": {"schema": FORM}},
    }
}
OneId = Annotated[Id, Query(description="the item's id, as every other answer gives it")]
UploadName = Annotated[str, Path(description="the name that the answer to an upload gives")]


class BatchRequest(BaseModel):
    """Several questions at once. One that is none is answered by what is wrong with it, so anything may stand here."""

    asks: list[Annotated[SearchBody | Any, Field(union_mode="left_to_right")]] = Field(min_length=1, max_length=limits.BATCH)


class BatchResponse(BaseModel):
    """What each question of a batch came to, in their order."""

    answers: list[SearchResponse | ErrorResponse]


def api(answers: SearchService, gate: BoundedExecutor, reading: BoundedExecutor) -> APIRouter:
    """Every route; what computes goes through one gate, what only reads through another."""
    router = APIRouter(prefix="/api", responses=RESPONSES)

    async def answered(said: Any) -> SearchResponse | ErrorResponse:
        try:
            ask = said if isinstance(said, SearchBody) else validated(SearchBody, said)
            return await gate.run(lambda: answers.found(ask))
        except MMRetrieveError as error:
            return ErrorResponse(error=answers.told(error))

    @router.post("/search", summary="Find images like pictures, but …")
    async def search(ask: SearchBody) -> SearchResponse:
        return await gate.run(lambda: answers.found(ask))

    @router.post("/search/form", summary="The same as a form: files, and the rest of the question as JSON")
    async def search_form(
        request: Request,
        image: Annotated[list[UploadFile], File(description="reference pictures")] = [],  # noqa: B006  FastAPI copies it
        ask: Annotated[str, Form(description='the question, such as {"prompt": "in red"}')] = "{}",
    ) -> SearchResponse:
        if strange := set(await request.form()) - {"image", "ask"}:
            raise OptionError(
                f"a form has the fields image and ask, not {', '.join(sorted(strange))}; the question goes into ask, as JSON"
            )
        said = read(SearchBody, ask)
        if len(image) > limits.REFERENCES:
            raise OptionError(f"{len(image)} references; a question takes up to {limits.REFERENCES}")
        contents = [await file.read() for file in image]
        return await gate.run(lambda: answers.found(_with(said, map(answers.uploads.keep, contents))))

    @router.post("/batch", summary="Many questions at once; a wrong one does not spoil the others")
    async def batch(asks: BatchRequest) -> BatchResponse:
        return BatchResponse(answers=[await answered(ask) for ask in asks.asks])

    @router.post("/uploads", summary="Send a picture to be a reference", openapi_extra=PICTURE)
    async def upload(request: Request) -> UploadResponse:
        content = await _sent(request)
        return UploadResponse(upload=await gate.run(lambda: answers.uploads.keep(content)))

    @router.get("/uploads/{upload}", summary="An uploaded picture", response_class=Response, responses=JPEG)
    async def uploaded(upload: UploadName, request: Request) -> Response:
        return await _picture(reading, request, upload, lambda: answers.uploads.preview(upload))

    @router.get("/items", summary="The items of the gallery")
    async def items(
        where: Annotated[PublicFilterText | None, Query(description="an SQL expression over the items' fields")] = None,
        offset: Annotated[int, Query(ge=0, le=10**9, description="how many items to skip")] = 0,
        limit: Annotated[int, Query(ge=1, le=limits.PAGE, description="how many items to list")] = 50,
    ) -> ItemPageResponse:
        return ItemPageResponse.of(await reading.run(lambda: answers.items(where, offset, limit)))

    # An id may hold slashes, dots, anything: it is asked for by parameter, never as a part of the path.
    @router.get("/item", summary="One item")
    async def item(id: OneId) -> ItemResponse:
        return ItemResponse.of(await reading.run(lambda: answers.item(id)))

    @router.get("/thumbnail", summary="Its small picture", response_class=Response, responses=JPEG)
    async def thumbnail(id: OneId, request: Request) -> Response:
        return await _picture(reading, request, await _content(id), lambda: answers.thumbnail(id))

    @router.get("/image", summary="Its picture", response_class=Response, responses=JPEG)
    async def image(id: OneId, request: Request) -> Response:
        return await _picture(reading, request, await _content(id), lambda: answers.picture(id))

    @router.get("/info", summary="What the gallery is")
    async def info() -> dict[str, Any]:
        return await reading.run(answers.info)

    @router.get("/health", summary="Whether the server answers")
    async def health() -> HealthResponse:
        return HealthResponse(items=await reading.run(lambda: len(answers.gallery)))

    async def _content(id_: str) -> str:
        return (await reading.run(lambda: answers.item(id_))).hash

    return router


async def _picture(gate: BoundedExecutor, request: Request, content: str, make: Callable[[], bytes]) -> Response:
    """A JPEG, or word that the browser has it already."""
    tag = f'"{hashlib.blake2b(content.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(await gate.run(make), media_type="image/jpeg", headers=headers)


async def _sent(request: Request) -> bytes:
    """The picture that a request brings: its body, or the first file of a form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        content = await request.body()
    else:
        async with request.form() as form:
            files = [value for value in form.values() if not isinstance(value, str)]
            content = await files[0].read() if files else b""
    if not content:
        raise ImageError("no bytes came; send the picture itself as the body, or as a file of a form")
    return content


def _with(said: SearchBody, uploads: Iterable[str]) -> SearchBody:
    """The question about these pictures too, before those that it names itself. OptionError where it has too many."""
    return validated(SearchBody, said.model_dump(exclude_unset=True) | {"upload": [*uploads, *said.upload]})
