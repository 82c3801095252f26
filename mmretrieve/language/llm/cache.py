"""What models said, kept: one file of JSON lines that is only ever added to, and from which a run can be replayed.

A line says who was asked what, and what came back:

    {"task": "rewrite", "model": "…", "asked": {"caption": "a dog", "prompt": "in snow", …}, "said": "a dog in snow"}

`asked` holds everything that determines the answer, and nothing else does: it is the key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock

from mmretrieve.errors import MMRetrieveError
from mmretrieve.images import ImageLike, content_hash, open_image

Asked = Mapping[str, object]
BEGINNING = b'{"task": '  # of every line, so that a torn one is told from a foreign file
POLL_SECONDS = 0.01


class AnswerCache:
    """What models said, in the file at `path`, which is made when there is something to keep.

    Each record is one line, written at once and flushed to the disk: a killed process loses at most the record it was
    writing, whose torn line is cut off before the next one is written. Threads and processes may share a file. Where one
    thing was answered twice, the first answer stands. Fields that are not known here are left alone.

    Raises MMRetrieveError, naming file and line, for anything else that is not a record; the file is not touched then.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._said: dict[str, Any] = {}
        self._end = 0  # bytes read so far, all of them whole lines
        self._lines = 0
        self._lock = Lock()
        self._file_lock = FileLock(f"{self.path}.lock", poll_interval=POLL_SECONDS)
        if not self.path.absolute().parent.is_dir():
            raise MMRetrieveError(
                f"{self.path}: there is no folder {self.path.absolute().parent} to keep answers in; make it first"
            )
        self._read_on()

    def __len__(self) -> int:
        return len(self._said)

    def get(self, task: str, model: str, asked: Asked) -> Any | None:
        """What was said, or None where this was not asked yet."""
        return self._said.get(key_of(task, model, asked))

    def said(self, task: str) -> Iterator[tuple[Asked, Any]]:
        """What was asked under a task, by any model, with its answers, in the file's order."""
        for key, said in list(self._said.items()):
            its_task, _, asked = json.loads(key)
            if its_task == task:
                yield asked, said

    def put(self, task: str, model: str, asked: Asked, said: object) -> None:
        """Keeps an answer: when this returns it is on the disk. One that is known already is not written again."""
        record = json.dumps({"task": task, "model": model, "asked": dict(asked), "said": said}, ensure_ascii=False)
        try:
            with self._lock, self._file_lock:
                rest = self._read_on()
                if key_of(task, model, asked) not in self._said:
                    self._append(record.encode(errors="backslashreplace") + b"\n", rest)
                    self._read_on()
        except OSError as error:
            raise MMRetrieveError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def _append(self, line: bytes, rest: bytes) -> None:
        """In one write, after a rest that is whole; a torn one is cut off."""
        with self.path.open("ab") as file:
            if _parsed(rest) is None:
                file.truncate(self._end)
            else:
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _read_on(self) -> bytes:
        """Reads what was added since the last time, and returns what follows the last end of a line: a torn line, or nothing."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._end)
                *lines, rest = file.read().split(b"\n")
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise MMRetrieveError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        for line in lines:
            self._learn(line)
            self._end += len(line) + 1
            self._lines += 1
        if not BEGINNING.startswith(rest[: len(BEGINNING)]) or _parsed(rest) is not None:
            self._learn(rest)
        return rest

    def _learn(self, line: bytes) -> None:
        record = _parsed(line)
        if record is not None:
            self._said.setdefault(*record)
        elif line.strip():
            raise MMRetrieveError(
                f"{self.path}, line {self._lines + 1}: not a record of a memory (JSON with task, model, asked and said); "
                "mend or remove the line, or name another file"
            )


def _parsed(line: bytes) -> tuple[str, Any] | None:
    """Key and answer, or None for what is not a record."""
    try:
        record = json.loads(line)
        return key_of(record["task"], record["model"], record["asked"]), record["said"]
    except (ValueError, KeyError, TypeError):
        return None


def is_memory(path: Path) -> bool:
    """Whether the file begins as a memory does. False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(BEGINNING)) == BEGINNING
    except OSError:
        return False


def key_of(task: str, model: str, asked: Asked) -> str:
    """What names an answer: canonical JSON, the same whatever the order of the fields."""
    return json.dumps([task, model, asked], sort_keys=True, separators=(",", ":"))


def picture_key(source: ImageLike) -> str:
    """What names a picture in a key, 32 hexadecimal digits: a hash of a file's bytes, else of size and pixels.

    Raises ImageError where the picture cannot be read.
    """
    if isinstance(source, str | Path):
        return content_hash(Path(source))
    picture = open_image(source)
    return hashlib.blake2b(f"{picture.size}".encode() + picture.tobytes(), digest_size=16).hexdigest()
