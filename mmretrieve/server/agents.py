"""What agents send: searches whose lists may be JSON texts. And what they read: schemas without references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from mmretrieve.errors import OptionError
from mmretrieve.options import load_json
from mmretrieve.request import REQUEST_FIELDS
from mmretrieve.server.errors import check_json
from mmretrieve.server.schemas import SearchBody, error_of
from mmretrieve.session import DROP

LISTS = ("upload", DROP, *(name for name, declared in REQUEST_FIELDS.items() if declared.several))
REFERENCES = "#/$defs/"


class AgentSearch(SearchBody):
    """A composed query."""

    @model_validator(mode="before")
    @classmethod
    def _read_lists(cls, value: Any) -> Any:
        return read_lists(value)


def read_lists(value: Any) -> Any:
    """A search with the lists that agents send as JSON text; anything else as it is."""
    if not isinstance(value, dict):
        return value
    return {name: read_list(name, one) if name in LISTS else one for name, one in value.items()}


def read_list(name: str, value: Any) -> Any:
    """The list of a JSON text; other values as they are. Raises an error for a text in brackets that is not JSON.

    >>> read_list("prompt", '["in red", "striped"]'), read_list("prompt", "in red")
    (['in red', 'striped'], 'in red')
    """
    if not isinstance(value, str) or not (value.lstrip().startswith("[") and value.rstrip().endswith("]")):
        return value
    try:
        check_json(value)
        return load_json(value)
    except OptionError as error:
        raise error_of(str(error)) from None
    except (ValueError, RecursionError):  # a number of too many digits is a ValueError
        raise error_of(f"{name} is a text in brackets that is not a list as JSON; send a list, [{json.dumps(value)}]") from None


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with each reference replaced by what it refers to, because many agents do not follow references."""
    definitions = schema.get("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(one) for one in part]
        if not isinstance(part, dict):
            return part
        target = inline(definitions[part["$ref"].removeprefix(REFERENCES)]) if "$ref" in part else {}
        return target | {name: inline(one) for name, one in part.items() if name not in ("$ref", "$defs")}

    result: dict[str, Any] = inline(schema)
    return result
