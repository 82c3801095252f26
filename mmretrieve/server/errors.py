"""How errors reach a client: each kind with its status, each in one line, without anything of this machine."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

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
    did_you_mean,
)
from mmretrieve.gallery.base import GalleryBase
from mmretrieve.milvus.client import MilvusUnavailableError
from mmretrieve.server.bodies import count_values, too_many_values
from mmretrieve.server.limits import JSON_VALUES
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
ROUTING_ERRORS = {
    404: "no such route; see /docs or /api/openapi.json",
    405: "the route does not have this method; see /docs or /api/openapi.json",
}
MAX_CHARACTERS = 600  # of a message, which may repeat what a client sent
MAX_VALUE_CHARACTERS = 200  # of a wrong value that a message repeats
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"][^/:\n'\"]*/)+")  # from the root to before the last name
REPEATING = (MissingError, OptionError)  # these repeat what the client sent, which may look like a path
# the parts of a location that are pydantic's and not names of fields: sources, positions, and the types of a union
PYDANTIC_PARTS = re.compile(r"(body|query|path|str|int|float|bool)$|\d+$|constrained-|[\w-]+\[|[A-Z]\w*$")
NAMES = re.compile(r"'([^']+)'")  # those that pydantic expects: "'auto', 'base' or 'balanced'"
EXPECTED = {
    "string_type": "be text",
    "string_unicode": "be text in valid Unicode",
    "string_too_short": "have {min_length} or more characters",
    "string_too_long": "have up to {max_length:,} characters",
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_parsing_size": "be a smaller whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "finite_number": "be a finite number",
    "greater_than_equal": "be at least {ge}",
    "less_than_equal": "be at most {le}",
    "value_error": "be a file",  # of FastAPI, for a form; our validators raise errors of their own
    "bool_type": "be true or false",
    "bool_parsing": "be true or false",
    "literal_error": "be {expected}",
    "list_type": "be a list",
    "too_short": "have {min_length} or more values",
    "too_long": "have up to {max_length} values",
    "dict_type": 'be an object such as {{"image": 1, "prompt": 2}}',
    "model_type": "be a JSON object",
    "model_attributes_type": "be a JSON object (Content-Type: application/json)",
}
"""Type of pydantic's error → what the field must do, with pydantic's context."""


class ErrorResponse(BaseModel):
    """What went wrong, in one line."""

    error: str = Field(description="what was wrong, what was expected and what to do")


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in {
        400: "wrong use",
        401: "a token or a password is required",
        403: "the request comes from a page of another site",
        404: "no such item or route",
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


def error_line(error: Exception, gallery: GalleryBase[Any]) -> str:
    """The error of a gallery as a client may read it: one line, without the folders of this machine."""
    line, model = str(error).removeprefix(f"{gallery.path}: "), gallery.encoder_identity.model
    if Path(model).is_absolute():
        line = line.replace(model, Path(model).name)
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
            error_line(error, service.retriever.gallery),
            {"Retry-After": "1"} if status == STATUS[BusyError] else None,
        )

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return response(STATUS[OptionError], validation_line(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if detail == HTTPStatus(error.status_code).phrase:  # the framework's words, which say nothing of what to do
            detail = ROUTING_ERRORS.get(error.status_code, detail)
        return response(error.status_code, detail, error.headers)

    @app.exception_handler(Exception)
    async def unexpected_error(_: Request, __: Exception) -> JSONResponse:
        return response(OTHER_STATUS, "an unexpected error; the log of the server has the details")


def parse_json(model: type[M], text: str) -> M:
    """A model from JSON inside something else. Raises OptionError, in one line, if it does not fit."""
    check_json(text)
    return _validated(lambda: model.model_validate_json(text))


def check_json(text: str) -> None:
    """Raises OptionError for a JSON text of more values than a body may have: the marks in it may have been escaped."""
    if count_values(text.encode(errors="replace")) > JSON_VALUES:
        raise OptionError(too_many_values())


def validate(model: type[M], value: object) -> M:
    """A model from parsed JSON. Raises OptionError, in one line, if it does not fit."""
    return _validated(lambda: model.model_validate(value))


def _validated(read: Callable[[], M]) -> M:
    try:
        return read()
    except ValidationError as error:
        raise OptionError(validation_line(error.errors())) from error


def validation_line(errors: Sequence[Any]) -> str:
    """Pydantic's errors about the first wrong field as one sentence: the field, what it must be, and what it is.

    >>> validation_line([{"type": "less_than_equal", "loc": ("body", "beta"), "input": 2, "ctx": {"le": 1.0}}])
    'beta must be at most 1, got 2'
    """
    paths = [[part for part in map(str, error["loc"]) if not PYDANTIC_PARTS.match(part)] for error in errors]
    # a union has an error for each of its types: those that went deepest came closest
    depth = max(len(path) for path in paths if path[:1] == paths[0][:1])
    field = next(".".join(path) for path in paths if path[:1] == paths[0][:1] and len(path) == depth)
    closest = [error for error, path in zip(errors, paths, strict=True) if ".".join(path) == field]
    return one_line(_sentence(field[:MAX_VALUE_CHARACTERS], closest))


def _sentence(field: str, errors: Sequence[Any]) -> str:
    first, context = errors[0], errors[0].get("ctx", {})
    if first["type"] == "json_invalid":
        position = next((f" at character {part}" for part in first["loc"] if isinstance(part, int)), "")
        return f"the request is not valid JSON: {context['error']}{position}"
    if first["type"] == "missing":
        return f"{field} is missing; every request needs it" if field else "the request has no body; send a JSON object"
    if ours := [str(error["msg"]) for error in errors if error["type"] not in EXPECTED]:  # sentences already
        return ours[0] if ours[0].startswith(field) else f"{field}: {ours[0]}"
    phrases = list(dict.fromkeys(EXPECTED[error["type"]].format(**_readable(error.get("ctx", {}))) for error in errors))
    if all(phrase.startswith("be ") for phrase in phrases):  # "be a number or 'auto'"
        phrases[1:] = [phrase.removeprefix("be ") for phrase in phrases[1:]]
    return f"{field or 'the request'} must {' or '.join(phrases)}{_given(first)}{_suggestion(errors)}"


def _suggestion(errors: Sequence[Any]) -> str:
    """The most similar of the names that the field accepts."""
    names = [name for error in errors if error["type"] == "literal_error" for name in NAMES.findall(error["ctx"]["expected"])]
    return did_you_mean(errors[0].get("input"), names)


def _readable(context: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds as people write them: `{"le": 1000000.0}` → `{"le": "1,000,000"}`."""
    return {name: f"{value:,.10g}" if isinstance(value, float) else value for name, value in context.items()}


def _given(error: Any) -> str:
    """What was given instead, for the end of a sentence."""
    value = error.get("input")
    if isinstance(value, str):
        is_length = error["type"].startswith("string_too")
        return f", got {len(value):,}" if is_length else f", got {value[:MAX_VALUE_CHARACTERS]!r}"
    if isinstance(value, list | tuple):
        return f", got {len(value)}" if error["type"].startswith("too_") else ", got a list"
    if isinstance(value, dict):
        return ", got an object"
    return f", got {json.dumps(value)[:MAX_VALUE_CHARACTERS]}" if value is None or isinstance(value, int | float) else ""
