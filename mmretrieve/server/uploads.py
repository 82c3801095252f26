"""Pictures that were sent to be references: kept for a while, under a name that is their content."""

from __future__ import annotations

import base64
import binascii
import io
import re
import shutil
import tempfile
import time
import weakref
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from mmretrieve.errors import ExpiredError, ImageError
from mmretrieve.images import content_hash, open_image, thumbnail
from mmretrieve.server.limits import Limits

NAME = "the picture"  # what messages call it: it has no name of its own here
PREVIEW_SIDE = 640
TOKEN = re.compile(r"[0-9a-f]{32}")
DATA_URI = re.compile(r"data:[\w/+.;=-]*;base64,", re.IGNORECASE)
ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Uploads:
    """Files in a folder of its own, which goes with this object. The least recently used give way when there are too many.

    A token is the hash of the content: the same picture sent again, to a server that was restarted too, has the same one.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._lock = limits, Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="mmretrieve-uploads-"))
        self._kept: OrderedDict[str, tuple[int, float]] = OrderedDict()  # token → bytes, last used
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def keep(self, content: bytes) -> str:
        """The token under which these bytes are a reference from now on. ImageError where they are no picture."""
        file = io.BytesIO(content)
        file.name = NAME
        open_image(file)
        token = content_hash(io.BytesIO(content))
        with self._lock:
            if token not in self._kept:
                (self._folder / token).write_bytes(content)
            self._kept[token] = (len(content), time.monotonic())
            self._kept.move_to_end(token)
            self._tidy(token)
        return token

    def keep_text(self, text: str) -> str:
        """The same for base64, bare or as a data: address. ImageError for anything else, other addresses above all."""
        start = DATA_URI.match(text)
        coded = text[start.end() :] if start else text
        if ADDRESS.match(coded):
            raise ImageError("an address is not a picture, and none is ever fetched; send its bytes as base64")
        try:
            return self.keep(base64.b64decode("".join(coded.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError("an image is sent as base64, bare or as a data: address") from error

    def path(self, token: str) -> Path:
        """The file of a token. ExpiredError where it is not here, or not any more."""
        with self._lock:
            self._tidy(token)
            if not TOKEN.fullmatch(token) or token not in self._kept:
                raise ExpiredError(
                    "this picture is not here any more: it was left too long, or the server was restarted; send it again"
                )
            self._kept[token] = (self._kept[token][0], time.monotonic())
            self._kept.move_to_end(token)
        return self._folder / token

    def preview(self, token: str) -> bytes:
        """A JPEG picture of it, small enough for a page."""
        return thumbnail(open_image(self.path(token)), PREVIEW_SIDE)

    @property
    def bytes(self) -> int:
        """What all of them take."""
        with self._lock:
            return sum(size for size, _ in self._kept.values())

    def _tidy(self, spared: str) -> None:
        """Forgets what is too old, and the least recently used while there is too much."""
        now, total = time.monotonic(), sum(size for size, _ in self._kept.values())
        for token, (size, used) in list(self._kept.items()):
            too_old = now - used > self._limits.upload_seconds
            if too_old or (total > self._limits.upload_bytes and token != spared):
                del self._kept[token]
                total -= size
                (self._folder / token).unlink(missing_ok=True)
