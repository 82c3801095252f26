"""Every parser that a stranger's file or request enters, as a function of bytes. `grammars.py` composes their inputs.

A target may refuse an input with an error of the family in `mmretrieve.errors`, in one line without control characters, or with a status
below 500. What it accepts obeys a law: what was read is written and read again as it was, fields can be stored, rankings are sorted. Anything
else is a fault; so is what takes longer than SECONDS, more than MEMORY, changes a file that it only reads, or leaves something behind.

| what comes from a stranger | parser | targets |
|---|---|---|
| filters: SQL, structures, values by field | `filters.parse`, `from_dict`, `to_sqlite`, `to_milvus` | filter, filter-structure |
| keywords of a search: weights, alpha, beta, strength, regions | `request.SearchRequest`, `parse_requests` | request |
| prompts and captions | `language.rewriters`, `role_compiler` | prompt |
| words of a command line, values of options, addresses of collections, tokens | `cli.main`, `eval.cli.main`, OPTION_READERS | command, option |
| patterns to ignore | `sources.ignored.FileFilter` | exclude |
| tables of items | `sources.table_files`, `sources.parquet_files`, `sources.values` | csv, tsv, jsonl, parquet |
| archives: webdataset, sidecars, links | `sources.tar` | tar |
| images and their headers | `images.open_image`, `pixels` | image, api-upload |
| galleries: metadata, settings, vocabulary, items, seal, rows, thumbnails, index | `gallery.store`, `gallery.manifest`, `gallery.index` | ledger, ledger-values, seal, vectors, thumbnails, index |
| exports: manifest, vectors, metadata with the own column | `gallery.transfer` | export, export-vectors, export-metadata |
| vocabularies of a tagger | `language.vocabulary` | vocabulary |
| phi networks and checkpoints: headers, names, shapes | `inversion.phi`, `encoders.checkpoints` | phi, phi-checkpoint |
| files of captions, rewrites, descriptions, roles | `language.files`, `language.text_records` | captions, captions-csv, rewrites, descriptions, roles |
| memory of a language model, and its replies | `language.llm.cache`, `client`, `roles` | answers, memory, reply |
| ranked lists, records of runs and sweeps | `eval.lists.files`, `eval.runs.records` | rankings, record, query-results |
| annotations of benchmarks | `eval.benchmarks` | circo, cirr, fashioniq, genecis, catalogue |
| methods, paths, query strings, headers, cookies | `server.middleware`, `auth`, `paths`, `bodies` | headers |
| requests of API, page and MCP; forms and uploads | `server.schemas`, `api`, `mcp`, `uploads`, `demo.schemas` | api-search, api-batch, api-form, api-upload, api-link, page, mcp |

Connections of HTTP are attacked in `tests/server/test_attack.py`, answers to every documented route in `tests/server/test_api_schema.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import httpx
import numpy as np

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from eval.cli.main import make_parser as make_eval_parser
from eval.cli.main import parse_root, parse_steps
from eval.lists.files import read_lists
from eval.runs.records import read_queries, read_record, write_record
from eval.runs.weight_settings import make_weight_setting
from mmretrieve.cli import arguments
from mmretrieve.cli.main import make_parser
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition
from mmretrieve.encoders.openclip import _resolve
from mmretrieve.errors import MMRetrieveError, printable
from mmretrieve.filters import Expression, columns, from_dict, parse, to_dict
from mmretrieve.filters.milvus import MilvusColumn, to_milvus
from mmretrieve.filters.sqlite import to_sqlite, to_text
from mmretrieve.gallery.store import ledger_checksum
from mmretrieve.gallery.store.ledger import Ledger
from mmretrieve.gallery.store.ledger_checksum import LedgerChecksum
from mmretrieve.gallery.store.statements import connect, in_transaction, put_meta
from mmretrieve.images import open_image, thumbnail
from mmretrieve.inversion.phi import load_phi
from mmretrieve.language.files import FileCaptioner, FileCompiler, FileDescriber, FileRewriter
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.llm.client import ModelRequestError, clean_sentence, reply_text
from mmretrieve.language.llm.roles import _parse_description, _parse_roles
from mmretrieve.language.options import LanguageOptions
from mmretrieve.language.rewriters import SwapRewriter, TemplateRewriter
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.vocabulary import GENERAL, Vocabulary
from mmretrieve.milvus.address import MilvusAddress
from mmretrieve.request import REQUEST_FIELDS, SearchRequest, parse_requests
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth, parse_auth
from mmretrieve.server.limits import Limits
from mmretrieve.server.middleware import SecurityMiddleware
from mmretrieve.server.paths import PathMiddleware, parse_root_path
from mmretrieve.sources.base import UnreadableItem
from mmretrieve.sources.detect import read_source
from mmretrieve.sources.ignored import FileFilter
from mmretrieve.sources.parquet_files import write_records

SECONDS, CPU_SECONDS, MEMORY = 60, 2.0, 1 << 30  # of one input: time, time of the processor, memory beyond that of the process
FIXTURES = Path(__file__).parents[1] / "gallery" / "fixtures"
LEDGER, SEAL, VECTORS, THUMBNAILS, INDEX = "gallery.sqlite", "gallery.seal", "vectors.f16", "thumbnails.bin", "index.faiss"
FIELDS = ("number", "price", "name", "kind")
TOKEN = "a-secret-of-20-bytes"
AUTH = Auth(TOKEN)
Target = Callable[[bytes], object]
ARGUMENT_READERS: tuple[Callable[[str], object], ...] = (  # argparse takes a ValueError of these for a refusal
    arguments.count, arguments.whole, arguments.finite, arguments.share, arguments.positive, arguments.port, arguments.shard,
    arguments.region, arguments.names, arguments.weights, parse_steps, parse_root,
)  # fmt: skip
OPTION_READERS: tuple[Callable[[str], object], ...] = (
    *ARGUMENT_READERS,
    MilvusAddress.read,
    parse_root_path,
    lambda text: parse_auth(text, None),
    lambda text: parse_auth(None, text),
    lambda text: make_weight_setting(text, None, composer="captions", benchmark="cirr", model="ViT-L-14"),
    _resolve,
    lambda text: LanguageOptions(rewriter=text).backend("rewriter"),
)


def check(target: Target, data: bytes) -> bool:
    """Gives a target its input. Returns whether it accepted it. Raises whatever is a fault."""
    before = sorted(os.listdir(gettempdir()))
    with refusing() as refused:
        target(data)
    assert sorted(os.listdir(gettempdir())) == before, "left something behind"
    return not refused


@contextmanager
def refusing() -> Iterator[list[str]]:
    """Lets what is within refuse its input, in one line that can be shown, which it yields."""
    refused: list[str] = []
    try:
        yield refused
    except MMRetrieveError as error:
        refused.append(check_line(str(error)))


def check_line(line: str) -> str:
    """The line. Raises AssertionError unless it is one, and says something."""
    assert line.strip(), "an error without words"
    assert line.isprintable(), f"an error of several lines, or with control characters: {line!r:.300}"
    return line


def in_file(name: str, read: Callable[[Path], object]) -> Target:
    """A target that reads a file of that name, and leaves it and its folder as they are."""

    def run(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            try:
                read(path)
            finally:
                assert path.read_bytes() == data, "the file was changed"
                assert [child.name for child in path.parent.iterdir()] == [path.name], "left something beside the file"

    return run


def filter_text(data: bytes) -> None:
    _translate(parse(data.decode("utf-8", "surrogateescape")))


def filter_structure(data: bytes) -> None:
    _translate(from_dict(as_json(data)))


def _translate(expression: Expression) -> None:
    """A filter is the same in its structure, and can be said in SQL again; each translation may refuse it."""
    columns(expression)
    assert from_dict(json.loads(json.dumps(to_dict(expression)))) == expression
    with refusing():
        to_text(parse(to_text(expression)))
    for translate in (_sqlite, _milvus):
        with refusing():
            translate(expression)


def _sqlite(expression: Expression) -> object:
    return to_sqlite(expression, FIELDS)


def _milvus(expression: Expression) -> object:
    return to_milvus(expression, [MilvusColumn("number", is_text=False), MilvusColumn("name", is_text=True)])


def as_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MMRetrieveError("not JSON") from error


def keywords(data: bytes) -> None:
    """The keywords of a search in Python; what was parsed is parsed again as it is."""
    given = as_json(data)
    request = SearchRequest.parse(**given) if isinstance(given, dict) else parse_requests(given)[0]
    again = SearchRequest.parse(**{name: getattr(request, name) for name in REQUEST_FIELDS})
    assert repr(again) == repr(request)


def prompt(data: bytes) -> None:
    """A caption and a prompt, which need to be no words of any language."""
    given = as_json(data)
    texts = (given.get("caption"), given.get("prompt")) if isinstance(given, dict) else ()
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise MMRetrieveError("no texts")
    caption, request = texts
    for rewriter in (TemplateRewriter(), SwapRewriter(Vocabulary.read(GENERAL))):
        (rewrite,) = rewriter.rewrite([caption], [request])
        assert isinstance(rewrite, str)
    (roles,) = RuleCompiler().compile([ComposerInput(prompt=request or "a")])
    assert all(phrase.strip() for phrase in (*roles.desired, *roles.preserve, *roles.forbidden))


def command(data: bytes) -> None:
    """The words of a command line: options, or exit status 2 and one line that says what was wrong."""
    words = as_json(data)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise MMRetrieveError("no words")
    for make in (make_eval_parser, make_parser):
        code, refused = 0, list[str]()
        with redirect_stderr(io.StringIO()) as errors, redirect_stdout(io.StringIO()):
            try:
                make().parse_args(words)
            except SystemExit as error:
                code = error.code
                refused = list(map(check_line, errors.getvalue().splitlines()))
        assert (code, len(refused)) in ((0, 0), (2, 1)), errors.getvalue()
    if refused:
        raise MMRetrieveError(refused[0])


def option(data: bytes) -> None:
    """Values with a grammar of their own; one of the readers may accept the text."""
    text = data.decode("utf-8", "surrogateescape")
    accepted = [_accepts(read, text) for read in OPTION_READERS]
    if not any(accepted):
        raise MMRetrieveError("no reader accepts it")


def _accepts(read: Callable[[str], object], text: str) -> bool:
    with refusing() as refused:
        try:
            read(text)
        except argparse.ArgumentTypeError as error:
            raise MMRetrieveError(printable(str(error))) from error  # as the shell prints it
        except ValueError as error:
            if isinstance(error, MMRetrieveError) or read not in ARGUMENT_READERS:
                raise
            raise MMRetrieveError("refused by argparse") from error
    return not refused


def exclude(data: bytes) -> None:
    patterns = FileFilter([".png"], as_json(data))
    for path in ("a/b.png", "drafts/x_small.jpg", "a" * 3_000, "\ud83d\n"):
        patterns.ignores_path(path)
        patterns.ignores_file(path)


def source(path: Path) -> None:
    """All items of a source, whose fields can be stored, and their first images."""
    good = 0
    for number, item in enumerate(read_source(path)):
        if isinstance(item, UnreadableItem):
            check_line(printable(item.reason))
            assert "\n" not in item.reason, item.reason
            continue
        good += 1
        assert item.id.strip(), item
        for name, value in item.fields.items():
            assert name.strip() == name != "", item
            assert value is None or type(value) in (str, int, float), (name, value)
            json.dumps([name, value], ensure_ascii=False, allow_nan=False).encode()
            assert not isinstance(value, int) or -(2**63) <= value < 2**63, (name, value)
        if number < 3:
            try:
                open_image(item.location.open(), max_pixels=1_000_000)
            except (MMRetrieveError, OSError):
                continue
    if not good:
        raise MMRetrieveError("no item")


def image(data: bytes) -> None:
    opened = open_image(data, max_pixels=4_000_000)
    assert opened.mode == "RGB"
    assert opened.width * opened.height <= 4_000_000
    assert thumbnail(opened, 64).startswith(b"\xff\xd8")


def gallery(name: str) -> Target:
    """A gallery of which one file is the input."""

    def write(folder: Path, data: bytes) -> None:
        (folder / name).write_bytes(data)

    return changed_gallery(write)


def changed_gallery(write: Callable[[Path, bytes], None]) -> Target:
    """A gallery that a stranger has changed. Reading it changes nothing."""

    def read(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(shutil.copytree(FIXTURES / "format3.gallery", Path(folder, "g")))
            write(path, data)
            before = _contents(path)
            refused: list[str] = []
            opened = mm.Gallery.open(path, device="cpu")
            for use in (
                opened.verify,
                opened.info,
                lambda: _search(opened),
                lambda: opened.thumbnail(opened.ids[0]),
                lambda: _words(opened),
            ):
                with refusing() as line:
                    use()
                refused += line
            assert _contents(path) == before, "reading has changed the gallery"
            if refused:
                raise MMRetrieveError(refused[0])

    return read


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _words(opened: mm.Gallery) -> None:
    """What its vocabulary says."""
    if opened.vocabulary is not None:
        say(opened.vocabulary)


def say(vocabulary: Vocabulary) -> None:
    text = vocabulary.say({group.name: group.words[0] for group in vocabulary.groups})
    assert len(text) < 100_000
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


def change_ledger(folder: Path, data: bytes) -> None:
    """Puts values into the metadata and the items of a ledger, with checksums that are right again or not."""
    changes = as_json(data)
    if not isinstance(changes, dict):
        raise MMRetrieveError("no changes")
    path = folder / LEDGER
    with closing(connect(path)) as db, in_transaction(db):
        try:
            put_meta(db, dict(changes.get("meta") or {}))
            for column, row, value in changes.get("items") or ():
                db.execute(f"UPDATE items SET {column} = ? WHERE row = ?", (value, row))
        except (sqlite3.Error, ValueError, TypeError, UnicodeError, OverflowError) as error:
            raise MMRetrieveError("SQLite does not store it") from error
        put_meta(db, {ledger_checksum.KEY: LedgerChecksum.of(db, ledger_checksum.row_sum_of(db)).to_dict()})
    if changes.get("sealed"):
        Ledger(path).seal()
    else:
        (folder / SEAL).unlink()


def _search(opened: mm.Gallery) -> None:
    query = Composition(("query",), np.eye(1, opened.dim, dtype=np.float32), (1.0,))
    opened.search(query, 3)
    opened.search(query, 3, where="price < 20")


def exported(name: str) -> Target:
    """An export of a gallery of which one file is the input."""

    def read(data: bytes) -> None:
        with TemporaryDirectory() as parent:
            folder = Path(parent, "export")
            (folder / "img_emb").mkdir(parents=True)
            np.save(folder / "img_emb" / "img_emb_0.npy", np.eye(2, dtype=np.float16))
            (folder / "metadata").mkdir()
            write_records(folder / "metadata" / "metadata_0.parquet", [{"image_path": "a.png"}, {"image_path": "b.png"}])
            (folder / name).write_bytes(data)
            target = mm.Gallery.for_vectors(Path(parent, "g"), mm.EncoderIdentity("m", "w", "p"), dim=2)
            with refusing() as refused:
                target.import_vectors(folder)
            assert target.verify() == []
            if refused:
                raise MMRetrieveError(refused[0])

    return read


def vocabulary(path: Path) -> None:
    say(Vocabulary.read(path))


def captions(path: Path) -> None:
    """Captions of a file are texts without space around them."""
    read = FileCaptioner.read(path)
    assert all(caption.strip() == caption != "" for captions in read.by_id.values() for caption in captions)


def answers(path: Path) -> None:
    """Answers of a file are the same after they were exported."""
    cache = AnswerCache(path)
    with TemporaryDirectory() as folder:
        copy = Path(folder, "b.jsonl")
        count = cache.export_jsonl(copy)
        assert list(AnswerCache(copy).answers("rewrite")) == list(cache.answers("rewrite"))
        assert count == len(cache)


def memory(data: bytes) -> None:
    """A SQLite file of answers with these rows."""
    rows = as_json(data)
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.sqlite")
        AnswerCache(path).put("rewrite", "m", {"caption": "a dog", "prompt": "in snow"}, "a dog in snow")
        with closing(sqlite3.connect(path)) as db, db:
            try:
                db.executemany("INSERT INTO answers (task, model, request, answer) VALUES (?, ?, ?, ?)", rows)
            except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
                raise MMRetrieveError("SQLite does not store it") from error
        answers(path)
        FileRewriter.read(path)


def reply(data: bytes) -> None:
    """What a model has answered, whatever it is."""
    try:
        text = reply_text(data.decode("utf-8", "replace"))
    except ModelRequestError as error:
        raise MMRetrieveError(str(error)) from error
    assert "\n" not in clean_sentence(text)
    roles, description = _parse_roles(text), _parse_description(text)
    if roles is None and description.target is None:
        raise MMRetrieveError("no object")


def record(path: Path) -> None:
    read = read_record(path)  # None: JSON of another kind
    if read is None:
        raise MMRetrieveError("not a record")
    with TemporaryDirectory() as folder:
        assert read_record(write_record(Path(folder, "r.json"), read)) == read


def headers(data: bytes) -> None:
    """The head of a request: only one with the token is passed on, whatever else is in it."""
    given = as_json(data)
    if not isinstance(given, dict):
        raise MMRetrieveError("no head")
    values = given.get("headers")
    if not isinstance(values, dict):
        raise MMRetrieveError("no headers")
    sent = [(name.encode("utf-8", "replace"), str(value).encode("utf-8", "surrogatepass")) for name, value in values.items()]
    method, requested, query, body = (str(given.get(name, "")) for name in ("method", "path", "query", "body"))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 9), "method": method, "path": requested.encode("utf-8", "replace").decode(), "raw_path": b"/", "query_string": query.encode("utf-8", "surrogatepass"),
        "headers": sent,
    }  # fmt: skip
    status, answer = asyncio.run(_ask(scope, body.encode("utf-8", "replace")))
    assert 200 <= status < 500, (status, answer)
    if answer == b"passed":
        credentials = [str(values.get(name, "")) for name in ("authorization", "cookie")]
        assert credentials[0].split()[-1:] == [TOKEN] or AUTH.session(80) in credentials[1], values
    elif status >= 400:
        raise MMRetrieveError(json.loads(answer)["error"] if answer.startswith(b"{") else "refused")


async def _ask(scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    async def passed(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"passed"})

    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    app = PathMiddleware(SecurityMiddleware(passed, AUTH, Limits(body_bytes=1_000)), "/shop")
    await app(scope, receive, send)
    return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent)


def benchmark(name: str, rest: dict[str, str]) -> Target:
    """A benchmark of which one file is the input."""

    def run(data: bytes) -> None:
        split = None if name.startswith(("catalogue", "genecis")) else "val"
        with TemporaryDirectory() as folder:
            root = Path(folder)
            for file, content in {**{file: text.encode() for file, text in rest.items()}, BENCHMARK_FILES[name]: data}.items():
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(content)
            read = load_benchmark(name, root, split)
        ids = frozenset(read.gallery_ids)
        assert read.queries
        assert all(query.prompts for query in read.queries)
        assert all(id_ in ids for query in read.queries for id_ in query.image_ids)

    return run


@cache
def wardrobe() -> mm.Encoder:
    return mm.load_encoder("wardrobe", dtype="float32")


@cache
def client(*, with_page: bool = False) -> Callable[..., httpx.Response]:
    """Sends requests to the application itself, without a socket."""
    from starlette.testclient import TestClient

    page = None
    if with_page:
        from demo.app import page

    folder = Path(shutil.copytree(FIXTURES / "format3.gallery", Path(_folder().name, "served")))
    app = create_app(
        mm.Retriever.open(folder, encoder=wardrobe()), limits=Limits(body_bytes=2_000_000, seconds=SECONDS), page=page
    )
    opened = TestClient(app, base_url="http://127.0.0.1")
    opened.__enter__()  # the sessions of MCP begin with the application; the process ends with it
    return opened.request


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


def request(method: str, path: str, content_type: str = "application/json", **headers: str) -> Target:
    """The body of a request to the application."""

    def send(data: bytes) -> None:
        _check_answer(
            client(with_page=path.startswith("/page"))(
                method, path, content=data, headers={"Content-Type": content_type, **headers}
            )
        )

    return send


def parameters(data: bytes) -> None:
    """The query string of a link."""
    text, refused = data.decode("utf-8", "replace"), list[str]()
    for path in ("/api/items", "/api/item", "/api/image", "/api/thumbnail"):
        for params in ({"id": text}, {"where": text}, {"limit": text, "offset": text}):
            with refusing() as line:
                _check_answer(client()("GET", path, params=params))
            refused += line
    if len(refused) == 12:
        raise MMRetrieveError(refused[0])


def _check_answer(answer: httpx.Response) -> None:
    """A ranking that is sorted, or an error in one line, and no folder of this machine. Raises MMRetrieveError for an error."""
    assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text[:300])
    assert "Traceback" not in answer.text
    assert str(FIXTURES.parent) not in answer.text
    assert gettempdir() not in answer.text
    is_json = answer.content and answer.headers.get("content-type", "").startswith("application/json")
    value = json.loads(answer.text, parse_constant=_no_constant) if is_json else None
    if answer.status_code >= 400:
        error = value["error"] if isinstance(value, dict) else answer.text
        raise MMRetrieveError(error if isinstance(error, str) else error["message"])
    for response in value.get("answers", [value]) if isinstance(value, dict) else ():
        scores = [hit["score"] for hit in response.get("hits") or ()]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= response.get("k", len(scores))
        if "error" in response:
            raise MMRetrieveError(str(response["error"]))


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


BENCHMARK_FILES = {
    "circo": "annotations/val.json",
    "cirr": "captions/cap.rc2.val.json",
    "fashioniq:dress": "captions/cap.dress.val.json",
    "genecis:change_object": "change_object.json",
    "catalogue": "items.csv",
}
INFO = json.dumps({"images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)]})

TARGETS: dict[str, Target] = {
    "filter": filter_text,
    "filter-structure": filter_structure,
    "request": keywords,
    "prompt": prompt,
    "command": command,
    "option": option,
    "exclude": exclude,
    "csv": in_file("t.csv", source),
    "tsv": in_file("t.tsv", source),
    "jsonl": in_file("t.jsonl", source),
    "parquet": in_file("t.parquet", source),
    "tar": in_file("t.tar", source),
    "image": image,
    "ledger": gallery(LEDGER),
    "ledger-values": changed_gallery(change_ledger),
    "seal": gallery(SEAL),
    "vectors": gallery(VECTORS),
    "thumbnails": gallery(THUMBNAILS),
    "index": gallery(INDEX),
    "export": exported("mmretrieve.json"),
    "export-vectors": exported("img_emb/img_emb_0.npy"),
    "export-metadata": exported("metadata/metadata_0.parquet"),
    "vocabulary": in_file("v.json", vocabulary),
    "phi": in_file("phi.safetensors", lambda path: load_phi(path, wardrobe())),  # type: ignore[arg-type]
    "phi-checkpoint": in_file("phi.pt", lambda path: load_phi(path, wardrobe())),  # type: ignore[arg-type]
    "captions": in_file("c.json", captions),
    "captions-csv": in_file("c.csv", captions),
    "rewrites": in_file("r.jsonl", FileRewriter.read),
    "descriptions": in_file("d.json", FileDescriber.read),
    "roles": in_file("r.json", FileCompiler.read),
    "answers": in_file("a.jsonl", answers),
    "memory": memory,
    "reply": reply,
    "rankings": in_file("l.json", read_lists),
    "record": in_file("r.json", record),
    "query-results": in_file("q.json", read_queries),
    "circo": benchmark("circo", {"COCO2017_unlabeled/annotations/image_info_unlabeled2017.json": INFO}),
    "cirr": benchmark(
        "cirr", {"image_splits/split.rc2.val.json": json.dumps({name: f"./dev/{name}.png" for name in "abcdef"})}
    ),
    "fashioniq": benchmark("fashioniq:dress", {"image_splits/split.dress.val.json": '["a", "b"]'}),
    "genecis": benchmark("genecis:change_object", {}),
    "catalogue": benchmark(
        "catalogue",
        {
            "queries.jsonl": '{"id": "1", "reference": "a", "prompt": "red", "targets": ["b"], "caption": "c", "attribute": "d"}\n'
        },
    ),
    "headers": headers,
    "api-search": request("POST", "/api/search"),
    "api-batch": request("POST", "/api/batch"),
    "api-form": request("POST", "/api/search/form", "multipart/form-data; boundary=x"),
    "api-upload": request("POST", "/api/uploads", "image/png"),
    "api-link": parameters,
    "page": request("POST", "/page/view"),
    "mcp": request("POST", "/mcp", accept="application/json, text/event-stream"),
}
