"""A gallery on a Milvus server: pushed, pulled, filtered, refused; and a server that goes away."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import ColourEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from milvus_server import LiteServer

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.composition import Composition
from mmretrieve.errors import GalleryError, OptionError
from mmretrieve.filters import parse, to_milvus
from mmretrieve.gallery.store.records import FieldType
from mmretrieve.milvus import transfer
from mmretrieve.milvus.address import MilvusAddress, is_address
from mmretrieve.milvus.client import MilvusUnavailableError
from mmretrieve.milvus.indexes import MilvusIndexName, ServerKind, ServerVersion
from mmretrieve.milvus.schema import filter_columns
from mmretrieve.milvus.transfer import pull_into, push
from mmretrieve.vectors import unit

ITEMS = 300


def filled(folder: Path, count: int = ITEMS, seed: int = 1) -> mm.Gallery:
    gallery = mm.Gallery.create(folder, encoder=ColourEncoder(), setting=mm.PDV(beta=0.5))
    vectors = np.random.default_rng(seed).normal(size=(count, ColourEncoder.dim))
    fields = [{"n": i, "half": i / 2, "Name": f'it\'s "{i}"'} | ({"even": "yes"} if i % 2 == 0 else {}) for i in range(count)]
    gallery.add_vectors(
        [f"{i:04}" for i in range(count)], vectors, fields=fields, paths=[f"shelf/{i}.jpg" for i in range(count)]
    )
    return gallery


def one(vector: np.ndarray) -> Composition:
    return Composition(("query",), unit(vector[None] + 0.1), (1.0,))


def test_a_pushed_gallery_is_searched_and_pulled_without_loss(
    milvus: LiteServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, address, back = filled(tmp_path / "g"), milvus.address("there"), tmp_path / "back"
    assert main(["push", str(folder.path), address, "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == ITEMS
    collection = mm.open_gallery(address)
    assert (len(collection), collection.path, collection.setting) == (ITEMS, address, folder.setting)
    assert collection.info()["fields"] == folder.info()["fields"]
    for near in range(0, ITEMS, 37):
        query = one(folder.vectors()[near])
        assert collection.search(query, 10, where="half > 20 AND even IS NULL") == folder.search(
            query, 10, where="half > 20 AND even IS NULL"
        )
    assert main(["pull", address, str(back), "--quiet"]) == 0
    again = mm.open_gallery(back)
    assert [again.item(id_) for id_ in again.ids] == [folder.item(id_) for id_ in folder.ids]
    assert again.vectors().tobytes() == folder.vectors().tobytes()
    assert (again.setting, again.encoder_identity, again.info()["fields"]) == (
        folder.setting,
        folder.encoder_identity,
        folder.info()["fields"],
    )
    assert pull_into(back, address).skipped == ITEMS
    assert (collection.verify(), again.verify()) == ([], [])
    capsys.readouterr()
    assert main(["info", address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == ITEMS


def test_pushing_again_copies_only_new_items(milvus: LiteServer, tmp_path: Path) -> None:
    folder, address = filled(tmp_path / "g"), milvus.address("again")
    push(folder.path, address)
    assert push(folder.path, address).skipped == ITEMS
    folder.delete(["0007", "0008"])
    folder.add_vectors(["new"], np.ones((1, ColourEncoder.dim)), fields=[{"n": 9}])
    folder.add_vectors(["e\u0301"], np.ones((1, ColourEncoder.dim)), fields=[{"n": 9}])
    report = push(folder.path, address)
    assert (report.added, report.removed) == (2, 0)
    report = push(folder.path, address, mirror=True)
    assert (report.added, report.removed) == (0, 2)
    collection = mm.open_gallery(address)
    assert collection.ids == folder.ids
    assert [collection.item(form).id for form in ("e\u0301", "é")] == ["é", "é"]
    other = filled(tmp_path / "other", 20, seed=2)
    with pytest.raises(
        GalleryError,
        match=r"'0000' is another image than in milvus.* \(18 such ids\); push with --update .*; nothing was copied",
    ):
        push(other.path, address)
    assert push(other.path, address, update=True).updated == 18
    collection.refresh()
    np.testing.assert_array_equal(collection.vectors(["0003"]), other.vectors(["0003"]))
    collection.delete(["0003", "new"])
    assert "new" not in collection.ids
    assert len(mm.open_gallery(address)) == len(collection)
    with pytest.raises(GalleryError, match="no item 'new'"):
        collection.delete(["0004", "new"])
    assert "0004" in collection.ids
    assert not hasattr(collection, "add")  # what is done in a folder is not offered here


@pytest.mark.parametrize("command", ["compact", "build", "index-report"])
def test_commands_for_folders_refuse_addresses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "milvus://127.0.0.1:1/c"]) == 2
    assert "this command needs a folder; `mmretrieve pull` copies a collection into one" in capsys.readouterr().err


def test_another_encoder_is_refused_and_both_are_named(milvus: LiteServer, tmp_path: Path, encoder: mm.Encoder) -> None:
    folder, address = filled(tmp_path / "g", 10), milvus.address("mine")
    push(folder.path, address)
    mm.Gallery.for_vectors(tmp_path / "h", mm.EncoderIdentity("other", "weights", "plain"), ColourEncoder.dim)
    with pytest.raises(GalleryError, match=r"/h differ in encoder \(colours and other\): weights"):
        push(tmp_path / "h", address)
    with pytest.raises(GalleryError, match=r"\(.*colours.*\): weights"):
        pull_into(tmp_path / "h", address)
    with pytest.raises(GalleryError, match=r"was made by colours, not by .*wardrobe"):
        mm.Retriever(mm.open_gallery(address), encoder)


def test_few_distinct_vectors_under_every_index(milvus: LiteServer, tmp_path: Path) -> None:
    """IVF over many copies of few vectors once found nothing."""
    gallery = mm.Gallery.create(tmp_path / "g", encoder=ColourEncoder())
    few = unit(np.random.default_rng(0).normal(size=(2, ColourEncoder.dim)))
    gallery.add_vectors([f"{i:03}" for i in range(200)], few[np.arange(200) % 2])
    for index in ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW"):
        push(gallery.path, milvus.address("few"), index=index)
        collection = mm.open_gallery(milvus.address("few"))
        assert collection.info()["index"]["type"] == index
        for k in (1, 10, 150):
            assert collection.search(one(few[1]), k) == gallery.search(one(few[1]), k)


def test_only_indexes_that_are_known_to_work_are_requested(milvus: LiteServer, tmp_path: Path) -> None:
    folder = filled(tmp_path / "g", 10)
    with pytest.raises(
        OptionError, match=r"milvus-lite .* has no index 'GPU_CAGRA' that is known to work; choose from: FLAT, IVF_FLAT"
    ):
        push(folder.path, milvus.address("gpu"), index="GPU_CAGRA")
    assert set(ServerVersion.read("v2.5.4").indexes) == {*MilvusIndexName} - {MilvusIndexName.IVF_RABITQ}
    assert MilvusIndexName.IVF_RABITQ in ServerVersion.read("v2.6.1").indexes
    assert ServerVersion.read("v2.6.1", ServerKind.ZILLIZ).indexes == (MilvusIndexName.AUTOINDEX,)


def test_addresses() -> None:
    address = MilvusAddress.read("milvus://me:secret@host:1/db/name")
    assert (address.host, address.port, address.database, address.collection, address.token) == (
        "host",
        1,
        "db",
        "name",
        "me:secret",
    )
    assert "secret" not in f"{address} {address!r}"
    assert MilvusAddress.read("milvuss://[::1]/c").uri == "https://[::1]:19530"
    assert is_address("milvus://x")
    assert not is_address("shop.gallery")
    for wrong in ("milvus://host", "milvus:///c", "milvus://u:p@host/a/b/c", "milvus://host/bad-name", "milvus://host:x/c",
                  "milvus://host:0/c", "milvus://host/c?x=1", "milvus://host/c#y", "milvus://a%0ab:p@host/c", "milvus://u:p/word@host/c", "milvus://u:p@a/ss@host/c"):  # fmt: skip
        with pytest.raises(OptionError, match="expected an address such as") as error:
            MilvusAddress.read(wrong)
        assert not [secret for secret in ("u:p", "word", "ss@", "\n") if secret in str(error.value)]


def test_long_filters_are_evaluated_and_deep_ones_refused(table: tuple[mm.Gallery, sqlite3.Connection]) -> None:
    collection, db = table
    for where in (" or ".join(f"n = {i}" for i in range(300)), " and ".join(f"n <> {i}" for i in range(2, 200)), f"n in ({', '.join(map(str, range(1500)))})"):  # fmt: skip
        expected = [str(id_) for (id_,) in db.execute(f"SELECT id FROM fields WHERE {where} ORDER BY id")]
        assert [item.id for item in collection.list_items(where=where).items] == expected
    for deep in ("1" + " < 1" * 900, "n" + " isnull" * 900, "(" * 101 + "n" + ")" * 101):
        with pytest.raises(OptionError, match="more than"):
            collection.list_items(where=deep)


def test_folder_commands_write_nothing_for_an_address(milvus: LiteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    folder, address = filled(tmp_path / "g"), milvus.address("only")
    push(folder.path, address)
    for words in (["compact", address], ["build", address], ["export", address, "out"], ["index-report", address],
                  ["merge", address, str(folder.path)], ["merge", str(folder.path), address], ["pull", address, milvus.address("other")],
                  ["push", address, milvus.address("other")], ["info", "MILVUS://host/c"]):  # fmt: skip
        assert main(words) in (1, 2), words  # a failure, or wrong use
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


@pytest.mark.parametrize("token", ["\udcff", "a\nb", "x" * 5_000])
def test_a_token_that_cannot_be_sent_is_named(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setattr("os.environ", {"MILVUS_TOKEN": token})
    with pytest.raises(OptionError, match="MILVUS_TOKEN is not a token"):
        _ = MilvusAddress.read("milvus://host/c").token


@pytest.fixture
def own_server(milvus: LiteServer, tmp_path: Path) -> Iterator[LiteServer]:  # noqa: ARG001 - skips where there is none
    server = LiteServer(tmp_path)
    yield server
    server.stop()


def test_a_stopped_server_is_named_and_reconnected_to(own_server: LiteServer, tmp_path: Path) -> None:
    folder, address = filled(tmp_path / "g"), own_server.address("c")
    push(folder.path, address)
    collection, query = mm.open_gallery(address), one(folder.vectors()[3])
    before = collection.search(query, 5)
    own_server.kill()
    started = time.monotonic()
    with pytest.raises(MilvusUnavailableError, match=r"the server does not answer.*what it has stored is safe") as error:
        collection.search(query, 5)
    assert time.monotonic() - started < 20
    assert "\n" not in str(error.value)
    with pytest.raises(MilvusUnavailableError):
        push(folder.path, address)
    own_server.start()
    assert collection.search(query, 5) == before == folder.search(query, 5)
    assert (collection.verify(), len(collection)) == ([], ITEMS)


def test_an_interrupted_push_is_resumed(own_server: LiteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH_SIZE", 64)
    folder, address = filled(tmp_path / "g"), own_server.address("c")
    counts: list[int] = []

    def kill(count: int) -> None:
        counts.append(count)
        if len(counts) == 2:
            own_server.kill()

    with pytest.raises(MilvusUnavailableError):
        push(folder.path, address, progress=kill)
    own_server.start()
    report = push(folder.path, address)
    assert report.added + report.skipped == ITEMS
    assert report.skipped >= 64
    collection = mm.open_gallery(address)
    assert (collection.ids, collection.verify()) == (folder.ids, [])
    assert collection.vectors().tobytes() == folder.vectors().tobytes()


def test_missing_and_foreign_collections_are_named(milvus: LiteServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", milvus.address("nowhere"), "--prompt", "a dress"]) == 1
    assert "the server has no such collection; `mmretrieve push` makes one" in capsys.readouterr().err
    assert main(["info", "milvus://127.0.0.1:1/c"]) == 1
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "the server does not answer" in output


FIELDS = {"n": FieldType.NUMBER, "t": FieldType.TEXT}
VALUES = [
    (None, None),
    (0, ""),
    (1, "a"),
    (-2, "B"),
    (2.5, "it's"),
    (10, 'x"y'),
    (3, "50%"),
    (7, "a_b"),
    (-2, None),
    (None, "b"),
    (2**53 + 1, "back\\slash"),
    (-0.5, "Ü new\nline"),
    (1e300, "%_\\"),
    (-(2**62), "ü"),
]
names, numbers = (
    st.sampled_from(["n", "N", '"n"']),
    st.sampled_from(["0", "1", "-2", "2.5", "3", "1e1", "NULL", "9007199254740993", "-.5", "1e300", "TRUE"]),
)
texts = st.sampled_from(["''", "'a'", "'B'", "'it''s'", "'x\"y'", "'b'", "NULL", "'back\\slash'", "'ü'", "'Ü new\nline'"])
patterns = st.sampled_from(
    ["'%\\'", "'back\\%'", "'_'", "'ü%'", "'%NEW_line'", "'a_b'", "'%'", "'a%'", "'%b'", "'%T%'", "'A'", "'50%'"]
)
signs = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">=", "=="])
leaves = st.one_of(
    st.builds("{} {} {}".format, names, signs, numbers),
    st.builds("t {} {}".format, signs, texts),
    st.builds("{} IN ({}, {})".format, names, numbers, numbers),
    st.builds("t NOT IN ({}, {})".format, texts, texts),
    st.builds("n NOT IN ({}, {}, {})".format, numbers, numbers, numbers),
    st.builds("fields.n {} {}".format, signs, numbers),
    st.builds("{} BETWEEN {} AND {}".format, names, numbers, numbers),
    st.builds("t LIKE {}".format, patterns),
    st.sampled_from(["n IS NULL", "t IS NOT NULL", "t NOTNULL"]),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def table(milvus: LiteServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[mm.Gallery, sqlite3.Connection]:
    gallery = mm.Gallery.create(tmp_path_factory.mktemp("table") / "g", encoder=ColourEncoder())
    fields = [{name: value for name, value in zip("nt", values, strict=True) if value is not None} for values in VALUES]
    gallery.add_vectors(
        [str(i) for i in range(len(VALUES))],
        np.random.default_rng(0).normal(size=(len(VALUES), ColourEncoder.dim)),
        fields=fields,
    )
    push(gallery.path, milvus.address("table"))
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute("CREATE TABLE fields (id INTEGER, n, t TEXT)")
    db.executemany("INSERT INTO fields VALUES (?, ?, ?)", [(i, *values) for i, values in enumerate(VALUES)])
    return mm.open_gallery(milvus.address("table")), db


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expressions)
def test_a_filter_matches_what_sqlite_matches(table: tuple[mm.Gallery, sqlite3.Connection], where: str) -> None:
    collection, db = table
    expected = {str(id_) for (id_,) in db.execute(f"SELECT id FROM fields WHERE {where}")}
    ranking = collection.search(Composition(("query",), collection.vectors()[:1], (1.0,)), len(VALUES), where=where)
    assert set(ranking.ids) == expected, to_milvus(parse(where), filter_columns(FIELDS))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("n GLOB 'a*'", "GLOB|glob"),
        ("length(t) > 3", "Milvus has no length .*; store the value as a field, or pull the gallery and search the folder"),
        ("colour = 'red'", "no such column: colour"),
        ("n = ", "where n =: "),
        ("n + t > 1", r"where \(n \+ t\) > 1: Milvus has no \+"),
        ("n = t", "Milvus does not compare two fields"),
        ("n = red", "no such column: red; put text in quotes: n = 'red'"),
        ("n = 1; DROP TABLE items", "a second statement"),
    ],
)
def test_a_filter_that_milvus_cannot_evaluate_is_named(
    table: tuple[mm.Gallery, sqlite3.Connection], where: str, message: str
) -> None:
    with pytest.raises(OptionError, match=message) as error:
        table[0].search(Composition(("query",), table[0].vectors()[:1], (1.0,)), 3, where=where)
    assert "\n" not in str(error.value)
