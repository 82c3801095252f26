"""A page that is handed on says nothing of the machine it was made on: of a file's path only its name stays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

INSIDE = re.compile(r"""(?<![\w./:~<])(?:~|\.{1,2}|[A-Za-z]:)?[\\/](?:[^\s\\/'"<>|,;]+[\\/])+([^\s\\/'"<>|,;]*)""")
WHOLE = re.compile(r"(?:~|\.{1,2}|[A-Za-z]:)?[\\/][^\n]*")


def without_paths(value: Any) -> Any:
    """A text, or anything JSON holds, with each absolute path cut to its last part: "read /data/cirr/a.json" → "read a.json"."""
    if isinstance(value, str):
        return name(value) if WHOLE.fullmatch(value) and ": " not in value else INSIDE.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return value


def name(path: str) -> str:
    """The last part of a path, of either kind of slash: "/data/my set/" → "my set"."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
