"""Inputs for every parser, composed by its grammar: mostly right, with faults put in.

A fault is a value of another type or size in one of the slots, a key that is missing, unknown or doubled, a number of thousands of digits,
half a surrogate pair, NUL, thousands of levels, another encoding, bytes that are cut off or changed, a length that is wrong.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from mmretrieve.filters.expression import FUNCTIONS, NAMED_OPERANDS, OPERATORS
from mmretrieve.language.text_records import CAPTION_FIELDS, ID_FIELDS, PROMPT_FIELDS, REWRITE_FIELDS, TARGET_FIELDS
from mmretrieve.options import ComposerName, JudgeName, RuleName
from mmretrieve.request import REQUEST_FIELDS

Strategy = st.SearchStrategy[Any]
ROOT = Path(__file__).parents[2]
PHI_WIDTH = 96  # of the words of the wardrobe's encoder
RARE, VERY_RARE = 10, 30  # one in so many is a fault: of a whole input, of a slot

# ----------------------------------------------------------------------------------------------------------------- values
ODD_TEXTS = st.sampled_from(
    [
        "", " ", "\0", "\ud83d", "a\nb\r", "\x1b[31mred", "\u202etxt", "\u2028", "e\u0301", "\ufeff", "a" * 3_000, "%s{0}{x!r:>9}",
        "../../etc/passwd", "/dev/zero", "=1+1", "'\"\\`", "<script>", "9" * 5_000, "1e999", "nan", "-0", "0x1f", "٣", "null",
    ]
)  # fmt: skip
ODD_NUMBERS = st.sampled_from(
    [0, -0.0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, 5e-324, float("nan"), float("inf"), True]
)
RAW = {  # JSON that no value of Python is written as, by the text that stands for it
    "raw:digits": "9" * 5_000,
    "raw:float": "1e999",
    "raw:deep list": "[" * 3_000 + "]" * 3_000,
    "raw:deep object": '{"a":' * 3_000 + "1" + "}" * 3_000,
    "raw:double": '{"a": 1, "a": 2}',
    "raw:zero": "007",
    "raw:quote": "'a'",
    "raw:escape": '"\\ud83d\\u0000"',
    "raw:control": '"\x01\n"',
    "raw:open": '["a", ',
}
ODD_VALUES = st.one_of(
    st.none(),
    ODD_NUMBERS,
    ODD_TEXTS,
    st.sampled_from(list(RAW)),
    st.sampled_from([[], {}, [[]] * 50, {"a": {"": [None]}}, [None]]),
)
WORDS = st.sampled_from(
    ["red", "a red shirt", "in blue", "without stripes", "longer sleeves", "Größe 42", "赤いシャツ", "👩‍👩‍👧", "a"]
)


def usually(usual: Strategy, odd: Strategy, of: int = VERY_RARE) -> Strategy:
    """One in `of` values is odd. Examples shrink to usual ones."""
    return st.integers(1, of).flatmap(lambda number: odd if number == of else usual)


def slot(value: Strategy) -> Strategy:
    return usually(value, ODD_VALUES)


TEXTS = usually(WORDS, st.one_of(ODD_TEXTS, st.text(max_size=12)), RARE)
NUMBERS = usually(st.one_of(st.integers(-5, 50), st.floats(-3, 3)), ODD_NUMBERS)
INTEGERS = usually(st.integers(0, 40), ODD_NUMBERS)
SHARES = usually(st.floats(0, 1), ODD_NUMBERS)


def several(value: Strategy, most: int = 3) -> Strategy:
    return st.lists(slot(value), max_size=most)


def record(required: Mapping[str, Strategy], optional: Mapping[str, Strategy] | None = None) -> Strategy:
    """An object with these keys, each with a slot for its value; now and then a key is missing, unknown, or spelled otherwise."""
    slots = {name: slot(value) for name, value in required.items()}
    others = {name: slot(value) for name, value in (optional or {}).items()}
    right = st.fixed_dictionaries(slots, optional=others).map(
        lambda values: {name: values[name] for name in (*slots, *others) if name in values}  # in the order of the format
    )

    def change(values: dict[str, Any]) -> Strategy:
        names = st.sampled_from(sorted(values)) if values else st.just("a")
        return st.one_of(
            names.map(lambda name: {key: value for key, value in values.items() if key != name}),
            names.map(lambda name: {(key.upper() if key == name else key): value for key, value in values.items()}),
            st.tuples(ODD_TEXTS, ODD_VALUES).map(lambda pair: {**values, pair[0]: pair[1]}),
        )

    return usually(right, right.flatmap(change))


def as_json(value: Strategy) -> Strategy:
    """JSON text with RAW in its places, in ASCII or not."""

    def write(written: Any, is_ascii: bool) -> str:
        text = json.dumps(written, ensure_ascii=is_ascii)
        for name, raw in RAW.items():
            text = text.replace(f'"{name}"', raw)
        return text

    return st.builds(write, value, st.booleans())


def in_bytes(text: Strategy) -> Strategy:
    """Text as bytes, mostly UTF-8, with faults of bytes."""
    right = text.map(lambda written: written.encode("utf-8", "surrogatepass"))
    other = st.builds(
        lambda written, encoding: written.encode(encoding, "replace"),
        text,
        st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]),
    )
    return damaged(usually(right, other, RARE))


def damaged(data: Strategy, of: int = RARE) -> Strategy:
    """Bytes of which one in `of` is cut off, doubled, or changed in one place."""

    def damage(right: bytes) -> Strategy:
        places, inserted = (
            st.integers(0, len(right)),
            st.sampled_from([b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"\n", b"9" * 5_000]),
        )
        return st.one_of(
            places.map(lambda at: right[:at]),
            st.tuples(places, inserted).map(lambda pair: right[: pair[0]] + pair[1] + right[pair[0] :]),
            st.tuples(places, st.integers(0, 255)).map(lambda pair: right[: pair[0]] + bytes([pair[1]]) + right[pair[0] + 1 :]),
            st.just(right * 2),
        )

    return usually(data, data.flatmap(damage), of)


def json_file(value: Strategy) -> Strategy:
    return in_bytes(as_json(value))


def json_lines(value: Strategy, most: int = 4) -> Strategy:
    return in_bytes(
        st.lists(usually(as_json(value), st.sampled_from(["", "[", "#"])), min_size=1, max_size=most).map("\n".join)
    )


# ---------------------------------------------------------------------------------------------------------------- filters
COLUMNS = st.sampled_from(["price", "number", "name", "kind"])
LITERALS = st.one_of(st.integers(-5, 50), st.floats(-3, 3), st.booleans(), st.none(), TEXTS)


def sql_literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)


SQL_LEAVES = st.one_of(
    COLUMNS.flatmap(lambda name: st.sampled_from([name, f'"{name}"', f"fields.{name}", f"[{name}]", f"`{name}`"])),
    LITERALS.map(sql_literal),
    st.sampled_from(["id", "width", "path", "x'00'", "0x1F", "1e999", ".5", "9" * 500, "?", "@a", "rowid", "*", "''''"]),
)


def sql_nested(inner: Strategy) -> Strategy:
    words = st.sampled_from(
        [
            "({0})", "({0}) = ({1})", "({0}) AND ({1})", "({0}) OR ({1})", "NOT ({0})", "{0} IS NOT {1}", "({0}) IN ({1}, {2})", "{0} LIKE {1}",
            "{0} GLOB 'a*[^b]?'", "({0}) BETWEEN ({1}) AND ({2})", "CASE WHEN {0} THEN {1} ELSE {2} END", "CAST({0} AS TEXT)",
            "({0}) COLLATE NOCASE", "({0} || {1})", "({0} << {1})", "-({0})", "({0}) IS NULL", "{0} LIKE {1} ESCAPE '!'", "{0} == {1} <> {2}",
            "(SELECT {0})", "{0}; {1}", "{0} -- {1}", "{0} /* {1} */", "EXISTS ({0})", "{0} IN (SELECT 1)", "{0} REGEXP {1}",
        ]
    )  # fmt: skip
    calls = st.sampled_from(sorted(FUNCTIONS)).flatmap(
        lambda name: st.lists(inner, min_size=FUNCTIONS[name][0], max_size=min(4, FUNCTIONS[name][1])).map(
            lambda operands: f"{name}({', '.join(operands)})"
        )
    )
    filled = st.builds(lambda word, *operands: word.format(*operands), words, inner, inner, inner)
    return st.one_of(filled, calls)


SQL = usually(
    st.recursive(SQL_LEAVES, sql_nested, max_leaves=8),
    st.one_of(st.just("(" * 500 + "1" + ")" * 500), st.just("NOT " * 500 + "1"), st.just("1" + " AND 1" * 2_000), ODD_TEXTS),
)


def structure_nested(inner: Strategy) -> Strategy:
    return st.sampled_from(sorted(name for name in OPERATORS if name not in NAMED_OPERANDS)).flatmap(
        lambda name: record(
            {
                "operator": st.just(name),
                "operands": st.lists(slot(inner), min_size=OPERATORS[name][0], max_size=min(4, OPERATORS[name][1])),
            }
        )
    )


STRUCTURES = st.recursive(
    st.one_of(record({"column": COLUMNS}, {"table": st.just("fields")}), record({"value": LITERALS})),
    structure_nested,
    max_leaves=8,
)
WHERE = st.one_of(SQL, STRUCTURES, st.dictionaries(COLUMNS, st.one_of(LITERALS, st.lists(LITERALS, max_size=3)), max_size=3))

# ---------------------------------------------------------------------------------------------------------------- requests
IDS = usually(st.sampled_from(["pink-checked-shirt-0000.png", "yellow-checked-coat-0007.png"]), ODD_TEXTS)
REGIONS = usually(st.sampled_from([[0, 0, 1, 1], [0.5, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]]), st.lists(SHARES, max_size=5), RARE)
WEIGHTS = st.one_of(
    st.sampled_from(["auto", "base", "balanced"]),
    st.dictionaries(st.sampled_from(["image", "text", "composed", "prompt", "avoid"]), NUMBERS, min_size=1, max_size=3),
)
SEARCH_FIELDS: dict[str, Strategy] = {
    "reference_id": usually(IDS, several(IDS)),
    "region": usually(REGIONS, st.lists(REGIONS, max_size=2)),
    "image_weight": usually(NUMBERS, st.lists(NUMBERS, max_size=2)),
    "strength": NUMBERS,
    "paraphrases": usually(st.integers(1, 6), INTEGERS),
    "avoid": usually(TEXTS, several(TEXTS)),
    "more_like": IDS,
    "less_like": IDS,
    "axis": TEXTS,
    "axis_opposite": TEXTS,
    "axis_weight": NUMBERS,
    "caption": TEXTS,
    "composer": st.sampled_from(sorted(ComposerName)),
    "rule": st.sampled_from(sorted(RuleName)),
    "k": usually(st.integers(1, 5), INTEGERS),
    "alpha_image": usually(NUMBERS, st.just("auto")),
    "alpha_text": NUMBERS,
    "beta": SHARES,
    "weights": WEIGHTS,
    "min_score": NUMBERS,
    "where": usually(st.sampled_from(["price < 20", "kind = 'shirt'", {"kind": ["shirt", "coat"]}]), WHERE),
    "exclude": usually(IDS, several(IDS)),
    "exclude_reference": st.booleans(),
    "judge": st.sampled_from(sorted(JudgeName)),
    "judge_k": usually(st.integers(1, 5), INTEGERS),
    "judge_weight": usually(NUMBERS, st.just("inf")),
}
assert SEARCH_FIELDS.keys() | {"image", "prompt"} == REQUEST_FIELDS.keys()
CONSISTENT = ("avoid", "k", "min_score", "where", "exclude", "more_like", "less_like")  # fields that go with each other


def search(**more: Strategy) -> Strategy:
    """A request whose fields mostly agree."""
    few = {name: SEARCH_FIELDS[name] for name in CONSISTENT}
    return usually(
        st.one_of(record({"prompt": TEXTS}, few | more), record({"reference_id": IDS, "prompt": TEXTS}, few | more)),
        record({}, SEARCH_FIELDS | {"prompt": usually(TEXTS, several(TEXTS)), "image": TEXTS} | more),
        4,
    )


def call(method: str, params: Strategy) -> Strategy:
    return record({"jsonrpc": st.just("2.0"), "id": st.just(1), "method": st.just(method), "params": params})


MCP = st.one_of(
    call("tools/call", record({"name": st.just("search"), "arguments": search()})),
    call(
        "tools/call", record({"name": st.sampled_from(["similar", "item"]), "arguments": record({"id": IDS}, {"k": INTEGERS})})
    ),
    call("tools/list", st.just({})),
    call(
        "initialize",
        record(
            {
                "protocolVersion": st.just("2025-06-18"),
                "capabilities": st.just({}),
                "clientInfo": record({"name": TEXTS, "version": st.just("1")}),
            }
        ),
    ),
)
CONTROLS = usually(
    record({}, {"alpha_image": NUMBERS, "alpha_text": NUMBERS, "beta": SHARES, "prompt": NUMBERS, "avoid": NUMBERS}),
    st.just("auto"),
)
FILTERS = st.lists(
    record(
        {"field": COLUMNS},
        {"any_of": st.lists(TEXTS, max_size=3), "at_least": NUMBERS, "at_most": NUMBERS},
    ),
    max_size=2,
)
PAGE = search(controls=CONTROLS, comparison=CONTROLS, filters=FILTERS, seed=INTEGERS)


def form_part(name: str, filename: str | None, content: bytes) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"'
    header = f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return header.encode("utf-8", "surrogatepass") + content + b"\r\n"


def headers() -> Strategy:
    """Head of a request to a server with a token: method, path, query string and headers."""
    secret = usually(st.just("a-secret-of-20-bytes"), ODD_TEXTS, 2)
    cookies = st.lists(
        st.one_of(
            secret.map(lambda value: f"mmretrieve-session-80={value}"),
            st.sampled_from(["a=b", ";;", "=", '"', "a" * 900, "x=\\054"]),
        ),
        max_size=4,
    ).map("; ".join)
    values = {
        "authorization": usually(
            secret.map(lambda value: f"Bearer {value}"),
            st.sampled_from(["Bearer", "Basic é", "Basic " + "=" * 50, "bearer  x"]),
            3,
        ),
        "cookie": cookies,
        "host": st.sampled_from(["127.0.0.1", "[::1", "a:b:c", "", "x" * 300, "127.0.0.1:99999999999"]),
        "origin": st.sampled_from(["http://127.0.0.1", "null", "://", "https://evil"]),
        "range": st.sampled_from(["bytes=0-1", "bytes=9-1", "bytes=" + "0-," * 300, "x"]),
        "content-length": st.sampled_from(["3", "-1", "9" * 5_000, "1e9", "nan", "x", "0x10", "٣"]),
        "content-type": st.sampled_from(
            ["application/json", "multipart/form-data", "multipart/form-data; boundary=" + "a" * 500, ";", "é"]
        ),
        "transfer-encoding": st.sampled_from(["chunked", "gzip, chunked", "x"]),
        "if-none-match": TEXTS,
        "sec-fetch-site": st.sampled_from(["cross-site", "same-origin", "x"]),
        "x-forwarded-proto": st.sampled_from(["https", "ftp"]),
        "accept": st.sampled_from(["text/html", "*/*", "x"]),
    }
    return st.fixed_dictionaries(
        {
            "method": usually(st.sampled_from(["GET", "POST"]), st.sampled_from(["HEAD", "OPTIONS", "TRACE", "", "x"])),
            "path": usually(
                st.sampled_from(["/", "/api/search", "/api/items", "/shop", "/shop/api/info/"]),
                st.sampled_from(["//evil", "/\\evil", "/api/../..", "/shop//evil", "/%00", "/\0", "*", ""]),
            ),
            "query": usually(st.just(""), st.builds("token={}&{}".format, secret, TEXTS), 3),
            "headers": st.fixed_dictionaries({}, optional=values),
            "body": st.sampled_from(["", "{}", "abc"]),
        }
    )


# ----------------------------------------------------------------------------------------------------------------- tables
CELLS = st.one_of(
    WORDS, st.integers(-5, 50).map(str), st.floats(-3, 3).map(str), st.sampled_from(["", "007", "1e5000", "2024-01-01"])
)
COLUMN_NAMES = st.lists(
    usually(st.sampled_from(["path", "image", "id", "price", "name", "kind", "tags"]), ODD_TEXTS),
    min_size=1,
    max_size=5,
    unique=True,
)


def table(default_delimiter: str) -> Strategy:
    """A table of text: delimiters, quoting, line ends and encodings as programs write them, and rows of other lengths."""

    def write(names: list[str], rows: list[list[str]], delimiter: str, quotes: str, end: str, has_sep: bool) -> str:
        def cell(text: str) -> str:
            needs = quotes == "all" or (quotes == "needed" and any(c in text for c in (delimiter, '"', "\n", "\r")))
            return '"' + text.replace('"', '""') + '"' if needs else text

        lines = [delimiter.join(map(cell, row)) for row in (names, *rows)]
        return (f"sep={delimiter}{end}" if has_sep else "") + end.join(lines)

    def build(names: list[str]) -> Strategy:
        cell = usually(CELLS, st.one_of(ODD_TEXTS, st.just("a" * 200_000)), VERY_RARE)
        right = st.lists(cell, min_size=len(names), max_size=len(names))
        return st.builds(
            write,
            st.just(names),
            st.lists(usually(right, st.lists(cell, max_size=7), RARE), max_size=4),
            usually(st.just(default_delimiter), st.sampled_from([",", ";", "\t", "|", "\0", '"']), RARE),
            usually(st.just("needed"), st.sampled_from(["all", "none"]), 4),
            usually(st.just("\n"), st.sampled_from(["\r\n", "\r", "\n\n", "\u2028"]), 4),
            usually(st.just(False), st.just(True), RARE),
        )

    return in_bytes(COLUMN_NAMES.map(lambda names: ["path", *(name for name in names if name != "path")]).flatmap(build))


ITEM = record(
    {"path": st.sampled_from(["a.png", "b.png", "c/d.jpg"])},
    {
        "price": NUMBERS,
        "name": TEXTS,
        "tags": several(TEXTS),
        "more": st.dictionaries(TEXTS, st.one_of(NUMBERS, TEXTS), max_size=2),
        "on": st.booleans(),
    },
)


def picture() -> Strategy:
    """A small picture in a format and mode, with a header that is right."""

    def draw(form: str, mode: str, width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        image = (
            Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
            .convert("L")
            .convert(mode)
        )
        try:
            image.save(buffer, form)
        except (OSError, ValueError):
            image.convert("RGB").save(buffer, "PNG")
        return buffer.getvalue()

    forms = st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "JPEG2000", "PPM", "AVIF", "TGA"])
    modes = st.sampled_from(["RGB", "L", "P", "1", "RGBA", "CMYK", "I;16", "F", "I", "LA"])
    return st.builds(draw, forms, modes, st.integers(1, 20), st.integers(1, 20))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png() -> Strategy:
    """A PNG file of chunks whose lengths and checksums are right, and whose values may not be."""
    sides = usually(st.integers(1, 30), st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**32 - 1]))
    header = st.builds(
        lambda *values: struct.pack(">IIBBBBB", *values),
        sides,
        sides,
        usually(st.just(8), st.sampled_from([1, 2, 4, 16, 99])),
        usually(st.just(2), st.sampled_from([0, 3, 4, 6, 7])),
        usually(st.just(0), st.just(1)),
        usually(st.just(0), st.just(1)),
        usually(st.just(0), st.sampled_from([1, 2])),
    )
    more = st.lists(
        st.sampled_from(
            [
                (b"tEXt", b"a\0" + b"b" * 100),
                (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 2_000_000)),
                (b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 9_000_000)),
                (b"iCCP", b"a\0\0abc"),
                (b"eXIf", b"II*\0\x08\0\0\0\xff\xff"),
                (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0"),
                (b"PLTE", b"\0" * 7),
                (b"tRNS", b"\0" * 300),
                (b"acTL", struct.pack(">II", 2**31, 0)),
                (b"gAMA", b"\0\0\0\0"),
                (b"IDAT", b""),
            ]
        ),
        max_size=3,
    )
    pixels = usually(
        st.just(zlib.compress(b"\0" * 5_000)),
        st.sampled_from([b"", b"abc", zlib.compress(b""), zlib.compress(b"\0" * 9_000_000)]),
    )
    return st.builds(
        lambda head, others, data: (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", head)
            + b"".join(chunk(*one) for one in others)
            + chunk(b"IDAT", data)
            + chunk(b"IEND", b"")
        ),
        header,
        more,
        pixels,
    )


PICTURES = damaged(st.one_of(picture(), png()))


def archive() -> Strategy:
    """A tar archive: pictures with sidecars, links, long and odd names, and headers that are wrong."""
    import tarfile

    names = usually(
        st.sampled_from(["a.png", "a.json", "a.txt", "b/c.jpg", "b/c.json", "b/c.cls", "ä" * 60 + ".png"]),
        st.sampled_from(["../x.png", "/etc/x.png", "a\nb.png", "", ".", "a.png/", "\udcff.png", "x" * 300 + ".png"]),
    )
    contents = st.one_of(picture(), json_file(ITEM), TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")))
    kinds = usually(
        st.just(tarfile.REGTYPE),
        st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"Z"]),
        RARE,
    )
    sizes = usually(st.none(), st.sampled_from([0, 1, 10**6, 2**40]))
    members = st.lists(st.tuples(names, contents, kinds, sizes, usually(st.just({}), st.sampled_from([{"size": "x"}, {"path": "\ud83d"}, {"mtime": "9" * 5_000}, {"GNU.sparse.map": "1,2,3"}]))), max_size=4)  # fmt: skip

    def write(entries: list[Any], form: int) -> bytes:
        buffer = io.BytesIO()
        for name, data, kind, size, pax in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data) if kind == tarfile.REGTYPE else 0, "a.png"
            info.pax_headers = pax if form == tarfile.PAX_FORMAT else {}
            if size is not None:
                info.size = size
            try:
                head = info.tobuf(form, "utf-8", "surrogatepass")
            except ValueError:
                continue
            buffer.write(head + data + b"\0" * (-len(data) % 512))
        return buffer.getvalue() + b"\0" * 1_024

    return damaged(st.builds(write, members, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))


def parquet(required: Mapping[str, Strategy], optional: Mapping[str, Strategy], lengths: Strategy) -> Strategy:
    """A Parquet file with columns of several types."""
    import pyarrow
    from pyarrow import parquet as files

    def write(values: Mapping[str, list[Any]], length: int, compression: str) -> bytes:
        buffer, arrays = io.BytesIO(), {}
        for name, column in values.items():
            try:
                arrays[name] = pyarrow.array((column * length)[:length])
            except (pyarrow.ArrowException, UnicodeError, OverflowError, RecursionError):  # values of several types
                arrays[name] = pyarrow.nulls(length)
        try:
            files.write_table(pyarrow.table(arrays), buffer, compression=compression)
        except (pyarrow.ArrowException, UnicodeError):  # a name that is not text
            buffer.write(b"PAR1")
        return buffer.getvalue()

    def columns(of: Mapping[str, Strategy]) -> dict[str, Strategy]:
        return {name: st.lists(one, min_size=3, max_size=3) for name, one in of.items()}

    values = st.fixed_dictionaries(columns(required), optional=columns(optional))
    return damaged(st.builds(write, values, lengths, st.sampled_from(["none", "snappy", "zstd"])))


TABLE_COLUMNS: dict[str, Strategy] = {
    "price": usually(st.integers(0, 9), st.sampled_from([2**64 - 1, None, float("nan")])),
    "tags": st.lists(WORDS, max_size=2),
    "more": st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.lists(WORDS, max_size=1)}),
    "on": st.booleans(),
    "when": st.dates(),
    "amount": st.decimals(-10, 10, places=2),
    "\x1b[31m": WORDS,
    "PATH": WORDS,
}

# ----------------------------------------------------------------------------------------------- galleries, exports, weights
SETTINGS = record({}, {"alpha_image": NUMBERS, "alpha_text": NUMBERS, "beta": SHARES})
GROUP_NAMES = ("colour", "thing", "size")
SENTENCES = usually(
    st.sampled_from(["a photo of a {colour} {thing}", "a {size} {colour} {thing}"]),
    st.sampled_from(["a {colour:>1000000000} {thing}", "{colour!r} {thing}", "{thing.__class__}", "{thing[0]}", "{", "{}", "{0}", "{thing:{colour}}"]),
    RARE,
)  # fmt: skip
GROUPS = st.builds(
    lambda first, *others: [first, *others],
    *(
        record(
            {"name": usually(st.just(name), st.sampled_from(["thing.__class__", "thing[0]", "", "0"])), "words": st.lists(TEXTS, min_size=1, max_size=3)},
            {"only": st.dictionaries(st.sampled_from(GROUP_NAMES), st.lists(TEXTS, max_size=2), max_size=1)},
        )
        for name in ("colour", "thing")
    ),
)  # fmt: skip
VOCABULARY = record({"sentence": SENTENCES, "groups": GROUPS})
ENCODER = record(
    {
        "model": usually(st.just("m"), TEXTS),
        "weights": usually(st.just("w"), TEXTS),
        "preprocessing": usually(st.just("p"), TEXTS),
    }
)
INDEX = record(
    {
        "epoch": INTEGERS,
        "rows": INTEGERS,
        "digest": st.just("0" * 64),
        "factory": usually(st.sampled_from(["Flat", "IVF2,SQ8", "HNSW16"]), ODD_TEXTS),
        "reason": TEXTS,
        "trained": INTEGERS,
        "recall": SHARES,
        "target": SHARES,
        "seconds": NUMBERS,
        "effort": record({"probes": INTEGERS, "ef": st.none(), "overfetch": INTEGERS}),
    }
)
FIELD_TYPES = usually(
    st.just({"number": "number", "price": "number", "name": "text", "kind": "text"}),
    st.dictionaries(TEXTS, slot(st.sampled_from(["number", "text"])), max_size=3),
)
CAPTIONS = record({"field": COLUMNS, "weight": SHARES})
META: dict[str, Strategy] = {  # of a ledger
    "captions": CAPTIONS,
    "dim": usually(st.just(128), INTEGERS),
    "decode": st.sampled_from(["exact", "fast"]),
    "colors": st.sampled_from(["srgb", "raw"]),
    "setting": SETTINGS,
    "fields": FIELD_TYPES,
    "vocabulary": record({"vocabulary": VOCABULARY, "fields": st.lists(COLUMNS, max_size=2)}),
    "title_field": COLUMNS,
    "index": INDEX,
    "index_wanted": record({"factory": st.just("Flat"), "target": SHARES}),
    "rows": usually(st.just(13), INTEGERS),
    "epoch": INTEGERS,
    "generation": INTEGERS,
    "format": usually(st.just(3), INTEGERS),
    "thumbnail_bytes": usually(st.just(21_229), INTEGERS),
}
ITEM_COLUMNS = [
    "row",
    "id",
    "path",
    "part",
    "hash",
    "width",
    "height",
    "source",
    "stamp",
    "vector",
    "thumbnail",
    "thumbnail_at",
    "thumbnail_size",
    "died",
    "seal",
]
LEDGER_CHANGES = st.fixed_dictionaries(
    {
        "meta": st.fixed_dictionaries({}, optional={name: slot(value) for name, value in META.items()}),
        "sealed": st.booleans(),
        "items": st.lists(
            st.tuples(st.sampled_from(ITEM_COLUMNS), st.integers(0, 12), usually(INTEGERS, st.one_of(TEXTS, st.none()))),
            max_size=2,
        ),
    }
)


EXPORT = record(
    {"encoder": ENCODER, "dim": usually(st.just(2), INTEGERS), "decode": st.sampled_from(["exact", "fast"])},
    {
        "setting": SETTINGS,
        "fields": st.dictionaries(TEXTS, st.sampled_from(["number", "text"]), max_size=2),
        "vocabulary": record({"vocabulary": VOCABULARY, "fields": st.lists(COLUMNS, max_size=2)}),
        "title_field": TEXTS,
        "captions": CAPTIONS,
        "colors": st.sampled_from(["srgb", "raw"]),
    },
)
OWN = record(
    {
        "id": TEXTS,
        "part": st.none(),
        "hash": TEXTS,
        "width": INTEGERS,
        "height": INTEGERS,
        "source": TEXTS,
        "stamp": TEXTS,
        "fields": st.dictionaries(TEXTS, st.one_of(NUMBERS, TEXTS, several(TEXTS)), max_size=3),
    }
)
EXPORT_COLUMNS: dict[str, Strategy] = {
    "mmretrieve": usually(as_json(OWN), st.none(), 3),
    "caption": WORDS,
    "price": NUMBERS,
    "key": st.integers(0, 9),
}


def npy() -> Strategy:
    """An array of NumPy: magic number, version, the length of the header, the header, the numbers."""
    types = usually(
        st.sampled_from(["<f2", "<f4", ">f8", "<i4"]),
        st.sampled_from(["|O", "<U9", "<c8", "|V9", "x", "<f99", "('<f2', (2,))"]),
    )
    shapes = usually(st.sampled_from(["(2, 2)", "(1, 2)", "(2, 3)"]), st.sampled_from(["()", "(-1, 2)", "(9999999999, 2)", "(2,", "'a'", "(2, 2)" * 90, "(True, 2)", "(0, 2)"]))  # fmt: skip
    header = st.builds(
        "{{'descr': {!r}, 'fortran_order': {}, 'shape': {}, }}".format,
        types,
        usually(st.just("False"), st.sampled_from(["True", "1", "None"])),
        shapes,
    )

    def write(text: str, extra: int, data: bytes, version: int) -> bytes:
        body = text.encode("latin-1") + b"\n"
        return (
            b"\x93NUMPY"
            + bytes([version, 0])
            + struct.pack("<H" if version == 1 else "<I", (len(body) + extra) % 2**16)
            + body
            + data
        )

    rows = usually(st.just(np.eye(2, dtype="<f8").tobytes()), st.sampled_from([b"", b"\xff" * 64, b"\0" * 64]))
    return damaged(
        st.builds(
            write,
            header,
            usually(st.just(0), st.sampled_from([1, -5, 60_000])),
            rows,
            usually(st.just(1), st.sampled_from([2, 3, 9])),
        )
    )


PHI_SHAPES = [("layers.0", (4, 128)), ("layers.3", (4, 4)), ("layers.6", (PHI_WIDTH, 4))]
PHI = {f"{name}.{part}": shape[: 2 if part == "weight" else 1] for name, shape in PHI_SHAPES for part in ("weight", "bias")}


def safetensors() -> Strategy:
    """The length of a header, the header as JSON, and the numbers that it describes."""
    tensors, end = dict[str, Strategy](), 0
    for name, shape in PHI.items():
        start, end = end, end + 4 * math.prod(shape)
        tensors[name] = record(
            {
                "dtype": usually(st.just("F32"), st.sampled_from(["F16", "I64", "BOOL", "F99"])),
                "shape": usually(
                    st.just(list(shape)),
                    st.one_of(st.sampled_from([[0, 4], [2**40, 0], [4, 4, 1]]), st.lists(INTEGERS, max_size=3)),
                ),
                "data_offsets": usually(st.just([start, end]), st.lists(INTEGERS, max_size=3)),
            }
        )

    def write(text: str, extra: int, data: bytes) -> bytes:
        body = text.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", (len(body) + extra) % 2**64) + body + data

    header = record(tensors, {"__metadata__": st.dictionaries(TEXTS, TEXTS, max_size=2)})
    wrong = st.sampled_from([-1, 1, 2**30, 2**63])
    return damaged(
        st.builds(write, as_json(header), usually(st.just(0), wrong), usually(st.just(b"\0" * end), st.just(b"\xff" * end)))
    )


def checkpoint() -> Strategy:
    """A file of torch.save, whose objects are right or not."""
    import torch

    odd = st.sampled_from(
        [
            torch.zeros(0), torch.zeros(2, dtype=torch.int8), torch.zeros(2).to_sparse(), torch.zeros(1 << 20, 1), torch.zeros(1, 1).expand(1 << 20, 128),
            torch.full((4, 4), float("nan")), torch.zeros(4, dtype=torch.complex64), torch.zeros(4, 4, device="meta"), None, 1.5, "a",
        ]
    )  # fmt: skip
    states = st.fixed_dictionaries({name: usually(st.just(torch.zeros(shape)), odd, 20) for name, shape in PHI.items()})
    renamed = st.builds(
        lambda state, start: {start + name: value for name, value in state.items()},
        states,
        st.sampled_from(["Phi.", "module.", "_orig_mod."]),
    )
    files = usually(
        st.one_of(states, states.map(lambda state: {"state_dict": state, "epoch": 3})),
        st.one_of(
            renamed,
            st.lists(states, max_size=2),
            TEXTS,
            states.map(lambda state: {"state_dict": {"state_dict": state}, 3: [state]}),
        ),
        4,
    )

    def write(value: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    return damaged(files.map(write))


# -------------------------------------------------------------------------------------------- files of texts and of answers
def text_record(*roles: tuple[tuple[str, ...], Strategy]) -> Strategy:
    """A record with one of the names of each role."""
    return st.tuples(*(usually(st.just(names[0]), st.just(names[1])) for names, _ in roles)).flatmap(
        lambda chosen: record({name: value for name, (_, value) in zip(chosen, roles, strict=True)}, {"more": TEXTS})
    )


PROMPTS_FILE = (PROMPT_FIELDS, TEXTS)
IMAGES = (ID_FIELDS, usually(st.sampled_from(["a.png", "b.png"]), ODD_TEXTS))
CAPTIONS = st.one_of(
    st.lists(text_record(IMAGES, (CAPTION_FIELDS, usually(TEXTS, several(TEXTS)))), min_size=1, max_size=3),
    st.dictionaries(TEXTS, usually(TEXTS, several(TEXTS)), max_size=3),
)
REWRITES = text_record((CAPTION_FIELDS, TEXTS), PROMPTS_FILE, (REWRITE_FIELDS, TEXTS))
DESCRIPTIONS = st.lists(text_record(IMAGES, PROMPTS_FILE, (TARGET_FIELDS, TEXTS)), min_size=1, max_size=3)
ROLES = st.lists(
    record(
        {"prompt": TEXTS},
        {"id": TEXTS, "global": TEXTS, "desired": several(TEXTS), "preserve": several(TEXTS), "forbidden": several(TEXTS)},
    ),
    min_size=1,
    max_size=3,
)
ANSWERS = record(
    {"task": st.just("rewrite"), "model": TEXTS, "asked": record({"caption": TEXTS, "prompt": TEXTS}), "said": TEXTS}
)
ROWS = st.tuples(st.just("rewrite"), TEXTS, as_json(record({"caption": TEXTS, "prompt": TEXTS})), as_json(TEXTS))
REPLIES = st.builds(
    "{}{}{}".format,
    usually(st.just(""), st.sampled_from(["<think>", "<think>a</think> ", "Sure! ", "```json\n", "{" * 500, '{"a":' * 3_000])),
    as_json(
        record(
            {}, {"global": TEXTS, "desired": several(TEXTS), "target": TEXTS, "reference": TEXTS, "forbidden": several(TEXTS)}
        )
    ),
    usually(st.just(""), st.sampled_from(["\n```", " }", "</think>"])),
)
COMPLETION = record(
    {
        "choices": st.lists(
            record({"message": record({"content": usually(REPLIES, TEXTS)})}, {"finish_reason": st.just("length")}),
            min_size=1,
            max_size=2,
        )
    }
)

# ------------------------------------------------------------------------------------------------------ files of evaluation
NAMES = usually(st.sampled_from(["a", "b", "c"]), ODD_TEXTS)
CIRCO = st.lists(
    record(
        {
            "reference_img_id": st.just(1),
            "target_img_id": st.just(2),
            "relative_caption": TEXTS,
            "shared_concept": TEXTS,
            "gt_img_ids": usually(st.just([2]), several(INTEGERS)),
            "id": st.integers(0, 2),
            "semantic_aspects": several(TEXTS),
        }
    ),
    min_size=1,
    max_size=2,
)
CIRR = st.lists(
    record(
        {
            "pairid": st.integers(1, 3),
            "reference": st.just("a"),
            "target_hard": st.just("b"),
            "caption": TEXTS,
            "img_set": record({"id": INTEGERS, "members": usually(st.just(list("abcdef")), several(NAMES))}),
            "target_soft": usually(st.just({"b": 1.0}), st.dictionaries(NAMES, NUMBERS, max_size=2)),
        }
    ),
    min_size=1,
    max_size=2,
)
FASHION = st.lists(
    record(
        {
            "candidate": st.just("a"),
            "target": st.just("b"),
            "captions": usually(st.lists(TEXTS, min_size=2, max_size=2), several(TEXTS)),
        }
    ),
    min_size=1,
    max_size=2,
)
IMAGE_ID = record({"val_image_id": usually(st.integers(1, 4), st.sampled_from(["12", "9" * 5_000, "٣", "-1"]))})
GENECIS = st.lists(
    record(
        {
            "reference": IMAGE_ID,
            "target": IMAGE_ID,
            "gallery": usually(st.lists(slot(IMAGE_ID), min_size=14, max_size=14), several(IMAGE_ID)),
            "condition": TEXTS,
        }
    ),
    min_size=1,
    max_size=2,
)
RANKINGS = st.one_of(
    st.dictionaries(
        st.sampled_from(["1", "2", "3"]),
        st.lists(usually(st.one_of(NAMES, st.integers(0, 9)), ODD_VALUES), max_size=3),
        min_size=1,
        max_size=3,
    ),
    record({"1": several(NAMES), "version": st.just("rc2"), "metric": st.sampled_from(["recall", "recall_subset"])}),
    st.lists(record({"candidate": NAMES, "captions": several(TEXTS), "ranking": several(NAMES)}), min_size=1, max_size=2),
)


METRICS = st.fixed_dictionaries({"recall@1": slot(NUMBERS)})
RECORD = {
    "name": TEXTS,
    "benchmark": st.just("cirr"),
    "split": st.just("val"),
    "label": TEXTS,
    "composer": st.sampled_from(sorted(ComposerName)),
    "rule": st.just("linear"),
    "parts": st.dictionaries(
        st.just("cirr"),
        record(
            {"queries": st.just(2), "gallery": st.just(3), "checksum": TEXTS, "metrics": METRICS},
            {"remark": TEXTS, "reference in gallery": st.booleans()},
        ),
    ),
    "remarks": several(TEXTS),
    "options": st.dictionaries(TEXTS, st.one_of(TEXTS, NUMBERS), max_size=2),
    "encoder": record({"model": TEXTS, "weights": TEXTS, "preprocessing": TEXTS}),
    "provenance": st.dictionaries(TEXTS, TEXTS, max_size=2),
    "headline": st.just("recall@1"),
}
RUN = record(RECORD | {"kind": st.just("run"), "weighing": TEXTS, "metrics": METRICS})
POINT = record({"beta": NUMBERS, "gamma": NUMBERS, "metrics": METRICS}, {"setting": TEXTS})
SWEEP = record(
    RECORD
    | {
        "kind": st.just("sweep"),
        "metric": st.just("recall@1"),
        "queries": st.just(2),
        "betas": usually(st.just([0, 1]), several(NUMBERS)),
        "gammas": usually(st.just([0.5]), several(NUMBERS)),
        "plane": usually(st.just({"recall@1": [[1], [2]]}), st.dictionaries(TEXTS, several(several(NUMBERS)), max_size=2)),
        "points": st.dictionaries(st.sampled_from(["base", "best"]), POINT),
        "tuning": record({"tuned on": TEXTS, "reported on": TEXTS}),
    }
)
SUBMISSION = record(
    {name: value for name, value in RECORD.items() if name != "headline"} | {"kind": st.just("submission"), "weighing": TEXTS}
)
SCORED = {"id": NAMES, "score": NUMBERS, "contributions": st.dictionaries(st.sampled_from(["image", "text"]), NUMBERS)}
RESULTS = record(
    {
        "name": TEXTS,
        "metrics": st.just(["recall@1"]),
        "parts": st.dictionaries(
            st.just("cirr"),
            st.lists(
                record(
                    {
                        "id": NAMES,
                        "reference": NAMES,
                        "prompt": TEXTS,
                        "targets": several(NAMES),
                        "words": st.dictionaries(st.just("text"), TEXTS),
                        "hits": st.lists(record(SCORED), max_size=2),
                        "values": usually(st.lists(NUMBERS, min_size=1, max_size=1), several(NUMBERS)),
                    },
                    {"target": record(SCORED | {"rank": INTEGERS})},
                ),
                max_size=2,
            ),
        ),
    }
)
CATALOGUE = in_bytes(
    st.lists(st.tuples(TEXTS, TEXTS), max_size=3)
    .map(lambda rows: [("a", "shirt", "red"), ("b", "coat", "blue"), *((f"c{i}", *row) for i, row in enumerate(rows))])
    .map(
        lambda rows: (
            "id,file,article,colour\n" + "".join(f"{name},{name}.png,{article},{colour}\n" for name, article, colour in rows)
        )
    )
)

# ---------------------------------------------------------------------------------------------------------------- the shell
OPTIONS: dict[str, Strategy] = {
    "--image": st.sampled_from(["a.png", "", "\0"]),
    "--prompt": TEXTS,
    "--region": usually(st.sampled_from(["all", "0.5,0,1,1"]), st.sampled_from(["1,2", "a,b,c,d", "nan,0,1,1", "9e999,0,1,1"])),
    "--weights": usually(
        st.sampled_from(["auto", "image=1,prompt=2"]), st.sampled_from(["image", "=1", "image=1,image=2", "image=nan", "aut"])
    ),
    "--strength": st.one_of(NUMBERS.map(str), ODD_TEXTS),
    "--beta": st.one_of(SHARES.map(str), ODD_TEXTS),
    "--alpha-image": st.one_of(NUMBERS.map(str), st.just("auto"), ODD_TEXTS),
    "--where": SQL,
    "--composer": usually(st.sampled_from(sorted(ComposerName)), ODD_TEXTS),
    "--rule": usually(st.sampled_from(sorted(RuleName)), ODD_TEXTS),
    "-k": st.one_of(INTEGERS.map(str), ODD_TEXTS),
    "--timeout": st.one_of(NUMBERS.map(str), ODD_TEXTS),
    "--device": ODD_TEXTS,
}
COMMANDS = st.one_of(
    st.builds(
        lambda options: ["search", "g", *(word for pair in options.items() for word in pair)],
        st.fixed_dictionaries({}, optional=OPTIONS),
    ),
    st.builds(
        lambda port, token: ["serve", "g", "--port", port, "--token", token], st.one_of(INTEGERS.map(str), ODD_TEXTS), ODD_TEXTS
    ),
    st.lists(st.one_of(st.sampled_from(["search", "index", "info", "-k", "--json", "g", "--"]), ODD_TEXTS), max_size=4),
)
SMALL_TEXTS = st.one_of(
    st.builds(
        "{}://{}{}{}/{}".format,
        usually(st.sampled_from(["milvus", "milvuss"]), ODD_TEXTS),
        usually(st.sampled_from(["", "user:word@"]), st.sampled_from(["@", ":@", "a:b@c:d@", "%ff@", "\n:x@"])),
        usually(st.sampled_from(["localhost", "127.0.0.1", "[::1]"]), st.sampled_from(["[::1", "", "a b", "[v1.x]", "xn--"])),
        usually(st.sampled_from(["", ":19530"]), st.sampled_from([":0", ":-1", ":99999999", ":x", ":" + "9" * 5_000])),
        usually(st.sampled_from(["shop", "base/shop"]), st.sampled_from(["", "a/b/c", "a?b", "a#b", "%2f", "é", "a" * 300])),
    ),
    st.sampled_from(
        ["/shop", "user:a-secret-of-20-bytes", "auto", "a-secret-of-20-bytes", "1.4,1.2,0.75", "published", "0:1:21", "9:1:1"]
    ),
    TEXTS,
)
PATTERNS = st.lists(
    usually(
        st.sampled_from(["*_small.jpg", "drafts", "a/[!b]?.png", "**/x", "[", "[z-a]", "*" * 40 + "b", "drafts/"]), ODD_TEXTS
    ),
    max_size=3,
)


def fixture(name: str) -> Strategy:
    """A file of a gallery, damaged: what it holds has no grammar, or another target has it."""
    return damaged(st.just((ROOT / "tests" / "gallery" / "fixtures" / "format3.gallery" / name).read_bytes()), 2)


GRAMMARS: dict[str, Strategy] = {
    "ledger": fixture("gallery.sqlite"),
    "vectors": fixture("vectors.f16"),
    "thumbnails": fixture("thumbnails.bin"),
    "index": fixture("index.faiss"),
    "filter": in_bytes(SQL),
    "filter-structure": json_file(STRUCTURES),
    "request": json_file(search()),
    "prompt": json_file(
        record({"caption": TEXTS, "prompt": st.lists(TEXTS, min_size=1, max_size=4).map(" and not ".join)}),
    ),
    "command": json_file(COMMANDS),
    "option": in_bytes(SMALL_TEXTS),
    "exclude": json_file(PATTERNS),
    "csv": table(","),
    "tsv": table("\t"),
    "jsonl": st.one_of(json_lines(ITEM), json_file(st.lists(ITEM, min_size=1, max_size=3))),
    "parquet": st.one_of(
        parquet({"image": picture()}, TABLE_COLUMNS, st.integers(0, 3)),
        parquet(
            {"path": usually(NAMES.map("{}.png".format), st.none())}, TABLE_COLUMNS, usually(st.just(1), st.integers(0, 3))
        ),
    ),
    "tar": archive(),
    "image": PICTURES,
    "ledger-values": json_file(LEDGER_CHANGES),
    "seal": in_bytes(
        st.builds(
            "{}\n{}\n".format, as_json(record({"generation": INTEGERS, "digest": TEXTS})), usually(st.just(0), ODD_NUMBERS)
        )
    ),
    "export": json_file(EXPORT),
    "export-vectors": npy(),
    "export-metadata": parquet(
        {
            "image_path": usually(
                st.integers(0, 10**9).map("{}.png".format), st.sampled_from(["https://x/c.png", "", None, "\0"])
            )
        },
        EXPORT_COLUMNS,
        usually(st.just(2), st.integers(0, 3)),
    ),
    "vocabulary": json_file(VOCABULARY),
    "phi": safetensors(),
    "phi-checkpoint": checkpoint(),
    "captions": json_file(CAPTIONS),
    "captions-csv": in_bytes(
        st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(
            lambda rows: "image,caption\n" + "".join(f'"{a}",{b}\n' for a, b in rows)
        )
    ),
    "rewrites": st.one_of(json_lines(REWRITES), json_lines(ANSWERS)),
    "descriptions": json_file(DESCRIPTIONS),
    "roles": json_file(ROLES),
    "answers": json_lines(ANSWERS),
    "memory": json_file(st.lists(ROWS, max_size=3)),
    "reply": json_file(COMPLETION),
    "rankings": json_file(RANKINGS),
    "circo": json_file(CIRCO),
    "cirr": json_file(CIRR),
    "fashioniq": json_file(FASHION),
    "genecis": json_file(GENECIS),
    "record": json_file(st.one_of(RUN, SWEEP, SUBMISSION)),
    "query-results": json_file(RESULTS),
    "catalogue": CATALOGUE,
    "headers": json_file(headers()),
    "api-search": json_file(search()),
    "api-batch": json_file(record({"requests": st.lists(search(), min_size=1, max_size=3)})),
    "api-form": damaged(
        st.tuples(
            st.builds(form_part, usually(st.just("image"), ODD_TEXTS), st.sampled_from(["a.png", "../x", "a\\b"]), PICTURES),
            st.builds(form_part, usually(st.just("request"), ODD_TEXTS), usually(st.none(), st.just("x")), json_file(search())),
        ).map(lambda parts: b"".join(parts) + b"--x--\r\n")
    ),
    "api-upload": PICTURES,
    "api-link": in_bytes(st.one_of(SQL, IDS, INTEGERS.map(str))),
    "page": json_file(PAGE),
    "mcp": json_file(MCP),
}
