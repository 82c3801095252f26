"""The cache of model answers: durable, shared by threads and processes, and able to read the JSON lines of earlier versions."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from mmretrieve.errors import MMRetrieveError
from mmretrieve.language.llm.cache import AnswerCache, is_answer_cache, picture_key


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "memory.sqlite")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A memory file as mmretrieve 0.1 wrote it, with three answers."""
    path = tmp_path / "memory.jsonl"
    records = [{"task": "t", "model": "m", "asked": {"n": i}, "said": f"answer {i}"} for i in range(3)]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path


def put(cache: AnswerCache, count: int) -> None:
    for i in range(count):
        cache.put("t", "m", {"n": i}, f"answer {i}")


def test_answers_are_stored_by_content_and_the_first_one_counts(cache: AnswerCache) -> None:
    assert cache.get("t", "m", {"n": 0}) is None
    assert len(cache) == 0
    assert not cache.path.exists()  # reading creates no file
    cache.put("t", "m", {"a": "ä\u2028\udc80", "b": [1]}, "first")
    cache.put("t", "m", {"b": [1], "a": "ä\u2028\udc80"}, "second")
    cache.put("t", "m", {"a": 2}, {"x": [1, "\udc80"]})
    reopened = AnswerCache(cache.path)
    assert reopened.get("t", "m", {"b": [1], "a": "ä\u2028\udc80"}) == "first"
    assert reopened.get("t", "m", {"a": 2}) == {"x": [1, "\udc80"]}
    assert [reopened.get(*other, {"a": 2}) for other in (("t", "n"), ("u", "m"))] == [None, None]
    assert len(reopened) == 2
    assert [answer for _, answer in reopened.answers("t")] == ["first", {"x": [1, "\udc80"]}]
    assert list(reopened.answers("u")) == []


def test_json_lines_go_out_and_in_without_loss(cache: AnswerCache, tmp_path: Path) -> None:
    put(cache, 3)
    cache.put("t", "m", {"a": "ä\u2028\udc80"}, ["ö\udc80"])
    exported = tmp_path / "export.jsonl"
    assert cache.export_jsonl(exported) == 4
    assert exported.read_bytes().count(b"\n") == 4
    first = json.loads(exported.read_bytes().splitlines()[0])
    assert first == {"task": "t", "model": "m", "asked": {"n": 0}, "said": "answer 0"}
    other = AnswerCache(tmp_path / "other.sqlite")
    other.put("t", "m", {"n": 0}, "an earlier answer")
    assert other.import_jsonl(exported) == 3
    assert other.import_jsonl(exported) == 0
    assert other.get("t", "m", {"n": 0}) == "an earlier answer"
    assert other.get("t", "m", {"a": "ä\u2028\udc80"}) == ["ö\udc80"]
    for path in (other.path, tmp_path / "no folder" / "x.jsonl"):
        with pytest.raises(MMRetrieveError):
            other.export_jsonl(path)
    assert len(AnswerCache(other.path)) == 4
    with pytest.raises(MMRetrieveError, match=r"no\.jsonl: cannot be read"):
        other.import_jsonl(tmp_path / "no.jsonl")


def test_json_lines_of_earlier_versions_are_read_and_never_changed(lines: Path) -> None:
    before = lines.read_bytes()
    cache = AnswerCache(lines)
    assert [cache.get("t", "m", {"n": i}) for i in range(4)] == ["answer 0", "answer 1", "answer 2", None]
    assert os.listdir(lines.parent) == [lines.name]  # reading creates no file
    put(cache, 5)
    assert lines.read_bytes() == before
    reopened = AnswerCache(lines)
    assert len(reopened) == 5
    assert [answer for _, answer in reopened.answers("t")] == [f"answer {i}" for i in range(5)]
    assert len(AnswerCache(reopened.database)) == 2  # the new ones
    assert reopened.export_jsonl(lines.with_name("all.jsonl")) == 5


def test_the_format_is_recognized_by_content(lines: Path, cache: AnswerCache) -> None:
    renamed = lines.rename(lines.with_name("memory"))
    assert AnswerCache(renamed).get("t", "m", {"n": 1}) == "answer 1"
    put(cache, 1)
    database = cache.path.rename(lines)  # a SQLite file with the suffix .jsonl
    assert AnswerCache(database).get("t", "m", {"n": 0}) == "answer 0"
    assert is_answer_cache(renamed)
    assert is_answer_cache(database)
    assert not is_answer_cache(lines.with_name("none"))


@pytest.mark.parametrize("cut", [-9, -20])
def test_an_incomplete_last_line_is_ignored(lines: Path, cut: int) -> None:
    lines.write_bytes(lines.read_bytes()[:cut])
    cache = AnswerCache(lines)
    assert len(cache) == 2
    put(cache, 3)
    assert len(AnswerCache(lines)) == 3


@pytest.mark.parametrize("rest", ['{"task": "t", "mod', '{"ta'])
def test_the_beginning_of_a_line_is_ignored(lines: Path, rest: str) -> None:
    lines.write_text(lines.read_text() + rest)
    assert len(AnswerCache(lines)) == 3


def test_a_record_without_its_line_end_counts(lines: Path) -> None:
    lines.write_bytes(lines.read_bytes()[:-1])
    assert AnswerCache(lines).get("t", "m", {"n": 2}) == "answer 2"


@pytest.mark.parametrize("foreign", ["no JSON\n", "no JSON", '{"task": "t"}\n', '[{"id": 1}]', "\x00\n"])
def test_json_lines_of_another_format_are_named_and_left_alone(lines: Path, cache: AnswerCache, foreign: str) -> None:
    lines.write_text(lines.read_text() + foreign)
    before = lines.read_bytes()
    with pytest.raises(MMRetrieveError, match=re.escape(f"{lines}, line 4: not a record of an answer")):
        AnswerCache(lines)
    with pytest.raises(MMRetrieveError, match="line 4"):
        cache.import_jsonl(lines)
    assert len(cache) == 0  # an import is stored whole or not at all
    assert lines.read_bytes() == before


def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text, database = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    text.write_text("no cache")
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE answers (id INTEGER)")
    connection.close()
    for path in (text, database):
        before = path.read_bytes()
        with pytest.raises(MMRetrieveError, match=re.escape(f"{path}: the cache of answers cannot be read")):
            AnswerCache(path)
        assert path.read_bytes() == before
    with pytest.raises(MMRetrieveError, match="there is no folder"):
        AnswerCache(tmp_path / "none" / "memory.sqlite")


def test_a_writer_waits_for_another_one(cache: AnswerCache) -> None:
    put(cache, 1)
    writer = threading.Thread(target=put, args=(cache, 2))
    with sqlite3.connect(cache.path) as other:
        other.execute("BEGIN EXCLUSIVE")
        writer.start()
        time.sleep(0.1)
        assert writer.is_alive()
    other.close()
    writer.join()
    assert len(AnswerCache(cache.path)) == 2


PUT = """
import sys
from mmretrieve.language.llm.cache import AnswerCache
cache = AnswerCache(sys.argv[1])
for i in range(int(sys.argv[3])):
    cache.put("t", sys.argv[2], {"n": i}, "word " * i)
    print(i, flush=True)
"""


def test_processes_and_threads_share_a_file(cache: AnswerCache) -> None:
    run = [sys.executable, "-c", PUT, str(cache.path)]
    processes = [subprocess.Popen([*run, name, "60"], stdout=subprocess.DEVNULL) for name in ("a", "b")]
    threads = [threading.Thread(target=lambda n=n: cache.put("t", "c", {"n": n}, "answer")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    assert len(cache) == len(AnswerCache(cache.path)) == 2 * 60 + 20


def test_a_killed_process_loses_nothing_that_was_stored(cache: AnswerCache) -> None:
    run = [sys.executable, "-c", PUT, str(cache.path), "m", "100000"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stored = [int(next(process.stdout)) for _ in range(30)][-1]
        process.send_signal(signal.SIGKILL)
    reopened = AnswerCache(cache.path)
    assert all(reopened.get("t", "m", {"n": i}) == "word " * i for i in range(stored + 1))
    reopened.put("t", "m", {"n": "new"}, "new")
    assert reopened.get("t", "m", {"n": "new"}) == "new"


def test_an_image_is_identified_by_its_content(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 4), "red")
    for name in ("a.png", "b.png"):
        picture.save(tmp_path / name)
    assert picture_key(tmp_path / "a.png") == picture_key(str(tmp_path / "b.png"))
    assert picture_key(picture) == picture_key(picture.copy())
    assert picture_key(picture) != picture_key(picture.resize((4, 8)))  # the same bytes in another shape
