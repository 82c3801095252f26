"""The JSON API, under /api. What it answers is documented in its OpenAPI, at /api/openapi.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel, Field

from mmretrieve.errors import ImageError, MMRetrieveError
from mmretrieve.server import limits
from mmretrieve.server.answers import Answers
from mmretrieve.server.asks import Ask, Id
from mmretrieve.server.found import Found, FoundItem, FoundItems, Health, Problem, Uploaded
from mmretrieve.server.gate import Gate
from mmretrieve.server.problems import RESPONSES, read

JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "a JPEG picture"}}
OneId = Annotated[Id, Query(description="the item's id, as every other answer gives it")]


class Batch(BaseModel):
    """Several questions at once."""

    asks: list[Ask] = Field(min_length=1, max_length=limits.BATCH)


class Answered(BaseModel):
    """What each question of a batch came to, in their order."""

    answers: list[Found | Problem]


def api(answers: Answers, gate: Gate, reading: Gate) -> APIRouter:
    """Every route; what computes goes through one gate, what only reads through another."""
    router = APIRouter(prefix="/api", responses=RESPONSES)

    def found(ask: Ask) -> Found:
        ranking = answers.search(ask)
        return Found.of(ranking, answers.fields(ranking))

    def found_or_not(ask: Ask) -> Found | Problem:
        try:
            return found(ask)
        except MMRetrieveError as error:
            return Problem(error=answers.told(error))

    @router.post("/search", summary="Find images like pictures, but …")
    async def search(ask: Ask) -> Found:
        return await gate.run(lambda: found(ask))

    @router.post("/search/form", summary="The same as a form: files, and the rest of the question as JSON")
    async def search_form(
        image: Annotated[list[UploadFile], File(description="reference pictures")] = [],  # noqa: B006  FastAPI copies it
        ask: Annotated[str, Form(description='the question, such as {"prompt": "in red"}')] = "{}",
    ) -> Found:
        contents = [await file.read() for file in image]

        def asked() -> Found:
            said = read(Ask, ask)
            said.upload = [*map(answers.uploads.keep, contents), *said.upload]
            return found(said)

        return await gate.run(asked)

    @router.post("/batch", summary="Many questions at once; a wrong one does not spoil the others")
    async def batch(asks: Batch) -> Answered:
        return Answered(answers=[await gate.run(lambda ask=ask: found_or_not(ask)) for ask in asks.asks])  # type: ignore[misc]

    @router.post("/uploads", summary="Send a picture to be a reference", openapi_extra=_any_image())
    async def upload(request: Request) -> Uploaded:
        content = await request.body()
        if not content:
            raise ImageError("no bytes came; send the picture itself as the body")
        return Uploaded(upload=await gate.run(lambda: answers.uploads.keep(content)))

    @router.get("/uploads/{upload}", summary="An uploaded picture", response_class=Response, responses=JPEG)
    async def uploaded(upload: str, request: Request) -> Response:
        return await _picture(reading, request, upload, lambda: answers.uploads.preview(upload))

    @router.get("/items", summary="The items of the gallery")
    async def items(
        where: Annotated[str | None, Query(max_length=limits.WHERE_CHARACTERS)] = None,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=limits.PAGE)] = 50,
    ) -> FoundItems:
        return FoundItems.of(await reading.run(lambda: answers.items(where, offset, limit)))

    # An id may hold slashes, dots, anything: it is asked for by parameter, never as a part of the path.
    @router.get("/item", summary="One item")
    async def item(id: OneId) -> FoundItem:
        return FoundItem.of(await reading.run(lambda: answers.item(id)))

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
    async def health() -> Health:
        return Health(items=len(answers.gallery))

    async def _content(id_: str) -> str:
        return (await reading.run(lambda: answers.item(id_))).hash

    return router


async def _picture(gate: Gate, request: Request, content: str, make: Callable[[], bytes]) -> Response:
    """A JPEG, or word that the browser has it already."""
    tag = f'"{hashlib.blake2b(content.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(await gate.run(make), media_type="image/jpeg", headers=headers)


def _any_image() -> dict[str, Any]:
    body = {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    return {"requestBody": body}
