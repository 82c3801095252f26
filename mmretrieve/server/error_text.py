"""What a message to a client may be: one line of valid text that somebody would read, and nothing of this machine."""

from __future__ import annotations

import re

from mmretrieve.errors import MissingError, OptionError

MOST = 600  # characters; what a client sent, and a message repeats, may be longer
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"][^/:\n'\"]*/)+")  # from the root to before the last name
REPEATED = (MissingError, OptionError)  # these say what the client said, which may look like a path


def one_line(text: str) -> str:
    """The text without line breaks, halves of characters, or more than anybody reads."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    return line if len(line) <= MOST else line[:MOST] + " …"


def without_folders(text: str) -> str:
    """`"/home/me/a.png: no such image"` → `"a.png: no such image"`."""
    return FOLDERS.sub("", text)


def told(error: Exception, place: object) -> str:
    """The error of a gallery that lies at `place`, as a client may read it."""
    line = str(error).removeprefix(f"{place}: ")
    return one_line(line if isinstance(error, REPEATED) else without_folders(line))
