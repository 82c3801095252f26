"""Filters: an expression keeps the rows that SQLite keeps for its text; any other text is refused in one line."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ColourEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

import mmretrieve as mm
from mmretrieve.errors import OptionError
from mmretrieve.filters import Expression, columns, from_dict, parse, read_filter, to_dict, to_sqlite
from mmretrieve.filters.expression import (
    FUNCTIONS,
    MAX_ARGUMENTS,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_NODES,
    MAX_PATTERN_BYTES,
    NAMED_OPERANDS,
    OPERATORS,
    Column,
    Literal,
    Operation,
)
from mmretrieve.filters.sqlite import to_text
from mmretrieve.gallery.store import ledger, statements
from mmretrieve.gallery.store.records import RESERVED

FIELDS = ("n", "t", "m", "Dark Green", 'a"b')
VALUES = [
    (None, None, None),
    (0, "", 1),
    (1, "a", 2),
    (-2, "B", 0),
    (2.5, "it's", -1),
    (10, "1", 3),
    (3, "50%", 3),
    (7, "a_b", 0.5),
    (0, "0", 0),
    (5, "2.5", None),
    (2**53 + 1, "back\\slash", 2),
    (-0.5, "Ü new\nline", 1e300),
]


def table() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute("CREATE TABLE items (row INTEGER PRIMARY KEY, id TEXT, path TEXT, width INTEGER)")
    db.execute(f'CREATE TABLE fields ({RESERVED} INTEGER PRIMARY KEY, n, t TEXT, m, "Dark Green" TEXT, "a""b")')
    for row, values in enumerate(VALUES):
        db.execute("INSERT INTO items VALUES (?, ?, ?, ?)", (row, f"item {row}", f"/home/{row}", 90 + row))
        db.execute("INSERT INTO fields VALUES (?, ?, ?, ?, ?, ?)", (row, *values, values[1], row))
    return db


DB = table()


def rows_of(condition: str, parameters: tuple[object, ...] = ()) -> list[int]:
    query = f"SELECT items.row FROM items LEFT JOIN fields ON {RESERVED} = items.row WHERE ({condition}) ORDER BY items.row"
    return [row for (row,) in DB.execute(query, parameters)]


def kept(expression: Expression) -> list[int]:
    condition = to_sqlite(expression, FIELDS)
    return rows_of(condition.sql, condition.parameters)


ACCEPTED = [
    "n < 3",
    "N = 1 AND t <> 'B' OR m",
    "NOT n = 1",
    "NOT n = 1 AND m = 2",
    "n IN (1, 2.5, NULL)",
    "n NOT IN (1, 2.5)",
    "n IN ()",
    "n NOT IN (1, NULL)",
    "t LIKE 'A%'",
    "t NOT LIKE '%\\%' ESCAPE '\\'",
    "t LIKE '50!%' ESCAPE '!'",
    "t GLOB 'a*'",
    "t GLOB '[AB]'",
    "t NOT GLOB '*b'",
    "n BETWEEN 0 AND 3 AND m",
    "n NOT BETWEEN 0 AND 3",
    "n BETWEEN m AND m + 3",
    "n IS NULL",
    "n IS NOT NULL",
    "n ISNULL OR m NOTNULL",
    "n NOT NULL",
    "n IS 1",
    "n IS NOT m",
    "n IS DISTINCT FROM m",
    "n IS TRUE",
    "n IS NOT FALSE",
    "NULL",
    "n % 2",
    "n % 2 = 1",
    "n + m * 2 - 1 > 3",
    "n || t = '1a'",
    "t || '%' LIKE '50%'",
    "n & 1 | 2 << 1",
    "~ n < 0",
    "-n > 0",
    "- -n = 1",
    "+t = 1",
    "t = 1",
    "n = '1'",
    "fields.t = 1",
    "5 / 2 = 2",
    "5 / 2.0 = 2",
    "n = 0x0A",
    "n < 1e1 AND n > .5 AND n <> 5.",
    "n > -9223372036854775808",
    "n < 9223372036854775808",
    "abs(n) = 2",
    "length(t) > 2 AND upper(t) = 'A_B'",
    "substr(t, 1, 1) = 'a'",
    "coalesce(n, 5) = 5",
    "ifnull(n, m) IS NULL",
    "iif(n > 1, t, m) = 3",
    "max(n, m) > 2 AND min(n, m) < 3",
    "round(n) = 3",
    "like('a%', t)",
    "glob('a*', t)",
    "\"length\"(t) = 1",
    "date('2020-01-31', '+1 day') = '2020-02-01'",
    "strftime('%Y', '2020-01-31') = '2020'",
    "typeof(n) = 'integer'",
    "t COLLATE NOCASE = 'b'",
    "t = 'b' COLLATE nocase",
    "CAST(t AS INTEGER) = 50",
    "CASE WHEN n > 1 THEN m ELSE t END",
    "CASE n WHEN 1 THEN 'x' WHEN 10 THEN 'y' END = 'y'",
    "\"n\" = 1",
    "`n` = 1",
    "[n] = 1",
    "\"Dark Green\" = 'a'",
    "[dark green] = 'a'",
    "\"a\"\"b\" = 3",
    "fields.\"n\" = 1 AND items.width > 91",
    "id = 'item 3'",
    "path LIKE '/home/1%'",
    "((n)) = ((1))",
    "t = 'it''s'",
    "t = 'Ü new\nline'",
    "1 = 1",
    "n < 2 = 1",
    "n = m = 1",
    "n < m < 2",
    "n == 1 or m != 3",
    "not n in (1) and not t like 'b'",
]  # fmt: skip


@pytest.mark.parametrize("where", ACCEPTED)
def test_a_text_keeps_the_rows_that_sqlite_keeps(where: str) -> None:
    expression = parse(where)
    assert kept(expression) == rows_of(where)
    assert kept(parse(to_text(expression))) == rows_of(where)
    assert from_dict(json.loads(json.dumps(to_dict(expression)))) == expression


BINARY = ["=", "==", "<>", "!=", "<", "<=", ">", ">=", "AND", "OR", "+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>", "IS", "LIKE", "GLOB"] + [
    "IS NOT", "NOT LIKE", "NOT GLOB", "IS DISTINCT FROM", "IS NOT DISTINCT FROM",
]  # fmt: skip
POSTFIX = [
    "IS NULL", "IS NOT NULL", "ISNULL", "NOTNULL", "NOT NULL", "COLLATE NOCASE", "IS TRUE", "IN (1, 2)", "NOT IN (1, 'a')", "IN ()",
    "BETWEEN 0 AND 2", "NOT BETWEEN 0 AND 'b'", "LIKE 'a%' ESCAPE '!'",
]  # fmt: skip
OPERANDS = [
    "n", "t", "m", "1", "0", "2.5", "'a'", "'1'", "NULL", "TRUE", "-1", "fields.n", "`t`", "abs(n)", "(n + 1)", "length(t)", ".5",
    "CASE WHEN n THEN t ELSE m END", "CAST(t AS INTEGER)", "coalesce(n, m)", "0x10", "NOT n", "- n", "+ t", "~ m",
]  # fmt: skip


def some_text(draw: random.Random) -> str:
    """Operators in a row, mostly without parentheses: here parsers differ in what belongs together."""
    text = draw.choice(OPERANDS)
    for _ in range(draw.randrange(5)):
        more = draw.choice(POSTFIX) if draw.random() < 0.3 else f"{draw.choice(BINARY)} {draw.choice(OPERANDS)}"
        text = f"({text} {more})" if draw.random() < 0.12 else f"{text} {more}"
    return text


def test_random_texts_keep_the_rows_that_sqlite_keeps() -> None:
    draw, same, refused = random.Random(7), 0, 0
    for _ in range(3_000):
        where = some_text(draw)
        try:
            wanted = rows_of(where)
        except sqlite3.Error:
            continue
        try:
            expression = parse(where)
        except OptionError:
            refused += 1
        else:
            same += 1
            assert kept(expression) == wanted, where
    assert same > 5 * refused  # what is refused mixes IN, LIKE or BETWEEN with other operators without parentheses


LITERALS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)).map(Literal)  # fmt: skip
LEAVES = st.one_of(LITERALS, st.sampled_from([Column("n"), Column("t"), Column("m", "fields"), Column("id"), Column('a"b')]))


def nested(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    functions = dict.fromkeys(("coalesce", "max", "min"), (2, 4))
    counts = functions | {name: count for name, count in OPERATORS.items() if name not in NAMED_OPERANDS} | {"like": (2, 2)}
    return st.sampled_from(sorted(counts)).flatmap(
        lambda name: st.lists(inner, min_size=counts[name][0], max_size=min(4, counts[name][1])).map(
            lambda operands: Operation(name, tuple(operands))
        )
    )


@settings(max_examples=200, deadline=None)
@given(st.recursive(LEAVES, nested, max_leaves=8))
def test_structure_and_text_of_any_expression_keep_the_same_rows(expression: Expression) -> None:
    def rows(read: Expression) -> object:
        try:
            return kept(read)
        except sqlite3.Error as error:  # a pattern or a number that SQLite finds too large
            return str(error)

    assert from_dict(json.loads(json.dumps(to_dict(expression)))) == expression
    assert rows(parse(to_text(expression))) == rows(expression)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("n1'\"`[]().,;-*/%<>=!|&~+ $?:@{}#\\", max_size=20)))
def test_any_text_is_an_expression_or_refused_in_one_line(where: str) -> None:
    line = ""
    try:
        to_sqlite(parse(where), FIELDS)
    except OptionError as error:
        line = str(error)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "must be an SQL expression"),
        ("n = 1; DELETE FROM items", "a second statement (;) is not allowed"),
        ("n = 1 -- all", "a comment is not allowed"),
        ("n /* all */ = 1", "a comment is not allowed"),
        ("n = 1 /* all", "a comment is never closed"),
        ("-- all", "there is no expression in it"),
        ("ELSE 1", "there is no expression in it"),
        ("n IN", "IN needs a list in parentheses"),
        ("n NOT ISNULL", "unexpected 'NOT'"),
        ("n = ?", "a parameter (?)"),
        ("n = $n", "a parameter ($n)"),
        ("t = 'open", "a quotation mark is never closed"),
        ("n) OR (1", "parentheses do not match"),
        ("(SELECT 1)", "a query (SELECT)"),
        ("EXISTS (VALUES (1))", "a query (VALUES)"),
        ("n IN fields", "IN needs a list in parentheses"),
        ("(n, m) = (1, 2)", "a list in parentheses stands only after IN"),
        ("n BETWEEN 1 2", "BETWEEN needs an AND"),
        ("CASE WHEN n 2 END", "each WHEN a THEN"),
        ("CASE n END", "syntax error near 'END'"),
        ("'a' 'b'", """"'a' 'b'" is not allowed in a filter; join texts with ||"""),
        ("(n AS b)", "'n AS b' is not allowed in a filter"),
        ("n COLLATE 5", "'n COLLATE 5' is not allowed in a filter"),
        ("n ^ 2", "unexpected '^'"),
        ("! n", "unexpected '!'"),
        ("{fn abs(1)}", "unexpected '{'"),
        ("n::int", "a parameter (:)"),
        ("t = x'41'", "unexpected x'41'; a number has up to 64 bits, and bytes are not supported"),
        ("n = 0x11111111111111111", "unexpected 0x11111111111111111"),
        ("n = 1e999", "1e999 is too large"),
        (f"n = {'9' * 5_000}", "is too large"),
        ("*", "'*' is not allowed in a filter"),
        ("count(*)", "count is not a function of filters; choose from: abs, ceil"),
        ("load_extension('x')", "load_extension is not a function of filters; choose from: abs"),
        ("zeroblob(1000000000)", "zeroblob is not a function of filters; choose from: abs"),
        ("lenght(t) = 1", "lenght is not a function of filters; did you mean 'length'? choose from: abs"),
        ("max(n) > 3", "max() takes 2 to 127 arguments, got 1"),
        ("abs(n, 3)", "abs() takes 1 argument, got 2"),
        ("substr(t)", "substr() takes 2 or 3 arguments, got 1"),
        ("like('a')", "LIKE takes 2 or 3 operands, got 1"),
        ("n COLLATE other", "unknown collation 'other'; choose from: BINARY, NOCASE, RTRIM"),
        ("CAST(n AS BLOB)", "unknown type 'BLOB'"),
        ("CAST(n, 1)", "syntax error"),
        ("n = ", "syntax error near '='"),
        ("n 1", "syntax error near '1'"),
        ("n ORDER BY row", "syntax error near 'ORDER'"),
        ("n REGEXP 'a'", "syntax error near 'REGEXP'"),
        ("t -> 'a'", "syntax error near '>'"),
        ("1 > 2 IN (1)", "precedence is ambiguous near '2 IN (1)'; add parentheses"),
        ("meta.value = 1", "no such column: meta.value"),
        ("main.items.id = 1", "'id' is not the name of a column"),
        ("n[1]", "syntax error near '[1]'"),
        ("abs(n) OVER ()", "syntax error near 'OVER'"),
    ],
)  # fmt: skip
def test_errors_name_the_part_that_is_not_allowed(where: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(where)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_take_the_numbers_of_arguments_that_they_take_in_sqlite(name: str) -> None:
    def is_accepted(count: int) -> bool:
        try:
            DB.execute(f"SELECT {name}({', '.join(['1'] * count)}) FROM items")
        except sqlite3.Error as error:
            return not any(reason in str(error) for reason in ("wrong number", "too many arguments"))
        return True

    low, high = FUNCTIONS[name]
    counts = [count for count in range(MAX_ARGUMENTS + 2) if is_accepted(count)]
    assert range(low, high + 1) == range(counts[0] + (name in ("max", "min")), counts[-1] + 1)  # max(n) is an aggregate
    for count in {max(low - 1, 0), high + 1} - {low}:
        with pytest.raises(OptionError, match="takes"):
            Operation(name, (Literal(1),) * count)


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        (
            "t = red",
            "no such column: red; put text in quotes: t = 'red'",
        ),
        ('t = "dark red"', "put text in quotes: t = 'dark red'"),
        ("n > 1 AND t LIKE red", "put text in quotes: t LIKE 'red'"),
        ("t IN (red, 'blue')", "put text in quotes: t IN ('red')"),
        ("t = dark green", "where t = dark green: put text in quotes: t = 'dark green'"),
        ("t LIKE red% AND n < 3", "put text in quotes: t LIKE 'red%'"),
        ("id LIKE *.png", "put text in quotes: id LIKE '*.png'"),
        ("colour = 'red'", "no such column: colour; the columns are id, width, height and the fields n, t, m"),
    ],
)
def test_errors_suggest_missing_quotes(where: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        to_sqlite(parse(where), FIELDS)
    assert hint in str(caught.value)


def test_a_name_that_two_tables_have_needs_its_table() -> None:
    with pytest.raises(OptionError, match=r"ambiguous column name: Width; write fields.Width or items.Width"):
        to_sqlite(parse("Width > 3"), ["width"])
    assert to_sqlite(parse("fields.Width > items.WIDTH"), ["width"]).sql == '(fields."width" > items."width")'
    with pytest.raises(OptionError, match="no such column: id"):
        to_sqlite(parse("fields.id = 1"), ["n"])


NAMES = [
    "path",
    "PATH",
    '"path"',
    "`path`",
    "[path]",
    "items.path",
    'items."path"',
    "items.`Path`",
    "items.[path]",
    '"items"."path"',
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "place", ["{}", "length({}) > 1", "n IN (1, {})", "NOT (n AND {} GLOB '/*')", "CASE {} WHEN 1 THEN 2 END"]
)
def test_columns_are_recognized_in_every_quoting(name: str, place: str) -> None:
    assert "path" in {column.name.lower() for column in columns(parse(place.format(name)))}


def test_a_quoted_text_is_not_a_name() -> None:
    assert columns(parse("'path' = 'a'")) == frozenset()
    for where in ("items.'path' LIKE '/%'", "fields.'n'", "'items'.path", "'items'.'path'"):
        with pytest.raises(OptionError, match=r"is not the name of a column|syntax error|is not allowed"):
            parse(where)


def test_the_size_of_a_filter_is_bounded() -> None:
    for where, message in (
        ("n = '" + "a" * MAX_LENGTH + "'", f"up to {MAX_LENGTH:,} characters"),
        ("(" * 31 + "n" + ")" * 31, "parentheses nested more than 30 deep"),
        ("abs((" * 30 + "n" + "))" * 30, "more than"),
        ("NOT " * 900 + "n", "nested"),
        ("1" + " < 1" * 900, "nested"),
        ("n" + " ISNULL" * 900, "nested"),
        ("1" + "+1" * 4_900, "nested"),
        (f"t GLOB '{'a' * (MAX_PATTERN_BYTES + 1)}'", f"up to {MAX_PATTERN_BYTES} bytes, got {MAX_PATTERN_BYTES + 1}"),
        (f"like('{'ü' * (MAX_PATTERN_BYTES // 2 + 1)}', t)", f"up to {MAX_PATTERN_BYTES} bytes"),
        (" OR ".join(["t GLOB m"] * 5), "together"),
        (" OR ".join([f"t GLOB '{'a' * 300}'"] * 7), "2,100 bytes together"),
    ):
        with pytest.raises(OptionError) as caught:
            parse(where)
        assert message in str(caught.value)
        assert len(str(caught.value)) < 500
    deep: Expression = Column("n")
    for _ in range(MAX_DEPTH):
        deep = Operation("not", (deep,))
    for large in (deep, Operation("in", (Column("n"), *map(Literal, range(MAX_NODES))))):
        with pytest.raises(OptionError, match="more than"):
            read_filter(large)
        with pytest.raises(OptionError, match="more than"):
            read_filter(to_dict(large))
    long = parse(" OR ".join(f"n = {i}" for i in range(700)))
    assert kept(long) == [1, 2, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("values", "sql"),
    [
        ({"t": "a"}, "t = 'a'"),
        ({"n": 0}, "n = 0"),
        ({"n": np.int64(7)}, "n = 7"),
        ({"Dark Green": "B", "m": 0}, "\"Dark Green\" = 'B' AND m = 0"),
        ({"n": [0, 2.5]}, "n IN (0, 2.5)"),
        ({"t": {"a", "B"}}, "t IN ('B', 'a')"),
        ({"n": None}, "n IS NULL"),
        ({"n": []}, "n IN ()"),
    ],
)
def test_a_mapping_of_fields_holds_for_items_with_these_values(values: dict[str, object], sql: str) -> None:
    assert read_filter(values) == parse(sql)
    assert kept(read_filter(values)) == kept(parse(sql))


def test_an_error_quotes_the_condition_that_is_wrong_and_the_first_wrong_column() -> None:
    whole = parse("gender IN ('women') AND (price < 20 AND color = red) AND shade = 1")
    with pytest.raises(OptionError, match=re.escape("where color = red: no such column: color; did you mean 'colour'?")):
        to_sqlite(whole, ["gender", "price", "colour"])


@pytest.mark.parametrize("where", ["price < 50", "50 >= PRICE", "price BETWEEN 1 AND 50", "id = 'a' OR NOT fields.price > 1.5"])
def test_a_text_is_not_ordered_by_a_number(tmp_path: Path, where: str) -> None:
    prices = [{"price": "100,00"}, {"price": "9,90"}, {"price": "40,00"}]
    gallery = mm.Gallery.from_vectors(tmp_path / "g", ["a", "b", "c"], np.eye(3), fields=prices)
    with pytest.raises(
        OptionError, match=r"(?i)price is text in this gallery, and is not compared with a number; .* CAST\(price AS REAL"
    ):
        gallery.search([1, 0, 0], where=where)
    for allowed, ids in (
        ("CAST(price AS REAL) < 50", {"b", "c"}),
        ("price = 50", set()),
        ("price < '5'", {"a", "c"}),
        ("width < 5", set()),
    ):
        assert set(gallery.search([1, 0, 0], where=allowed).ids) == ids


def test_a_field_may_be_called_value() -> None:
    assert read_filter({"value": 5}) == parse("value = 5")  # within a structure, a literal has this form


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the mapping is empty; name a field, as in {'colour': 'red'}"),
        ({"price": {"<": 20}}, "'price' must be a value or a list of values, got {'<': 20}; write other conditions in SQL"),
        ({"price": float("nan")}, "expected a finite number, got nan"),
        ({"price": b"1"}, "a value is text, a number"),
        ({3: "a"}, "a column needs a name, got 3"),
    ],
)
def test_a_mapping_with_anything_else_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        read_filter(values)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ([], "expected {'column': name}, {'value': value} or {'operator': name, 'operands': [...]}, got []"),
        ({}, "expected {'column': name}"),
        ({"type": "select"}, "got {'type': 'select'}"),
        ({"column": 5}, "got {'column': 5}"),
        ({"column": ""}, "a column needs a name"),
        ({"column": "n", "table": "meta"}, "unknown table 'meta'"),
        ({"column": "n", "more": 1}, "got {'column': 'n', 'more': 1}"),
        ({"value": [1]}, "a value is text, a number, true, false or null"),
        ({"value": float("inf")}, "expected a finite number, got inf"),
        ({"value": "a\0"}, "NUL"),
        ({"operator": "not", "operands": ["n"]}, "got 'n'"),
        ({"operator": "not", "operands": "n"}, "expected {'column': name}"),
        ({"operator": "and", "operands": {}}, "expected {'column': name}"),
        ({"operator": "and", "operands": []}, "AND takes 2 operands or more, got 0"),
        ({"operator": "like", "operands": [{"value": 1}]}, "LIKE takes 2 or 3 operands, got 1"),
        ({"operator": "max", "operands": [{"column": "n"}]}, "max() takes 2 to 127 arguments, got 1"),
        ({"operator": "randomblob", "operands": []}, "randomblob is not a function of filters; choose from: =, <>"),
        (
            {"operator": "; DROP", "operands": [{"value": 1}, {"value": 2}]},
            "; drop is not a function of filters; choose from: =",
        ),
        ({"operator": "collate", "operands": [{"column": "n"}, {"column": "NOCASE"}]}, "unknown collation 'None'"),
        ({"operator": "cast", "operands": [{"column": "n"}, {"value": "BLOB"}]}, "unknown type 'BLOB'"),
    ],
)
def test_a_structure_is_read_or_refused_in_one_line(structure: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        from_dict(structure)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_literals_keep_the_type_of_their_value() -> None:
    assert Literal(1) != Literal(1.0) != Literal(True)
    assert Literal(2**63).value == float(2**63)


@pytest.fixture
def gallery(tmp_path: Path) -> mm.Gallery:
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    fields = [{"n": i, "t": f"text {i}", "long": "a" * 200_000 if i < 60 else "b"} for i in range(100)]
    gallery.add_vectors(
        [f"{i:03}" for i in range(100)], np.random.default_rng(0).normal(size=(100, ColourEncoder.dim)), fields=fields
    )
    return gallery


def test_a_filter_may_be_text_an_expression_or_a_structure(gallery: mm.Gallery) -> None:
    text = "n BETWEEN 10 AND 19 AND t LIKE '%5'"
    query = mm.Composition(("query",), gallery.vectors()[:1], (1.0,))
    for where in (text, parse(text), to_dict(parse(text))):
        assert [item.id for item in gallery.list_items(where=where).items] == ["015"]
        assert gallery.search(query, 5, where=where).ids == ("015",)


def test_sqlite_reads_only_the_columns_that_the_filter_names(gallery: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    version = gallery._store.ledger.version()
    honest, hidden = to_sqlite(parse("n > 1"), ["n"]), ""
    monkeypatch.setattr(ledger, "to_sqlite", lambda *_: replace(honest, sql=hidden, parameters=()))
    for hidden in ("items.path LIKE '/%'", "EXISTS (SELECT value FROM meta)", "fields.t = 1", "hex(n)", "(SELECT count(*) FROM sqlite_master)"):  # noqa: B007 # fmt: skip
        with pytest.raises(OptionError, match=r"not authorized|prohibited"):
            gallery._store.ledger.matching(parse("n > 1"), version)


def test_a_filter_that_takes_too_long_is_interrupted(gallery: mm.Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GLOB takes a second and the progress handler counts steps: only the interrupt of the timer ends it in time."""
    monkeypatch.setattr(statements, "WHERE_SECONDS", 0.5)
    monkeypatch.setattr(ledger, "WHERE_SECONDS", 0.5)
    bomb = "long GLOB '*" + "[a-b]" * 90 + "c'"
    started = time.monotonic()
    with pytest.raises(OptionError, match=r"took longer than 0.5 s; write a simpler filter"):
        gallery.list_items(where=bomb)
    assert time.monotonic() - started < 15  # all 60 rows take a minute
    assert gallery.list_items(where="n < 3").total == 3


def test_sqlglot_is_imported_with_the_first_filter() -> None:
    code = "import sys, mmretrieve.retriever, mmretrieve.filters as f; print('sqlglot' in sys.modules); f.parse('n'); print('sqlglot' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.split() == ["False", "True"]
