"""The wardrobe written in the layouts of CIRR, FashionIQ and CIRCO, and read back by the loaders of those."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.benchmarks import load_benchmark
from eval.benchmarks.base import Benchmark
from eval.benchmarks.export import CATEGORIES, LAYOUTS, WardrobeExport, export_wardrobe, plan_export, query_aspects
from mmretrieve import wardrobe
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.wardrobe.attributes import Colour, Garment, Kind, Neckline, Pattern, Sleeves
from mmretrieve.wardrobe.dataset import Drawing, WardrobeQuery

DRAWINGS = {drawing.id.removesuffix(".png"): drawing for drawing in wardrobe.drawings()}
QUERIES = wardrobe.queries()
Written = Callable[[str], tuple[Path, WardrobeExport]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Each layout is written once."""
    exports: dict[str, tuple[Path, WardrobeExport]] = {}

    def write(layout: str) -> tuple[Path, WardrobeExport]:
        if layout not in exports:
            folder = tmp_path_factory.mktemp("exports") / layout
            exports[layout] = folder, export_wardrobe(layout, folder)
        return exports[layout]

    return write


def load(written: tuple[Path, WardrobeExport]) -> list[Benchmark]:
    folder, export = written
    return [load_benchmark(part.name, folder, part.split) for part in export.parts]


def drawing_of(name: str) -> Drawing:
    """The drawing of an image's name, which is a number in CIRCO."""
    return wardrobe.drawings()[int(name)] if name.isdecimal() else DRAWINGS[name]


@pytest.mark.parametrize(
    ("layout", "counts"),
    [
        ("cirr", {("cirr", "val"): (301, 24 * 50), ("cirr", "test1"): (199, 16 * 50)}),
        (
            "fashioniq",
            {
                ("fashioniq:dress", "val"): (211, 16 * 50),
                ("fashioniq:shirt", "val"): (147, 12 * 50),
                ("fashioniq:toptee", "val"): (142, 12 * 50),
            },
        ),
        ("circo", {("circo", "val"): (301, 2000), ("circo", "test"): (199, 2000)}),
    ],
)
def test_the_loaders_read_an_export_and_remark_that_it_is_not_the_released_data(
    written: Written, layout: str, counts: dict[tuple[str, str], tuple[int, int]]
) -> None:
    _, export = written(layout)
    assert {(part.name, part.split): (part.queries, part.images) for part in export.parts} == counts
    assert len(export.images) == len(wardrobe.drawings())
    for bench, (queries, images) in zip(load(written(layout)), counts.values(), strict=True):
        assert (len(bench.queries), len(bench.gallery_ids)) == (queries, images)
        assert bench.remark is not None
        assert "not the released" in bench.remark


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_its_drawing(written: Written, layout: str) -> None:
    folder, export = written(layout)
    for bench in load((folder, export)):
        for name in bench.gallery_ids:
            path, source = bench.image_path(name), wardrobe.pictures_folder() / drawing_of(name).id
            if path.suffix == ".png":
                assert path.read_bytes() == source.read_bytes()
            else:
                with Image.open(path) as picture, Image.open(source) as drawing:
                    assert (picture.format, picture.size) == ("JPEG", drawing.size)
        with Image.open(path) as picture, Image.open(source) as drawing:
            difference = np.abs(np.asarray(picture.convert("RGB"), int) - np.asarray(drawing.convert("RGB"), int))
            assert difference.mean() < 2
    files = [path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(files) == len(export.images)


def test_the_ground_truth_of_cirr_is_the_wardrobes(written: Written) -> None:
    val, test = load(written("cirr"))
    loaded_queries = {query.id: query for query in (*val.queries, *test.queries)}
    assert sorted(loaded_queries, key=int) == [str(int(query.id)) for query in QUERIES]
    for query in QUERIES:
        loaded = loaded_queries[str(int(query.id))]
        assert (loaded.reference + ".png", loaded.prompts) == (query.reference, (query.prompt,))
        assert [f"{name}.png" for name in loaded.targets] == (list(query.targets[:1]) if loaded in val.queries else [])
    assert not set(val.gallery_ids) & set(test.gallery_ids)
    raw = json.loads((written("cirr")[0] / "captions/cap.rc2.val.json").read_text())
    for record in raw:
        query = QUERIES[record["pairid"]]
        assert {f"{name}.png": value for name, value in record["target_soft"].items()} == dict.fromkeys(query.targets, 1.0)
        assert record["img_set"]["members"][record["img_set"]["reference_rank"]] == record["reference"]
        assert record["img_set"]["members"][record["img_set"]["target_rank"]] == record["target_hard"]


def test_distractors_match_the_reference_or_the_prompt_but_not_both(written: Written) -> None:
    for bench in load(written("cirr")):
        for loaded in bench.queries:
            query = QUERIES[int(loaded.id)]
            reference, target = DRAWINGS[loaded.reference], drawing_of(query.targets[0].removesuffix(".png"))
            others = [DRAWINGS[name] for name in loaded.candidates or () if DRAWINGS[name] != target]
            picture = [drawing.detail == reference.detail for drawing in others]
            words = [drawing.garment == target.garment for drawing in others]
            assert sorted(zip(picture, words, strict=True)) == [(False, True)] * 2 + [(True, False)] * 2


def test_the_ground_truth_of_fashioniq_is_the_wardrobes(written: Written) -> None:
    assert sorted(kind for kinds in CATEGORIES.values() for kind in kinds) == sorted(Kind)
    count = 0
    for category, bench in zip(CATEGORIES, load(written("fashioniq")), strict=True):
        kinds = CATEGORIES[category]
        expected = [query for query in QUERIES if DRAWINGS[query.reference.removesuffix(".png")].garment.kind in kinds]
        for loaded, query in zip(bench.queries, expected, strict=True):
            assert (f"{loaded.reference}.png", f"{loaded.targets[0]}.png") == (query.reference, query.targets[0])
            assert loaded.prompts[0].startswith(f"{query.prompt} and ")
            assert loaded.prompts[0] != f"{query.prompt} and {query.prompt}"
        assert {DRAWINGS[name].garment.kind for name in bench.gallery_ids} == set(kinds)
        count += len(expected)
    assert count == len(QUERIES)


def test_the_ground_truth_of_circo_is_the_wardrobes(written: Written) -> None:
    val, test = load(written("circo"))
    hidden = {query.id for query in load(written("cirr"))[1].queries}
    for bench, expected in (
        (val, [query for query in QUERIES if str(int(query.id)) not in hidden]),
        (test, [query for query in QUERIES if str(int(query.id)) in hidden]),
    ):
        assert [query.id for query in bench.queries] == [str(i) for i in range(len(expected))]
        for loaded, query in zip(bench.queries, expected, strict=True):
            assert (drawing_of(loaded.reference).id, loaded.prompts) == (query.reference, (query.prompt,))
            assert tuple(drawing_of(name).id for name in loaded.targets) == (query.targets if bench is val else ())
            assert loaded.concept is not None
            assert loaded.concept.endswith(drawing_of(loaded.reference).garment.kind.value)


@pytest.mark.parametrize(
    ("prompt", "changed", "expected"),
    [
        ("in red", ("colour",), []),
        ("in red instead", ("colour",), ["compare_change"]),
        ("with dots", ("pattern",), ["addition"]),
        ("dotted, without sleeves", ("pattern", "sleeves"), ["addition", "negation"]),
        ("sleeveless and in red", ("colour", "sleeves"), ["negation", "statement_with_conjunction"]),
    ],
)
def test_query_aspects(prompt: str, changed: tuple[str, ...], expected: list[str]) -> None:
    plain = Garment(Kind.TOP, Colour.BLUE, Pattern.PLAIN, Sleeves.LONG, None, Neckline.ROUND)
    assert query_aspects(plain, WardrobeQuery("0", "a", prompt, ("b",), changed)) == expected
    dotted = plain.changed(pattern=Pattern.DOTTED)
    assert "addition" not in query_aspects(dotted, WardrobeQuery("0", "a", prompt, ("b",), changed))


def test_a_perfect_ranking_scores_100_and_missing_aspects_are_left_out(written: Written) -> None:
    bench = load(written("circo"))[0]
    rows = {name: i for i, name in enumerate(bench.gallery_ids)}
    scores = np.zeros((len(bench.queries), len(rows)))
    for row, query in zip(scores, bench.queries, strict=True):
        row[[rows[name] for name in query.targets]] = 1 + np.arange(len(query.targets))[::-1]
    means = bench.mean_metrics(bench.measure_scores(iter(scores)))
    loaded_queries = {"addition", "negation", "compare_change", "statement_with_conjunction"}
    assert set(means.values()) == {100.0}
    assert {name.partition("/")[2] for name in means if "/" in name} == loaded_queries


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_is_reproducible(written: Written, layout: str, tmp_path: Path) -> None:
    folder, export = written(layout)
    again = tmp_path / "deep" / "er"
    assert export_wardrobe(layout, again) == export == plan_export(layout)
    one, other = ({str(p.relative_to(f)): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (folder, again))
    assert one == other
    assert set(one) == {*export.files, *export.images}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["er"]


def test_an_empty_folder_is_filled_and_images_are_counted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    counted: list[int] = []
    export_wardrobe("cirr", out, progress=counted.append)
    assert counted == [1] * 2000
    assert sorted(path.name for path in out.iterdir()) == ["captions", "dev", "image_splits", "test1"]
    (tmp_path / "new").mkdir()
    assert out.stat().st_mode == (tmp_path / "new").stat().st_mode  # others may read it, as any folder


def test_existing_files_are_never_changed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/note.txt").write_text("keep")
    for out in (tmp_path / "mine", tmp_path / "mine/note.txt"):
        with pytest.raises(OptionError, match="exists and is not an empty folder"):
            export_wardrobe("cirr", out)
    assert (tmp_path / "mine/note.txt").read_text() == "keep"
    with pytest.raises(OptionError, match="unknown benchmark layout 'genecis'; choose from: cirr, fashioniq, circo"):
        export_wardrobe("genecis", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_after_a_failure(tmp_path: Path, error: BaseException) -> None:
    def fail_at_the_end(_: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise error

    left = 1000
    with pytest.raises((MMRetrieveError, KeyboardInterrupt)) as caught:
        export_wardrobe("fashioniq", tmp_path / "out", progress=fail_at_the_end)
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{tmp_path / 'out'}: cannot be written ([Errno 28] No space left on device)")
