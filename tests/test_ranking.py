"""The forms of a ranking: columns, files, pages, runs of TREC, and what galleries and compositions look like in notebooks."""

from __future__ import annotations

import csv
import json
import pickle
import re
import shutil
import webbrowser
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mmretrieve as mm
from mmretrieve.cli.main import main
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.ranking import columns
from mmretrieve.ranking.trec import escape, falling, unescape

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def retriever() -> mm.Retriever:
    return mm.Retriever.open(mm.wardrobe.gallery_folder())


@pytest.fixture(scope="module")
def ranking(retriever: mm.Retriever) -> mm.Ranking:
    return retriever.search(reference_id="red-checked-dress-1815.png", prompt="in blue", avoid="stripes", k=6)


def made(*ids: str, scores: list[float] | None = None, **more: Any) -> mm.Ranking:
    values = scores or np.linspace(1, 0.5, len(ids)).tolist()
    hits = tuple(mm.Hit(i, id_, score, {"image": score}) for i, (id_, score) in enumerate(zip(ids, values, strict=True), 1))
    return mm.Ranking(hits, k=10, searched=len(ids), weights={"image": 1.0}, **more)


def test_a_data_frame_has_a_row_for_each_hit(ranking: mm.Ranking, retriever: mm.Retriever) -> None:
    frame = ranking.to_pandas()
    terms = [f"contribution {name}" for name in ranking.weights]
    assert list(frame)[: 3 + len(terms)] == ["rank", "id", "score", *terms]
    assert list(frame)[3 + len(terms) :] == ["path", *sorted(retriever.gallery.manifest.fields)]
    assert frame["id"].tolist() == list(ranking.ids)
    np.testing.assert_allclose(frame[terms].sum(axis=1), frame["score"], atol=1e-6)
    assert frame.loc[0, "colour"] == retriever.gallery.item(ranking.ids[0]).fields["colour"]
    table = pa.table(ranking)
    assert table.to_pydict() == {name: [None if pd.isna(value) else value for value in frame[name]] for name in frame}
    assert {str(kind) for kind in table.schema.types} == {"int64", "double", "string"}


def test_columns_do_not_depend_on_the_hits(retriever: mm.Retriever, ranking: mm.Ranking) -> None:
    nothing = retriever.search(reference_id="red-checked-dress-1815.png", prompt="in blue", avoid="stripes", min_score=99)
    assert len(nothing) == 0
    assert nothing.to_pandas().dtypes.to_dict() == ranking.to_pandas().dtypes.to_dict()
    assert pa.table(nothing).schema == pa.table(ranking).schema


def test_fields_that_are_no_simple_columns() -> None:
    one = made("a", "b")
    table = columns.Table.of(one, [{"score": 3, "size": 1, "note": 2}, {"size": None, "note": "two"}])
    assert table.values["score"] == [1.0, 0.5]
    assert table.values["field score"] == [3, None]
    assert (table.values["note"], table.types["note"]) == (["2", "two"], str)
    assert table.types["size"] is float
    frame = columns.to_pandas(table)
    assert frame["size"].isna().tolist() == [False, True]
    assert columns.to_arrow(table).to_pydict()["size"] == [1.0, None]


def test_fields_with_the_names_of_renamed_columns_are_kept() -> None:
    table = columns.Table.of(made("a"), [{"rank": 7, "field rank": 8, "size": 2**60}])
    assert (table.values["rank"], table.values["field rank"], table.values["field field rank"]) == ([1], [8], [7])
    assert columns.to_arrow(table)["size"].to_pylist() == [2.0**60] == columns.to_pandas(table)["size"].tolist()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(MMRetrieveError, match="this needs the package polars; install it with: pip install polars"):
        made("a").to_polars()


def test_files(ranking: mm.Ranking, tmp_path: Path) -> None:
    with ranking.save(tmp_path / "hits.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(ranking.ids)
    assert "path" not in rows[0]
    document = json.loads(ranking.save(tmp_path / "hits.json").read_bytes())
    assert [hit["score"] for hit in document["hits"]] == [hit.score for hit in ranking]
    with zipfile.ZipFile(ranking.save(tmp_path / "hits.zip")) as archive:
        assert len(archive.namelist()) == len(ranking) + 1
    page = ranking.save(str(tmp_path / "hits.html")).read_text(encoding="utf-8")
    assert page.count("<img ") == len(ranking)
    with pytest.raises(OptionError, match=r"unknown suffix '\.xls'.*choose from: \.csv, \.json, \.zip, \.html"):
        ranking.save(tmp_path / "hits.xls")
    with pytest.raises(OptionError, match="this ranking has no gallery, so there are no pictures"):
        made("a").save(tmp_path / "hits.zip")


def test_html_needs_nothing_else_and_runs_nothing(ranking: mm.Ranking) -> None:
    bundle = ranking._repr_mimebundle_(include=None, exclude=None)
    html = bundle["text/html"]
    assert bundle["text/plain"] == str(ranking)
    assert html.count("data:image/jpeg;base64,") == len(ranking)
    assert not re.search(r"<script|<style|https?://|\bon\w+=|url\(", html)
    assert all(name in html for name in ("avoid", "composed", "in blue" if "in blue" in str(ranking.why) else "automatic"))
    hostile = made(HOSTILE, '"><script>alert(2)</script>', note=HOSTILE, words={"text": HOSTILE}, why="<b>")
    for fragment in (hostile.to_html(), hostile.to_html(1)):
        assert not re.search(r"<(img|script|b)\b", fragment)
        assert "&lt;img src=x onerror=alert(1)&gt;" in fragment
    assert "1 more are not shown" in hostile.to_html(1)


def test_what_cannot_be_shown_does_not_hide_the_rest(tmp_path: Path, encoder: mm.Encoder) -> None:
    for name in ("a.png", "b.png"):
        shutil.copy(mm.wardrobe.pictures_folder() / "red-checked-dress-1815.png", tmp_path / name)
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add([tmp_path / "a.png", tmp_path / "b.png"])
    found = mm.Retriever(gallery, encoder).search(prompt="a dress")
    gallery.delete([found.ids[0]])
    html = found.to_html()
    assert html.count("<img ") == 1
    assert found.fields[0] == {}
    shutil.rmtree(tmp_path / "g")
    assert found.to_html().count("1px dashed") >= 1
    assert "gallery.sqlite: unable to open database file" in gallery._repr_html_()
    with pytest.raises(MMRetrieveError, match="unable to open database file"):
        found.to_pandas()  # where a value is read, what is missing is not hidden
    copy = pickle.loads(pickle.dumps(found))
    assert copy == found
    assert copy.gallery is None
    assert "<img" not in copy.to_html()


def test_a_ranking_is_shown_as_text_and_as_a_page(ranking: mm.Ranking, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = str(ranking).splitlines()
    assert [line.split()[:3] for line in lines] == [[str(hit.rank), f"{hit.score:.4f}", hit.id] for hit in ranking]
    assert str(made()) == "no hits among 0 items"
    assert str(made("a\x1b[31m\nb")) == "   1  1.0000  a\\x1b[31m\\nb  (image +1.000)"
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = ranking.show()
    assert opened == [path.as_uri()]
    assert ranking.ids[0] in path.read_text(encoding="utf-8")
    path.unlink()


def test_galleries_and_compositions_show_themselves(retriever: mm.Retriever) -> None:
    gallery = retriever.gallery
    assert repr(gallery) == f"<Gallery of 2,000 items, wardrobe, 128 dimensions: {gallery.path}>"
    html = gallery._repr_html_()
    assert html.count("<img ") == 8
    assert "colour (text)" in html
    query = retriever.compose(reference_id=gallery.ids[0], prompt="<b>in blue")
    assert repr(query) == "<Composition of 128 dimensions: image × 0, text × 0, composed × 1, prompt × 0; linear>"
    assert "<td>&lt;b&gt;in blue</td>" in query._repr_html_()


@pytest.mark.parametrize("id_", ["a b.jpg", "100%", "%20", "new\nline", "\u3000wide", "plain", "50%25\t%"])
def test_ids_of_runs_come_back(id_: str) -> None:
    word = escape(id_)
    assert word.split() == [word]
    assert unescape(word) == id_


@pytest.mark.parametrize("word", ["a%2Fb", "%41", "%41%FF", "%C3%28", "%FF", "%20%FF", "%E9t", "100%"])
def test_other_escapes_are_read_as_they_are(word: str) -> None:
    assert unescape(word) == word


def test_scores_of_runs_fall_in_single_precision() -> None:
    rng = np.random.default_rng(0)
    scores = np.sort(rng.normal(size=500).round(2))[::-1].tolist() + [-1e9, -1e9, 1e-45, 0.0, 0.0]
    written = [float(f"{score:.9g}") for score in falling(sorted(scores, reverse=True))]
    single = np.array(written, np.float32)
    assert (np.diff(single) < 0).all()
    np.testing.assert_allclose(written, sorted(scores, reverse=True), rtol=1e-5, atol=1e-5)


def test_the_shell_prints_other_formats(capsys: pytest.CaptureFixture[str], retriever: mm.Retriever) -> None:
    words = ["search", "wardrobe", "--prompt", "a red dress", "-k", "3", "--format"]
    ranking = retriever.search(prompt="a red dress", k=3)
    assert main([*words, "trec"]) == 0
    assert capsys.readouterr().out == ranking.to_trec("1")
    assert main([*words, "csv"]) == 0
    assert [row["id"] for row in csv.DictReader(capsys.readouterr().out.splitlines())] == list(ranking.ids)
    assert main([*words, "json"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == list(ranking.ids)
    with pytest.raises(OptionError, match="the name of a run must be a word without spaces, got 'my run'"):
        ranking.to_trec("1", "my run")
    with pytest.raises(OptionError, match="the id of a query is empty"):
        ranking.to_trec("")
    assert main([*words, "csv", "--json"]) == 2
    assert "--json and --format csv exclude each other" in capsys.readouterr().err
