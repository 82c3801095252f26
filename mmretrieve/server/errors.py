"""How errors are told: each kind its status, each in one line, and nothing of this machine in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from mmretrieve.errors import (
    BusyError,
    EndpointError,
    ExpiredError,
    ImageError,
    MissingError,
    MMRetrieveError,
    OptionError,
    SearchTimeoutError,
)
from mmretrieve.milvus.errors import MilvusUnavailableError
from mmretrieve.server.error_text import one_line
from mmretrieve.server.request_schemas import FILTER_ERROR
from mmretrieve.server.schemas import ErrorResponse
from mmretrieve.server.service import SearchService

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)
STATUS: dict[type[MMRetrieveError], int] = {
    OptionError: 400,
    MissingError: 404,
    ExpiredError: 410,
    ImageError: 422,
    EndpointError: 502,
    BusyError: 503,
    MilvusUnavailableError: 503,
    SearchTimeoutError: 504,
}
OTHERWISE = 500
KINDS = re.compile(r"(body|query|path)$|constrained-|\w+\[")  # what of a place is pydantic's own, not the client's
SEEN = 200  # characters of a wrong value that a message repeats
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": said}
    for status, said in {
        400: "wrong use",
        401: "this server asks for a token or a password",
        403: "a page of another site asked",
        404: "no such item",
        405: "another method is meant",
        410: "an uploaded picture that is not here any more",
        408: "a body that did not come in time",
        413: "too many bytes",
        421: "a name of this server that it does not answer to",
        422: "not a picture that can be read",
        500: "something is wrong with the server or its gallery",
        502: "a model that the server asks does not answer",
        503: "too many searches are under way",
        504: "this took too long",
    }.items()
}


def status_of(error: MMRetrieveError) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), OTHERWISE)


def install(app: FastAPI, answers: SearchService) -> None:
    """Makes every error of this application one line of JSON under `error`."""

    def problem(status: int, line: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": line}, status, headers)

    @app.exception_handler(MMRetrieveError)
    async def ours(_: Request, error: MMRetrieveError) -> JSONResponse:
        status = status_of(error)
        if status == OTHERWISE:
            logger.error("%s", error)
        return problem(status, answers.told(error), {"Retry-After": "1"} if status == STATUS[BusyError] else None)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        return problem(STATUS[OptionError], said(error.errors()))

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return problem(OTHERWISE, "something went wrong here; the server's log says what")


def read(kind: type[M], text: str) -> M:
    """What a client sent as JSON inside something else. OptionError, in one line, where it is not of that kind."""
    return _checked(kind.model_validate_json, text)


def validated(kind: type[M], value: object) -> M:
    """The same of what was JSON."""
    return _checked(kind.model_validate, value)


def _checked(read: Callable[[Any], M], value: Any) -> M:
    try:
        return read(value)
    except ValidationError as error:
        raise OptionError(said(error.errors())) from error


def said(errors: Any) -> str:
    """The first of pydantic's errors in one line: where, what is wrong, and what was there."""
    first = errors[0]
    place = ".".join(part for part in map(str, first["loc"]) if not KINDS.match(part))
    value = first.get("input")
    given = (
        f", got {str(value)[:SEEN]!r}" if isinstance(value, str | int | float | bool) and first["type"] != FILTER_ERROR else ""
    )
    return one_line(f"{place[:SEEN]}: {first['msg']}{given}" if place else f"{first['msg']}{given}")
