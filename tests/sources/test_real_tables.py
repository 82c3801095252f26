"""Tables as people have them: whatever is wrong in one record is named with its line, and the other records are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mmretrieve as mm
from mmretrieve.errors import GalleryError
from mmretrieve.sources import read_source
from mmretrieve.sources.base import ReportingSource, SourceItem, UnreadableItem


def read(path: Path, content: str | bytes) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    """What a table gives: the fields of its images, and why other records were passed over."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = read_source(path)
    entries = list(source)
    assert len(source) == len(entries)
    assert list(source) == entries
    return (
        {entry.id: dict(entry.fields) for entry in entries if isinstance(entry, SourceItem)},
        {entry.id: entry.reason for entry in entries if isinstance(entry, UnreadableItem)},
    )


def notes(path: Path, content: str) -> tuple[str, ...]:
    read(path, content)
    source = read_source(path)
    assert isinstance(source, ReportingSource)
    return source.report().notes


@pytest.mark.parametrize(
    ("record", "lines", "reason"),
    [
        ("2", "", "1 values for 3 columns"),
        ("2,b.png", "", "2 values for 3 columns"),
        ("2,b.png,5,6", "", "4 values for 3 columns"),
        (",b.png,5", "", "the id is empty"),
        ("1,b.png,5", "", "duplicate id '1', first used in line 2; choose another id column"),
        ("2,b\0.png,5", "", "contains a null byte"),
        ('2,"b".png,5', "", "',' expected after '\"'"),
        ('2,"b.png,5', "", "unexpected end of data"),
        ('2,b.png,"' + "5" * (17 << 20) + '"', "", "field larger than field limit (16777216)"),
    ],
)
def test_a_wrong_row_stops_only_itself(record: str, lines: str, reason: str, tmp_path: Path) -> None:
    good, bad = read(tmp_path / "a.csv", f"id,path,n\n1,a.png,4\n{record}\n{lines}3,c.png,7\n4,d.png,8")
    assert good == {"1": {"n": 4}, "3": {"n": 7}, "4": {"n": 8}}
    assert bad == {"a.csv, line 3": reason}


def test_wrong_bytes_stop_only_their_row(tmp_path: Path) -> None:
    good, bad = read(tmp_path / "a.csv", "id,path\n1,a.png\n2,é.png\n3,c.png\n".encode("latin-1"))
    assert set(good) == {"1", "3"}
    assert bad == {"a.csv, line 3": "not UTF-8 text; save the table as UTF-8"}


def test_a_quote_that_is_not_closed_takes_one_row_of_thousands(tmp_path: Path) -> None:
    rows = [f"{i},{i}.png,{i}" for i in range(5000)]
    rows[7] = '7,"7.png,7'
    good, bad = read(tmp_path / "a.csv", "\n".join(["id,path,n", *rows]))
    assert len(good) == 4999
    assert bad == {"a.csv, line 9": "a quote is not closed"}


def test_long_fields_empty_rows_and_line_breaks_in_quotes_are_read(tmp_path: Path) -> None:
    text = "x" * 200_000
    good, bad = read(
        tmp_path / "a.csv", f'id,path,text\r\n1,a.png,"one\r\ntwo"\r\n,,\r\n\r\n  \r\n2,b.png,{text}\r\n3,c.png,t,,\r\n'
    )
    assert good == {"1": {"text": "one\r\ntwo"}, "2": {"text": text}, "3": {"text": "t"}}
    assert bad == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    "text",
    [
        "id,path,title\n1,ü.png,a😀\n",
        "id;path;title\n1;ü.png;a😀\n",
        "id\tpath\ttitle\n1\tü.png\ta😀\n",
        "sep=;\r\nid;path;title\r\n1;ü.png;a😀\r\n",
        '"sep=|"\nid|path|title\n1|ü.png|a😀\n',
        '\n\nid,path,"title"\n1,ü.png,a😀\n',
    ],
)
def test_tables_of_spreadsheets_are_read(text: str, encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") and "sep" in text else ""
    assert read(tmp_path / "a.csv", (mark + text).encode(encoding)) == ({"1": {"title": "a😀"}}, {})


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    _, bad = read(tmp_path / "a.csv", 'sep=;\nid;path;n\n\n1;"a\n.png";1\n2;b.png\n')
    assert bad == {"a.csv, line 6": "2 values for 3 columns"}


def test_a_column_without_a_name_is_left_out_and_named(tmp_path: Path) -> None:
    text = ",path,title,\n0,a.png,x,\n1,b.png,y,\n"
    assert read(tmp_path / "a.csv", text)[0] == {"a.png": {"title": "x"}, "b.png": {"title": "y"}}
    assert notes(tmp_path / "a.csv", text) == (
        "a.csv: column 1 has no name and is left out",
        "a.csv: column 4 has no name and is left out",
    )


def test_a_word_among_numbers_is_named(tmp_path: Path) -> None:
    text = "path,price,title\na.png,1,one\nb.png,2,2\nc.png,n/a,three\nd.png,,4 pieces\n"
    assert notes(tmp_path / "a.csv", text) == (
        "a.csv: the column 'price' is text, because line 4 has 'n/a'; 2 other values are numbers",
    )
    assert read(tmp_path / "a.csv", text)[0]["a.png"] == {"price": "1", "title": "one"}
    assert notes(tmp_path / "a.csv", text.replace("n/a", "3")) == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": 2, "path": ', "not JSON (Expecting value, at character 20)"),
        ("[1]", "expected a JSON object, got '[1]'"),
        ('{"id": 2, "path": "b.png"} {}', "not JSON (Extra data, at character 27)"),
        ('{"id": 2, "path": "b.png", "N": 2}', "the field 'N' is called 'n' in line 1"),
        ('{"id": 2, "file": "b.png"}', "there is no 'path'; the fields of this record are: id, file"),
        ('{"path": "b.png"}', "there is no 'id'; the fields of this record are: path"),
        ('{"id": 1, "path": "b.png"}', "duplicate id '1', first used in line 1; choose another id column"),
        ('{"id": 2, "path": "b.png", "n": "\\ud83d"}', "the field 'n' cannot be stored: '\\ud83d' is not valid text"),
        ('{"id": 2, "path": "b.png", "n": ' + "[" * 100_000, "JSON that cannot be read (nested too deeply)"),
        ('{"id": 2, "path": "b.png", "\\ud83d": 1}', "column 3 has the name '\\ud83d', which is not valid text"),
        ('{"id": "\\ud83d", "path": "b.png"}', "'id' must be valid text, got '\\ud83d'"),
        ('{"id": 2, "path": "\\ud83d.png"}', "'path' must be valid text, got '\\ud83d.png'"),
    ],
)
def test_a_wrong_line_stops_only_itself(line: str, reason: str, tmp_path: Path) -> None:
    lines = ['{"id": 1, "path": "a.png", "n": 1}', line, "", "  ", '{"id": 3, "path": "c.png"}']
    good, bad = read(tmp_path / "a.jsonl", "\n".join(lines))
    assert good == {"1": {"n": 1}, "3": {}}
    assert {where: given.replace("line 2: ", "") for where, given in bad.items()} == {"a.jsonl, line 2": reason}


def test_a_cut_off_last_line_is_named(tmp_path: Path) -> None:
    text = '{"path": "a.png"}\n{"path": "b.png"}\n{"path": "c.p'
    assert read(tmp_path / "a.jsonl", text)[1] == {
        "a.jsonl, line 3": "not JSON (Unterminated string starting at, at character 10)"
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_as_lines_are(indent: int | None, tmp_path: Path) -> None:
    records = [{"path": "a.png", "n": 1}, 7, {"path": "b.png", "n": 2}]
    good, bad = read(tmp_path / "a.jsonl", " " + json.dumps(records, indent=indent) + "\n")
    assert good == {"a.png": {"n": 1}, "b.png": {"n": 2}}
    assert bad == {"a.jsonl, item 2": "expected a JSON object, got 7"}
    assert "a.jsonl, after the array" in read(tmp_path / "a.jsonl", json.dumps(records) + '\n{"path": "c.png"}')[1]
    cut_off = json.dumps(records, indent=indent)[:-5]
    assert list(read(tmp_path / "a.jsonl", cut_off)[1])[1:] == ["a.jsonl, item 3"]


def test_utf16_lines_are_read(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", '{"path": "ü.png"}\n'.encode("utf-16")) == ({"ü.png": {}}, {})


PIECES = st.one_of(
    st.sampled_from(
        [
            b"path",
            b"id",
            b",",
            b";",
            b"\t",
            b'"',
            b"\n",
            b"\r\n",
            b"\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"\xff",
            b"sep=;\n",
            b"[",
            b"]",
        ]
        + [
            b"{",
            b"}",
            b'{"path": "x"}',
            b'{"id": 1, "path": "y"}\n',
            b"\\ud83d",
            b"id,path\n",
            b"1,x.png\n",
            b"9" * 5000,
            b"[" * 3000,
        ]
    ),
    st.binary(max_size=6),
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.sampled_from([".csv", ".tsv", ".jsonl"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_records_or_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    source, message = None, ""
    try:
        source = read_source(path)
    except GalleryError as error:
        message = str(error)
    if source is None:
        assert message.startswith(str(path))
        assert "\n" not in message
        return
    entries = list(source)
    assert len(entries) == len(source)
    assert any(isinstance(entry, SourceItem) for entry in entries)
    ids = [entry.id for entry in entries if isinstance(entry, SourceItem)]
    assert len(ids) == len(set(ids))


def test_a_text_without_bound_is_named_and_the_other_rows_go_on(tmp_path: Path, encoder: mm.Encoder) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    rows = [{"id": "1", "image": "a.png", "t": "x" * 1_000_001}, {"id": "2", "image": "a.png", "t": "x" * 1_000_000}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = mm.Gallery.create(tmp_path / "g", encoder=encoder).add(tmp_path / "items.jsonl")
    assert (report.added, report.failed) == (
        1,
        {"1": "field 't' has a text of 1,000,001 characters; at most 1,000,000 are stored"},
    )
