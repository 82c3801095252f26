"""Every parser that a stranger's file or request enters, as a function of bytes, with inputs to start from.

A target may refuse an input with an error of the family in `mmretrieve.errors`, in one line, or with a status below 500. Anything else
is a fault, and so is what takes longer than SECONDS or more than MEMORY.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from PIL import Image

import mmretrieve as mm
from eval.benchmarks import load_benchmark
from eval.lists.files import read_lists
from eval.runs.records import read_record
from mmretrieve.composition import Composition
from mmretrieve.errors import MMRetrieveError
from mmretrieve.filters import Expression, columns, from_dict, parse
from mmretrieve.filters.milvus import MilvusColumn, to_milvus
from mmretrieve.filters.sqlite import to_sqlite, to_text
from mmretrieve.images import open_image, thumbnail
from mmretrieve.inversion.phi import load_phi
from mmretrieve.language.files import FileCaptioner, FileCompiler, FileDescriber, FileRewriter
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.server.app import create_app
from mmretrieve.server.limits import Limits
from mmretrieve.sources.base import SourceItem
from mmretrieve.sources.detect import read_source

SECONDS, MEMORY = 20, 1 << 30  # of one input: time, and memory beyond that of the empty process
FIXTURES = Path(__file__).parents[1] / "gallery" / "fixtures"
LEDGER, SEAL, VECTORS, THUMBNAILS, INDEX = "gallery.sqlite", "gallery.seal", "vectors.f16", "thumbnails.bin", "index.faiss"
FIELDS = ("number", "price", "name", "kind")


@dataclass(frozen=True)
class Target:
    """`read` takes the input; `seeds` makes inputs that are right, for mutation."""

    read: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]


def check(target: Target, data: bytes) -> None:
    """Gives a target its input. Raises whatever is a fault."""
    with refusing():
        target.read(data)


@contextmanager
def refusing() -> Iterator[None]:
    """Lets what is within refuse its input, in one line."""
    try:
        yield
    except MMRetrieveError as error:
        if "\n" in str(error) or not str(error).strip():
            raise AssertionError(f"an error of several lines or none: {error!r}") from error


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """A target that reads a file of that name."""

    def run(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            read(path)

    return run


def filter_text(data: bytes) -> None:
    expression = parse(data.decode("utf-8", "surrogateescape"))
    columns(expression)
    for translate in (to_text, _sqlite, _milvus):
        with refusing():
            translate(expression)


def _sqlite(expression: Expression) -> object:
    return to_sqlite(expression, FIELDS)


def _milvus(expression: Expression) -> object:
    return to_milvus(expression, [MilvusColumn("number", is_text=False), MilvusColumn("name", is_text=True)])


def filter_structure(data: bytes) -> None:
    filter_text(to_text(from_dict(_json(data))).encode("utf-8", "surrogateescape"))


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MMRetrieveError("not JSON") from error


def source(path: Path) -> None:
    """All items of a source, and their first images."""
    for number, item in enumerate(read_source(path)):
        if isinstance(item, SourceItem) and number < 3:
            try:
                open_image(item.location.open(), max_pixels=1_000_000)
            except (MMRetrieveError, OSError):
                continue


def image(data: bytes) -> None:
    thumbnail(open_image(data, max_pixels=4_000_000), 64)


def gallery(name: str) -> Callable[[bytes], None]:
    """A gallery of which one file is the input."""

    def read(data: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(shutil.copytree(FIXTURES / "format3.gallery", Path(folder, "g")))
            (path / name).write_bytes(data)
            opened = mm.Gallery.open(path, device="cpu")
            for use in (opened.verify, opened.info, lambda: _search(opened), lambda: opened.thumbnail(opened.ids[0])):
                with refusing():
                    use()

    return read


def _search(opened: mm.Gallery) -> None:
    query = Composition(("query",), np.eye(1, opened.dim, dtype=np.float32), (1.0,))
    opened.search(query, 3)
    opened.search(query, 3, where="price < 20")


def exported(path: Path) -> None:
    """The manifest of an export of a gallery."""
    folder = path.parent
    (folder / "img_emb").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", np.eye(2, dtype=np.float16))
    mm.Gallery.for_vectors(folder / "g", mm.EncoderIdentity("m", "w", "p"), dim=2).import_vectors(folder)


def benchmark(name: str, rest: dict[str, str]) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        root = next(parent for parent in path.parents if parent.name == "root")
        for file, text in rest.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text, encoding="utf-8")
        load_benchmark(name, root, "val" if name != "catalogue" else None)

    return read


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


def request(method: str, path: str, content_type: str = "application/json", **headers: str) -> Callable[[bytes], None]:
    def send(data: bytes) -> None:
        answer = client(with_page=path.startswith("/page"))(
            method, path, content=data, headers={"Content-Type": content_type, **headers}
        )
        assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text[:300])
        assert "Traceback" not in answer.text
        assert str(FIXTURES.parent) not in answer.text

    return send


def parameters(data: bytes) -> None:
    """The query string of a link."""
    text = data.decode("utf-8", "replace")
    for path in ("/api/items", "/api/item", "/api/image", "/api/thumbnail"):
        for params in ({"id": text}, {"where": text, "limit": text, "after": text}):
            answer = client()("GET", path, params=params)
            assert answer.status_code < 500, (path, answer.status_code, answer.text[:300])


def texts(*values: str) -> Callable[[], Iterable[bytes]]:
    return lambda: [value.encode() for value in values]


def jsons(*values: object) -> Callable[[], Iterable[bytes]]:
    return lambda: [json.dumps(value).encode() for value in values]


def fixture(name: str) -> Callable[[], Iterable[bytes]]:
    return lambda: [(FIXTURES / "format3.gallery" / name).read_bytes()]


def pictures() -> Iterable[bytes]:
    """A small picture in each format and mode that differs in its decoder."""
    small = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))
    for form, mode in (
        ("PNG", "RGB"),
        ("PNG", "I;16"),
        ("PNG", "P"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("TIFF", "F"),
        ("WEBP", "RGB"),
    ):
        buffer = io.BytesIO()
        small.convert("L").convert(mode).save(buffer, form) if mode in ("I;16", "F") else small.convert(mode).save(buffer, form)
        yield buffer.getvalue()


def tars() -> Iterable[bytes]:
    import tarfile

    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, data in (("a.png", next(iter(pictures()))), ("a.json", b'{"price": 3}'), ("ä" * 40 + ".txt", b"caption")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        yield buffer.getvalue()


def parquets() -> Iterable[bytes]:
    import pyarrow
    from pyarrow import parquet

    picture = next(iter(pictures()))
    for table in ({"image": [picture], "price": [3]}, {"path": ["a.png", "b.png"], "tags": [["x"], None]}):
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.table(table), buffer)
        yield buffer.getvalue()


def safetensors() -> Iterable[bytes]:
    import torch
    from safetensors.torch import save

    yield save({"layers.0.weight": torch.zeros(4, 4), "layers.0.bias": torch.zeros(4)}, {"encoder": "x"})


def checkpoints() -> Iterable[bytes]:
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": {"module.fc_out.weight": torch.zeros(4, 4)}, "epoch": 3}, buffer)
    yield buffer.getvalue()


SEARCH = {
    "reference_id": "pink-checked-shirt-0000.png",
    "prompt": "in red",
    "k": 3,
    "weights": {"image": 1},
    "where": "price < 20",
    "beta": 0.5,
}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\nabc\r\n'
    b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"prompt": "in red"}\r\n--x--\r\n'
)
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": SEARCH}}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
CIRCO = [
    {
        "reference_img_id": 1,
        "target_img_id": 2,
        "relative_caption": "red",
        "shared_concept": "a",
        "gt_img_ids": [2],
        "id": 0,
        "semantic_aspects": [],
    }
]
CIRR = [
    {
        "pairid": 1,
        "reference": "a",
        "target_hard": "b",
        "caption": "red",
        "img_set": {"id": 1, "members": ["a", "b", "c"]},
        "target_soft": {"b": 1.0},
    }
]
FASHION = [{"candidate": "a", "target": "b", "captions": ["red", "long"]}]
GENECIS = [
    {"reference": {"val_image_id": 1}, "target": {"val_image_id": 2}, "gallery": [{"val_image_id": 3}], "condition": "car"}
]
INFO = json.dumps({"images": [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2)]})
RECORDS = [
    {"image": "a.png", "caption": "a red shirt", "prompt": "in blue", "rewrite": "a blue shirt", "target": "a blue shirt"}
]

TARGETS: dict[str, Target] = {
    "filter": Target(
        filter_text,
        texts(
            "price < 20 AND NOT name LIKE 'a%' OR kind IN ('x', 'y')",
            "lower(\"name\") GLOB 'a*' COLLATE NOCASE",
            "CASE WHEN number BETWEEN 1 AND 2 THEN 1 ELSE -x'00' END",
        ),
    ),
    "filter-structure": Target(
        filter_structure,
        jsons(
            {"operator": "<", "operands": [{"column": "price"}, {"value": 20}]},
            {"operator": "and", "operands": [{"operator": "not", "operands": [{"column": "name"}]}, {"value": None}]},
        ),
    ),
    "csv": Target(in_file("t.csv", source), texts("path,price\na.png,3\nb.png,\n", 'sep=;\npath;"na""me"\n"a\nb.png";1e5\n')),
    "tsv": Target(in_file("t.tsv", source), texts("image\tid\na.png\t7\n")),
    "jsonl": Target(
        in_file("t.jsonl", source), texts('{"path": "a.png", "price": 3, "tags": ["x"]}\n{"path": "b.png", "n": {"a": null}}\n')
    ),
    "parquet": Target(in_file("t.parquet", source), parquets),
    "tar": Target(in_file("t.tar", source), tars),
    "image": Target(image, pictures),
    "ledger": Target(gallery(LEDGER), fixture(LEDGER)),
    "seal": Target(gallery(SEAL), fixture(SEAL)),
    "vectors": Target(gallery(VECTORS), fixture(VECTORS)),
    "thumbnails": Target(gallery(THUMBNAILS), fixture(THUMBNAILS)),
    "index": Target(gallery(INDEX), fixture(INDEX)),
    "export": Target(
        in_file("mmretrieve.json", exported),
        jsons(
            {
                "encoder": {"model": "m", "weights": "w", "preprocessing": "p"},
                "dim": 2,
                "decode": "exact",
                "setting": None,
                "fields": {"price": "number"},
                "vocabulary": None,
                "title_field": None,
            }
        ),
    ),
    "phi": Target(in_file("phi.safetensors", lambda path: load_phi(path, wardrobe())), safetensors),  # type: ignore[arg-type]
    "phi-checkpoint": Target(in_file("phi.pt", lambda path: load_phi(path, wardrobe())), checkpoints),  # type: ignore[arg-type]
    "captions": Target(in_file("c.json", lambda path: FileCaptioner.read(path)), jsons(RECORDS, {"a.png": ["a red shirt"]})),
    "captions-csv": Target(
        in_file("c.csv", lambda path: FileCaptioner.read(path)), texts("image,caption\na.png,a red shirt\n")
    ),
    "rewrites": Target(in_file("r.jsonl", lambda path: FileRewriter.read(path)), jsons(*RECORDS)),
    "descriptions": Target(in_file("d.json", lambda path: FileDescriber.read(path)), jsons(RECORDS)),
    "roles": Target(
        in_file("r.json", lambda path: FileCompiler.read(path)),
        jsons([{"prompt": "in blue", "add": ["blue"], "keep": [], "remove": ["red"]}]),
    ),
    "answers": Target(
        in_file("a.jsonl", lambda path: AnswerCache(path)),
        jsons({"task": "caption", "model": "m", "request": {"a": 1}, "answer": "x"}),
    ),
    "rankings": Target(
        in_file("l.json", read_lists),
        jsons(
            {"1": ["a", "b"], "version": "rc2", "metric": "recall"}, [{"candidate": "a", "captions": ["x"], "ranking": ["b"]}]
        ),
    ),
    "record": Target(
        in_file("r.json", read_record),
        lambda: [
            (FIXTURES.parents[2] / "results" / "wardrobe.json").read_bytes(),
            b'{"kind": "run"}',
            b'{"kind": "sweep", "plane": {}}',
        ],
    ),
    "circo": Target(
        in_file(
            "root/annotations/val.json",
            benchmark("circo", {"COCO2017_unlabeled/annotations/image_info_unlabeled2017.json": INFO}),
        ),
        jsons(CIRCO),
    ),
    "cirr": Target(
        in_file(
            "root/captions/cap.rc2.val.json",
            benchmark(
                "cirr", {"image_splits/split.rc2.val.json": '{"a": "./dev/a.png", "b": "./dev/b.png", "c": "./dev/c.png"}'}
            ),
        ),
        jsons(CIRR),
    ),
    "fashioniq": Target(
        in_file(
            "root/captions/cap.dress.val.json",
            benchmark("fashioniq:dress", {"image_splits/split.dress.val.json": '["a", "b"]'}),
        ),
        jsons(FASHION),
    ),
    "genecis": Target(in_file("root/change_object.json", benchmark("genecis:change_object", {})), jsons(GENECIS)),
    "catalogue": Target(
        in_file(
            "root/items.csv",
            benchmark("catalogue", {"queries.jsonl": '{"id": "1", "reference": "a", "prompt": "red", "targets": ["b"]}\n'}),
        ),
        texts("id,file,article,colour\na,a.png,shirt,red\nb,b.png,shirt,blue\n"),
    ),
    "api-search": Target(request("POST", "/api/search"), jsons(SEARCH)),
    "api-batch": Target(request("POST", "/api/batch"), jsons({"requests": [SEARCH, SEARCH]})),
    "api-form": Target(request("POST", "/api/search/form", "multipart/form-data; boundary=x"), lambda: [FORM]),
    "api-upload": Target(request("POST", "/api/uploads", "image/png"), pictures),
    "api-link": Target(parameters, texts("pink-checked-shirt-0000.png", "../../etc/passwd", "10", "price < 20")),
    "page": Target(
        request("POST", "/page/view"),
        jsons(SEARCH | {"controls": {"beta": 0.5}, "comparison": "auto", "filters": [{"field": "price", "low": 1}], "seed": 3}),
    ),
    "mcp": Target(
        request("POST", "/mcp", accept="application/json, text/event-stream"),
        jsons(CALL, CALL | {"method": "initialize", "params": HELLO}, CALL | {"method": "tools/list", "params": {}}),
    ),
}
