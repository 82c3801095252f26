"""Images that were sent to be references: stored for a while, named by their content."""

from __future__ import annotations

import base64
import io
import re
import shutil
import tempfile
import time
import weakref
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from threading import Lock
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mmretrieve.errors import BusyError, ExpiredError, ImageError
from mmretrieve.images import URL, content_hash, open_image, thumbnail
from mmretrieve.server.limits import Limits

PREVIEW_SIDE = 640
TOKEN = re.compile(r"[0-9a-f]{32}")
MAX_PATH_CHARACTERS = 4_096
PATH = re.compile(r"[/~.]|[^:]*\.\w+$")
DATA_URI = re.compile(r"data:[\w/+.;=-]*;base64,", re.IGNORECASE)


class Uploads:
    """Files in a folder that is deleted with this object. The least recently used are removed when there are too many.

    A token is the hash of the content: the same image sent again, also to a restarted server, has the same token.
    reads_files: whether `add_text` reads files of this machine.
    """

    def __init__(self, limits: Limits, *, reads_files: bool = False) -> None:
        self._limits, self._lock, self.reads_files = limits, Lock(), reads_files
        self._folder = Path(tempfile.mkdtemp(prefix="mmretrieve-uploads-"))
        self._files: OrderedDict[str, tuple[int, float]] = OrderedDict()  # token → bytes, last used
        self.close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def add(self, content: bytes, name: str = "the upload") -> str:
        """Stores an image and returns its token. Raises ImageError, with that name, for bytes that are not an image, BusyError if the disk is full."""
        file = io.BytesIO(content)
        file.name = name
        open_image(file, max_pixels=self._limits.image_pixels)
        token = content_hash(io.BytesIO(content))
        with self._lock:
            if not (self._folder / token).is_file():  # also if something has cleaned the folder of temporary files
                self._write(token, content)
            self._files[token] = (len(content), time.monotonic())
            self._files.move_to_end(token)
            self._evict(token)
        return token

    def add_text(self, text: str) -> str:
        """Stores an image given as base64, bare or in a data: URL, or as a path where files are read.

        Raises ImageError for anything else, such as another URL.
        """
        if self.reads_files and (file := _file_of(text)) is not None:
            return self.add(file.read_bytes(), file.name)
        try:
            return self.add(_decode(text), "image")
        except ImageError as error:
            if self.reads_files and PATH.match(text):
                raise ImageError(f"{text[:MAX_PATH_CHARACTERS]}: no such file, and not an image as base64") from error
            raise

    def path(self, token: str) -> Path:
        """The file of a token. Raises ExpiredError if it is not stored, or not any more."""
        with self._lock:
            self._evict(token)
            if not TOKEN.fullmatch(token) or token not in self._files or not (self._folder / token).is_file():
                raise ExpiredError(
                    "this upload is not stored any more: it expired, or the server was restarted; send the image again"
                )
            self._files[token] = (self._files[token][0], time.monotonic())
            self._files.move_to_end(token)
        return self._folder / token

    def _write(self, token: str, content: bytes) -> None:
        partial = self._folder / f"{token}.part"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(self._folder / token)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise BusyError(f"images cannot be stored now ({error.strerror}); try again later") from error

    def preview(self, token: str) -> bytes:
        """A JPEG of it, small enough for a page."""
        return thumbnail(open_image(self.path(token)), PREVIEW_SIDE)

    @property
    def bytes(self) -> int:
        """The size of all of them."""
        with self._lock:
            return sum(size for size, _ in self._files.values())

    def _evict(self, spared: str) -> None:
        """Removes what is too old, and the least recently used while all together are too large."""
        now, total = time.monotonic(), sum(size for size, _ in self._files.values())
        for token, (size, used) in list(self._files.items()):
            too_old = now - used > self._limits.upload_seconds
            if too_old or (total > self._limits.upload_bytes and token != spared):
                del self._files[token]
                total -= size
                (self._folder / token).unlink(missing_ok=True)


def _decode(text: str) -> bytes:
    """The bytes of a base64 text, bare or in a data: URL. Raises ImageError for anything else."""
    start = DATA_URI.match(text)
    encoded = text[start.end() :] if start else text
    if URL.match(encoded.lstrip()):
        raise ImageError("a URL is not an image, and URLs are never fetched; send the bytes of the image as base64")
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise ImageError("expected an image as base64, bare or in a data: URL") from error


def _file_of(text: str) -> Path | None:
    """The file of a path or a file: URL; None if there is none."""
    if len(text) > MAX_PATH_CHARACTERS:
        return None
    try:
        path = Path(url2pathname(urlsplit(text).path) if text.startswith("file:") else text).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # not a path: too long a name, an unknown user, a null character
        return None
