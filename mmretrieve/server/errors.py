"""How errors reach a client: each kind with its status, each in one line, without anything of this machine."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
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
from mmretrieve.milvus.client import MilvusUnavailableError
from mmretrieve.service import SearchService

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
OTHER_STATUS = 500
MAX_CHARACTERS = 600  # of a message, which may repeat what a client sent
MAX_VALUE_CHARACTERS = 200  # of a wrong value that a message repeats
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"][^/:\n'\"]*/)+")  # from the root to before the last name
REPEATING = (MissingError, OptionError)  # these repeat what the client sent, which may look like a path
FILTER_ERROR: Final = "filter"  # the kind of an error that already quotes the filter
PYDANTIC_PARTS = re.compile(
    r"(body|query|path)$|constrained-|\w+\["
)  # parts of a location that are pydantic's, not the client's


class ErrorResponse(BaseModel):
    """What went wrong, in one line."""

    error: str = Field(description="what was wrong, what was expected and what to do")


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "wrong use",
        401: "a token or a password is required",
        403: "the request comes from a page of another site",
        404: "no such item",
        405: "the method is not allowed",
        410: "an uploaded image that is not stored any more",
        408: "a body that did not arrive in time",
        413: "too many bytes",
        421: "a host name that this server does not answer to",
        422: "not an image that can be read",
        500: "an error of the server or its gallery",
        502: "a model that the server uses does not answer",
        503: "too many searches are running",
        504: "the search took too long",
    }.items()
}


def one_line(text: str) -> str:
    """The text without line breaks and invalid characters, shortened to MAX_CHARACTERS."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= MAX_CHARACTERS else line[:MAX_CHARACTERS] + " …"


def without_folders(text: str) -> str:
    """`"/home/me/a.png: no such image"` → `"a.png: no such image"`."""
    return FOLDERS.sub("", text)


def error_line(error: Exception, path: object) -> str:
    """The error of the gallery at `path` as a client may read it: one line, without the folders of this machine."""
    line = str(error).removeprefix(f"{path}: ")
    return one_line(line if isinstance(error, REPEATING) else without_folders(line))


def status_of(error: MMRetrieveError) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), OTHER_STATUS)


def add_error_handlers(app: FastAPI, service: SearchService) -> None:
    """Makes every error of this application one line of JSON under `error`."""

    def response(status: int, line: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": line}, status, headers)

    @app.exception_handler(MMRetrieveError)
    async def library_error(_: Request, error: MMRetrieveError) -> JSONResponse:
        status = status_of(error)
        if status == OTHER_STATUS:
            logger.error("%s", error)
        return response(
            status,
            error_line(error, service.retriever.gallery.path),
            {"Retry-After": "1"} if status == STATUS[BusyError] else None,
        )

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return response(STATUS[OptionError], validation_line(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def unexpected_error(_: Request, __: Exception) -> JSONResponse:
        return response(OTHER_STATUS, "an unexpected error; the log of the server has the details")


def parse_json(model: type[M], text: str) -> M:
    """A model from JSON inside something else. Raises OptionError, in one line, if it does not fit."""
    return _validated(model.model_validate_json, text)


def validate(model: type[M], value: object) -> M:
    """A model from parsed JSON. Raises OptionError, in one line, if it does not fit."""
    return _validated(model.model_validate, value)


def _validated(read: Callable[[Any], M], value: Any) -> M:
    try:
        return read(value)
    except ValidationError as error:
        raise OptionError(validation_line(error.errors())) from error


def validation_line(errors: Any) -> str:
    """The first of pydantic's errors in one line: the field, what is wrong, and the value."""
    first = errors[0]
    field = ".".join(part for part in map(str, first["loc"]) if not PYDANTIC_PARTS.match(part))
    value = first.get("input")
    shown = isinstance(value, str | int | float | bool) and first["type"] != FILTER_ERROR
    given = f", got {str(value)[:MAX_VALUE_CHARACTERS]!r}" if shown else ""
    line = f"{first['msg']}{given}"
    return one_line(f"{field[:MAX_VALUE_CHARACTERS]}: {line}" if field else line)
