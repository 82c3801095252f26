"""Annotation files: released records, folder layouts, and errors of damaged files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.benchmarks import load_benchmark, load_suite
from eval.benchmarks.base import Benchmark, BenchmarkQuery
from eval.benchmarks.circo import ASPECTS
from eval.benchmarks.genecis import crop
from eval.files import file_checksum
from mmretrieve.errors import ImageError, MMRetrieveError, OptionError
from tests.conftest import SHARED

Json = Any


@pytest.fixture(scope="session")
def real() -> Callable[..., Benchmark]:
    """Loads a benchmark of the released annotations."""

    def load(name: str, split: str | None = None) -> Benchmark:
        return load_benchmark(name, released(name), split)

    return load


def released(name: str) -> Path:
    folder = SHARED / name.partition(":")[0]
    if not folder.is_dir():
        pytest.skip(f"no research data at {SHARED} (set MMRETRIEVE_DATA)")
    return folder


# The released files


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "split", "queries", "images"),
    [
        ("cirr", "val", 4181, 2297),
        ("cirr", "test1", 4148, 2315),
        ("fashioniq:dress", "val", 2017, 3817),
        ("fashioniq:shirt", "val", 2038, 6346),
        ("fashioniq:toptee", "val", 1961, 5373),
        ("fashioniq:dress", "val-union", 2017, 2628),
        ("fashioniq:shirt", "val-union", 2038, 3089),
        ("fashioniq:toptee", "val-union", 1961, 2902),
        ("circo", "val", 220, 123_403),
        ("circo", "test", 800, 123_403),
        ("genecis:focus_object", "test", 1960, 2198),
        ("genecis:change_object", "test", 1960, 2739),
    ],
)
def test_counts_of_the_protocols(real: Callable[..., Benchmark], name: str, split: str, queries: int, images: int) -> None:
    bench = real(name, split)
    assert (len(bench.queries), len(bench.gallery_ids)) == (queries, images)
    assert (bench.name, bench.split, bench.remark) == (name, split, None)
    assert all(
        bool(query.targets) is (split not in ("test1",) and (name, split) != ("circo", "test")) for query in bench.queries
    )


CIRR_VAL = (
    BenchmarkQuery(
        "12060",
        "dev-244-0-img0",
        ("show three bottles of soft drink",),
        ("dev-1028-1-img1",),
        candidates=("dev-430-3-img0", "dev-63-0-img1", "dev-1028-1-img1", "dev-1028-2-img1", "dev-1028-2-img0"),
    ),
    BenchmarkQuery(
        "12092",
        "dev-104-3-img1",
        ("put the fries in a white plate with white background, clean",),
        ("dev-104-1-img0",),
        candidates=("dev-104-1-img0", "dev-365-2-img0", "dev-104-2-img1", "dev-104-0-img0", "dev-661-2-img0"),
    ),
    BenchmarkQuery(
        "38762",
        "dev-271-1-img0",
        ("Shows a similar dog standing in a grassy area with a stone fence in the background.",),
        ("dev-841-0-img1",),
        candidates=("dev-841-0-img1", "dev-903-0-img0", "dev-903-3-img1", "dev-360-0-img0", "dev-903-1-img1"),
    ),
)
CIRR_TEST = (
    BenchmarkQuery(
        "12063",
        "test1-147-1-img1",
        ("remove all but one dog and add a woman hugging it",),
        candidates=("test1-1001-2-img0", "test1-83-1-img1", "test1-359-0-img1", "test1-906-0-img1", "test1-83-0-img1"),
    ),
    BenchmarkQuery(
        "12075",
        "test1-105-1-img0",
        ("Change to black vending machine, Fill machine with colorful drink and snack packages",),
        candidates=("test1-780-1-img0", "test1-546-2-img1", "test1-853-0-img0", "test1-76-2-img0", "test1-494-3-img0"),
    ),
    BenchmarkQuery(
        "39059",
        "test1-38-0-img1",
        ("One wolf changed into two wolves in a blue background.",),
        candidates=("test1-255-0-img1", "test1-313-1-img0", "test1-38-2-img1", "test1-255-0-img0", "test1-313-3-img0"),
    ),
)
CIRCO_VAL = (
    BenchmarkQuery(
        "0",
        "271520",
        ("shows two people and has a more colorful background",),
        ("355099", "528417", "534704"),
        concept="a girl with a traditional Chinese umbrella",
        tags=("cardinality", "statement_with_conjunction", "comparative_statement", "spatial_relations_background"),
    ),
    BenchmarkQuery(
        "9",
        "2407",
        ("is taken from the top",),
        ("570897", "544937"),
        concept="a toilet and a sink shot in greyscale",
        tags=("viewpoint",),
    ),
    BenchmarkQuery(
        "219",
        "445907",
        ("is of a different color and has a duck next to it",),
        ("423437", "116826", "224607", "41208", "285129", "372406"),
        concept="a teddy bear",
        tags=("statement_with_conjunction", "compare_change", "addition", "spatial_relations_background"),
    ),
)
CIRCO_TEST = (
    BenchmarkQuery(
        "0",
        "281438",
        ("has a higher quality and is taken during the daytime",),
        concept="a man sitting on an outdoor toilet",
    ),
    BenchmarkQuery("9", "240265", ("has blue blankets and a CRT TV next to it",), concept="a double bed"),
    BenchmarkQuery(
        "799",
        "222734",
        ("is a man and is doing dishes in the kitchen sink",),
        concept="a person in a kitchen looking at the camera",
    ),
)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "split", "queries", "images"),
    [
        ("cirr", "val", CIRR_VAL, ("dev-244-0-img0", "dev-940-3-img0", "dev-1012-3-img0")),
        ("cirr", "test1", CIRR_TEST, ("test1-147-1-img1", "test1-206-1-img0", "test1-255-0-img1")),
        ("circo", "val", CIRCO_VAL, ("533083", "363795", "86638")),
        ("circo", "test", CIRCO_TEST, ("533083", "363795", "86638")),
    ],
)
def test_first_tenth_and_last_record(
    real: Callable[..., Benchmark], name: str, split: str, queries: tuple[BenchmarkQuery, ...], images: tuple[str, ...]
) -> None:
    bench = real(name, split)
    assert tuple(bench.queries[i] for i in (0, 9, -1)) == queries
    assert tuple(bench.gallery_ids[i] for i in (0, 9, -1)) == images


FASHION = {  # reference, target, both captions of the first, tenth and last record; first, tenth and last image
    "dress": (
        ("B005X4PL1G", "B0084Y8XIU", "is shiny and silver with shorter sleeves", "fit and flare"),
        ("B000WIRE54", "B007UYY43I", "has longer sleeves and a different color", "has longer sleeves and is more casual"),
        ("B00BY3GO0C", "B0030EHJ66", "Brighter and more playful looking", "is red with a floral print"),
        ("B009PMCJLW", "B007L3WP5W", "B00A9VAS2K"),
    ),
    "shirt": (
        ("B00CZ7QJUG", "B005AD7WZI", "is solid white", "is a lighter color"),
        ("B00EW84RMS", "B00BGVUTBC", "has white letters", "has more buttons"),  # a space before the second is stripped
        ("B0042P6BVG", "B00D78EKUS", "is solid black", "is more formal"),
        ("B000KENMD8", "B0051UW60Q", "B00D78EKUS"),
    ),
    "toptee": (
        ("B008CFZW76", "B008CG1JJ0", "is the same", "appears to be exactly the same"),
        ("B00EE0DYZ0", "B001UEUTF6", "is orange with shorter sleeves", "is of orange camo pattern"),
        (
            "B0059LBD1A",
            "B004070YLE",
            "is a see-thru striped long sleeved t-shirt and U collar",
            "Is striped and lighter in color",
        ),
        ("B008CG1JJ0", "B0015O8JLC", "B003BHB50I"),
    ),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("category", FASHION)
def test_first_tenth_and_last_record_of_fashioniq(real: Callable[..., Benchmark], category: str) -> None:
    bench = real(f"fashioniq:{category}")
    *records, images = FASHION[category]
    for i, (reference, target, one, other) in zip((0, 9, len(bench.queries) - 1), records, strict=True):
        prompts = (f"{one} and {other}", f"{other} and {one}")
        assert bench.queries[i] == BenchmarkQuery(str(i), reference, prompts, (target,))
    assert tuple(bench.gallery_ids[i] for i in (0, 9, -1)) == images


GENECIS = {  # reference, condition, target, first and last distractor of the first, tenth and last record
    "focus_object": (
        ("189213", "cardboard", "153527", "121506", "417632"),
        ("488673", "cardboard", "322163", "146457", "24144"),
        ("473406", "tile wall", "146457", "419974", "537812", "286907"),
    ),
    "change_object": (
        ("189213", "wall", "153527", "121506", "237316"),
        ("488673", "bowl", "199771", "419974", "123321"),
        ("473406", "banana", "125936", "488673", "227187"),
    ),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("task", GENECIS)
def test_first_tenth_and_last_record_of_genecis(real: Callable[..., Benchmark], task: str) -> None:
    bench = real(f"genecis:{task}")
    for i, (reference, condition, target, first, *_, last) in zip((0, 9, 1959), GENECIS[task], strict=True):
        query = bench.queries[i]
        assert (query.id, query.reference, query.prompts, query.targets) == (str(i), reference, (condition,), (target,))
        assert query.candidates is not None
        assert (query.candidates[0], query.candidates[1], query.candidates[-1]) == (target, first, last)
    assert all(len(query.candidates or ()) == 1 + 14 for query in bench.queries)
    assert all(query.reference not in (query.candidates or ()) for query in bench.queries)
    assert [part.name for part in load_suite("genecis", released("genecis"))] == [
        "genecis:focus_object",
        "genecis:change_object",
    ]


@pytest.mark.shared_data
def test_cirr_keeps_its_peculiarities(real: Callable[..., Benchmark]) -> None:
    val, test = real("cirr"), real("cirr", "test1")
    for query in (*val.queries, *test.queries):
        assert len(set(query.candidates or ())) == 5
        assert query.reference not in (query.candidates or ())
    assert [query.id for query in test.queries if not query.prompts[0].strip()] == ["27098"]
    for bench, repeated in ((val, 6), (test, 4)):
        wordings = [(query.reference, query.prompts) for query in bench.queries]
        assert len(wordings) - len(set(wordings)) == repeated


@pytest.mark.shared_data
def test_fashioniq_keeps_empty_captions_and_both_orders(real: Callable[..., Benchmark]) -> None:
    empty = {}
    for category in FASHION:
        queries = real(f"fashioniq:{category}").queries
        empty[category] = [int(query.id) for query in queries if query.prompts[0].startswith(" and ")]
        assert all(query.prompts[0].strip(".?,") == query.prompts[0] for query in queries)
    assert empty == {"dress": [], "shirt": [1928], "toptee": [676, 1076]}
    assert real("fashioniq:shirt").queries[1928].prompts == (
        " and is grey with a design on the back",
        "is grey with a design on the back and ",
    )


@pytest.mark.shared_data
def test_circo_has_its_first_target_first(real: Callable[..., Benchmark]) -> None:
    raw = json.loads((released("circo") / "annotations/val.json").read_text())
    queries = real("circo").queries
    assert [query.targets[0] for query in queries] == [str(record["target_img_id"]) for record in raw]
    assert sum(len(query.targets) for query in queries) == sum(len(record["gt_img_ids"]) for record in raw)
    counts = [sum(aspect in query.tags for query in queries) for aspect in ASPECTS]
    assert dict(zip(ASPECTS, counts, strict=True)) == {
        "cardinality": 37,
        "addition": 80,
        "negation": 21,
        "direct_addressing": 119,
        "compare_change": 86,
        "comparative_statement": 50,
        "statement_with_conjunction": 164,
        "spatial_relations_background": 100,
        "viewpoint": 54,
    }


DAMAGE = [
    ("cirr", "val", "captions/cap.rc2.val.json", 4178, 4181),
    ("cirr", "test1", "captions/cap.rc2.test1.json", 4145, 4148),
    ("fashioniq:shirt", "val", "captions/cap.shirt.val.json", 2035, 2038),
    ("circo", "val", "annotations/val.json", 217, 220),
    ("circo", "test", "annotations/test.json", 797, 800),
    ("genecis:focus_object", "test", "focus_object.json", 1957, 1960),
]


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "split", "file", "result", "expected"), DAMAGE)
def test_a_released_file_without_some_records_is_damaged(
    tmp_path: Path, name: str, split: str, file: str, result: int, expected: int
) -> None:
    root = shutil.copytree(released(name), tmp_path / "root", copy_function=shutil.copyfile)
    change(root / file, lambda records: records[:-3])
    assert_refused(name, root, split, rf"{re.escape(file)}: damaged: expected {expected} records, found {result}")


@pytest.mark.shared_data
def test_a_gallery_file_without_some_images_is_refused(tmp_path: Path) -> None:
    root = shutil.copytree(released("circo"), tmp_path / "circo", copy_function=shutil.copyfile)
    ids = (root / "unlabeled2017_ids.txt").read_text().splitlines()
    (root / "unlabeled2017_ids.txt").write_text("\n".join(ids[:-3]) + "\n")
    assert_refused("circo", root, "val", "unlabeled2017_ids.txt: damaged: expected 123403 records, found 123400")
    (root / "unlabeled2017_ids.txt").write_text("\n".join(ids[: len(ids) // 2]))
    assert_refused("circo", root, "val", r"val\.json, record 1: mentions '.*unlabeled2017_ids\.txt: .* incomplete")
    (root / "unlabeled2017_ids.txt").write_text("\n".join([*ids, ids[0]]))
    assert_refused("circo", root, "val", "unlabeled2017_ids.txt: '533083' occurs twice")


@pytest.mark.shared_data
def test_mixed_up_splits_are_detected(tmp_path: Path) -> None:
    cirr = shutil.copytree(released("cirr"), tmp_path / "cirr", copy_function=shutil.copyfile)
    shutil.copy(cirr / "image_splits/split.rc2.test1.json", cirr / "image_splits/split.rc2.val.json")
    assert_refused(
        "cirr", cirr, "val", r"cap\.rc2\.val\.json, record 1: mentions 'dev-244-0-img0', .*split\.rc2\.val\.json: .*two splits"
    )
    shutil.copy(cirr / "captions/cap.rc2.test1.json", cirr / "captions/cap.rc2.val.json")
    assert_refused("cirr", cirr, "val", r"cap\.rc2\.val\.json, record 1: there is no field 'target_hard', only pairid")
    circo = shutil.copytree(released("circo"), tmp_path / "circo", copy_function=shutil.copyfile)
    shutil.copy(circo / "annotations/val.json", circo / "annotations/test.json")
    assert_refused("circo", circo, "test", r"test\.json, record 1: has 'gt_img_ids', .*another split")
    fashion = shutil.copytree(released("fashioniq"), tmp_path / "fashioniq", copy_function=shutil.copyfile)
    shutil.copy(fashion / "captions/cap.dress.val.json", fashion / "captions/cap.shirt.val.json")
    assert_refused("fashioniq:shirt", fashion, "val", r"cap\.shirt\.val\.json, record 1: mentions 'B005X4PL1G'")


# Folders of every layout, with little in them

NAMES = [f"dev-{i}" for i in range(7)]


def write(path: Path, value: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def change(path: Path, edit: Callable[[Json], Json]) -> None:
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def assert_refused(name: str, root: Path, split: str | None, message: str) -> None:
    with pytest.raises(MMRetrieveError, match=message) as caught:
        load_benchmark(name, root, split)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


def tiny_cirr(root: Path) -> None:
    records = [
        {
            "pairid": 10 + i,
            "reference": NAMES[0],
            "target_hard": NAMES[1 + i],
            "target_soft": {NAMES[1 + i]: 1.0},
            "caption": "in red",
            "img_set": {"id": 1, "members": NAMES[:6]},
        }
        for i in range(2)
    ]
    hidden = [{key: value for key, value in record.items() if "target" not in key} for record in records]
    for split, listed in (("val", records), ("test1", hidden)):
        write(root / f"captions/cap.rc2.{split}.json", listed)
        write(root / f"image_splits/split.rc2.{split}.json", {name: f"./dev/{name}.png" for name in NAMES})


def tiny_fashioniq(root: Path) -> None:
    record = {"target": NAMES[1], "candidate": NAMES[0], "captions": [" is Red.", "?has, dots ,"]}
    write(root / "captions/cap.dress.val.json", [record, record | {"target": NAMES[2]}])
    write(root / "image_splits/split.dress.val.json", NAMES)


def tiny_circo(root: Path, listed: str = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json") -> None:
    record = {
        "reference_img_id": 1,
        "target_img_id": 2,
        "relative_caption": "in red",
        "shared_concept": "a thing",
        "gt_img_ids": [2, 3],
        "id": 0,
        "semantic_aspects": ["viewpoint"],
    }
    write(root / "annotations/val.json", [record, record | {"id": 1}])
    public = {key: record[key] for key in ("reference_img_id", "relative_caption", "shared_concept", "id")}
    write(root / "annotations/test.json", [public])
    if listed.endswith(".json"):
        write(root / listed, {"images": [{"id": i, "file_name": f"{i:012}.jpg", "height": 9} for i in range(1, 8)]})
    else:
        touch(root / listed).write_text("\n".join(map(str, range(1, 8))))


def tiny_genecis(root: Path) -> None:
    write(
        root / "focus_object.json",
        [
            {
                "reference": {"val_image_id": 1},
                "target": {"val_image_id": 2},
                "gallery": [{"val_image_id": i} for i in range(3, 17)],
                "condition": "a wall",
            }
        ],
    )
    boxed = [{"image_id": i, "instance_bbox": [10, 20, 30, 40]} for i in range(7, 18)]
    record = {"reference": boxed[0], "target": boxed[1], "gallery": boxed[2:], "condition": "the same colour"}
    write(root / "focus_attribute.json", [record])


@pytest.mark.parametrize(
    ("home", "images"),
    [("cirr", "."), ("cirr", "img_raw"), (".", "img_raw"), (".", "."), ("cirr", "cirr")],
)
def test_layouts_of_cirr(tmp_path: Path, home: str, images: str) -> None:
    tiny_cirr(tmp_path / home)
    picture = touch(tmp_path / images / "dev/dev-3.png")
    bench = load_benchmark("cirr", tmp_path)
    assert bench.image_path("dev-3") == picture
    assert bench.gallery_ids == tuple(NAMES)
    assert bench.checksum == file_checksum(
        tmp_path / home / "captions/cap.rc2.val.json", tmp_path / home / "image_splits/split.rc2.val.json"
    )
    assert bench.remark == "2 queries over 7 images in CIRR's layout: not the released CIRR (4,181 over 2,297)"


@pytest.mark.parametrize("suffix", ["jpg", "png", "jpeg"])
@pytest.mark.parametrize("home", [".", "fashionIQ_dataset", "fashionIQ"])
def test_layouts_of_fashioniq(tmp_path: Path, home: str, suffix: str) -> None:
    tiny_fashioniq(tmp_path / home)
    picture = touch(tmp_path / home / f"images/dev-3.{suffix}")
    bench = load_benchmark("fashioniq:dress", tmp_path)
    assert bench.image_path("dev-3") == picture
    assert bench.queries[0].prompts == ("is Red and has, dots", "has, dots and is Red")
    assert load_benchmark("fashioniq:dress", tmp_path, "val-union").gallery_ids == tuple(NAMES[:3])


@pytest.mark.parametrize(
    ("home", "listed", "images"),
    [
        (".", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", "COCO2017_unlabeled/unlabeled2017"),
        (".", "annotations/image_info_unlabeled2017.json", "unlabeled2017"),
        (".", "unlabeled2017_ids.txt", "unlabeled2017"),
        ("CIRCO", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", "COCO2017_unlabeled/unlabeled2017"),
    ],
)
def test_layouts_of_circo(tmp_path: Path, home: str, listed: str, images: str) -> None:
    tiny_circo(tmp_path / home, listed)
    picture = touch(tmp_path / home / images / "000000000003.jpg")
    bench = load_benchmark("circo", tmp_path)
    assert bench.image_path("3") == picture
    assert bench.gallery_ids == ("1", "2", "3", "4", "5", "6", "7")
    assert bench.queries[0].targets == ("2", "3")
    assert load_benchmark("circo", tmp_path, "test").queries[0].targets == ()


@pytest.mark.parametrize(("home", "images"), [(".", "val2017"), ("genecis", "coco2017/val2017"), (".", "coco/val2017")])
def test_layouts_of_genecis_objects(tmp_path: Path, home: str, images: str) -> None:
    tiny_genecis(tmp_path / home)
    picture = touch(tmp_path / images / "000000000003.jpg")
    bench = load_benchmark("genecis:focus_object", tmp_path)
    assert bench.image_path("3") == picture
    assert bench.queries[0].candidates == tuple(map(str, range(2, 17)))
    assert [part.name for part in load_suite("genecis", tmp_path)] == ["genecis:focus_attribute", "genecis:focus_object"]


def test_attribute_tasks_crop_images(tmp_path: Path) -> None:
    tiny_genecis(tmp_path)
    for folder, number, colour in (("VG_100K", 7, "red"), ("VG_100K_2", 8, "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (100, 90), colour).save(tmp_path / folder / f"{number}.jpg", quality=95)
    bench = load_benchmark("genecis:focus_attribute", tmp_path)
    query = bench.queries[0]
    assert (query.reference, query.targets, len(query.candidates or ())) == ("7@10,20,30,40", ("8@10,20,30,40",), 1 + 9)
    assert bench.image_path(query.reference) == tmp_path / "VG_100K/7.jpg"
    assert bench.image_path(query.targets[0]) == tmp_path / "VG_100K_2/8.jpg"
    cut = bench.load_image(query.targets[0])
    assert isinstance(cut, Image.Image)
    # left = max(0, 10 − 21) = 0, right = 0 + 1.7·30 = 51; top = max(0, 20 − 28) = 0, bottom = 0 + 1.7·40 = 68
    assert cut.size == (68, 68)
    bar = (68 - 51) // 2
    blue, black = (cut.crop(box) for box in ((bar, 0, bar + 51, 68), (bar + 51, 0, 68, 68)))
    assert [tone[1] for tone in blue.getextrema()] == pytest.approx([0, 0, 255], abs=2)
    assert blue.getextrema()[2][0] > 250
    assert black.getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize(
    ("box", "left", "top", "right", "bottom"),
    [
        ((50, 40, 20, 10), 50 - 14, 40 - 7, 36 + 34, 33 + 17),  # inside
        ((80, 60, 40, 20), 80 - 28, 60 - 14, 100, 46 + 34),  # clipped at the right
        ((20, 80, 10, 20), 20 - 7, 80 - 14, 13 + 17, 90),  # clipped below
        ((50.5, 40.0, 11.0, 10.0), 43, 33, 62, 50),  # 50.5 − 7.7 = 42.8 and 42.8 + 18.7 = 61.5, rounded as Pillow does
    ],
)
def test_a_crop_is_dilated_clipped_and_padded_to_a_black_square(
    box: tuple[float, ...], left: int, top: int, right: int, bottom: int
) -> None:
    picture = Image.new("RGB", (100, 90))
    picture.putdata([(1 + x, 1 + y, 255) for y in range(90) for x in range(100)])
    cut = crop(picture, f"7@{','.join(map(str, box))}")
    width, height = right - left, bottom - top
    side = max(width, height)
    assert cut.size == (side, side)
    x, y = (side - width) // 2, (side - height) // 2
    assert cut.getpixel((x, y)) == (1 + left, 1 + top, 255)
    assert cut.getpixel((x + width - 1, y + height - 1)) == (right, bottom, 255)
    assert cut.crop((x, y, x + width, y + height)).getextrema()[2] == (255, 255)
    assert sum(count for count, tone in cut.getcolors(side * side) or () if tone == (0, 0, 0)) == side * side - width * height


def test_a_box_outside_its_image_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"7@300,5,10,10: .* 100 × 90 pixels"):
        crop(Image.new("RGB", (100, 90)), "7@300,5,10,10")


def test_numbers_as_text_or_with_a_fraction_are_read(tmp_path: Path) -> None:
    tiny_genecis(tmp_path)

    def real_ones(records: Json) -> Json:
        records[0]["reference"] = {"image_id": "2373241", "instance_bbox": [0.0, 182.5, 500.16666666666663, 148.5]}
        records[0]["gallery"] = (records[0]["gallery"] * 2)[:14]
        return records

    change(tmp_path / "focus_attribute.json", real_ones)
    query = load_benchmark("genecis:focus_attribute", tmp_path).queries[0]
    assert query.reference == "2373241@0.0,182.5,500.16666666666663,148.5"
    assert len(query.candidates or ()) == 1 + 14


# What is wrong with a file


def drop(field: str) -> Callable[[Json], Json]:
    return lambda records: [records[0], {key: value for key, value in records[1].items() if key != field}]


def put(field: str, value: Json) -> Callable[[Json], Json]:
    return lambda records: [records[0], records[1] | {field: value}]


TINY: dict[str, Callable[[Path], None]] = {
    "cirr": tiny_cirr,
    "fashioniq:dress": tiny_fashioniq,
    "circo": tiny_circo,
    "genecis:focus_object": tiny_genecis,
    "genecis:focus_attribute": tiny_genecis,
}
CAP, SPLIT = "captions/cap.rc2.val.json", "image_splits/split.rc2.val.json"
WORN, ITEMS = "captions/cap.dress.val.json", "image_splits/split.dress.val.json"
VAL, INFO = "annotations/val.json", "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
OBJECT, ATTRIBUTE = "focus_object.json", "focus_attribute.json"
SIX = {"id": 1, "members": NAMES[:6]}


@pytest.mark.parametrize(
    ("name", "file", "edit", "message"),
    [
        ("cirr", CAP, drop("reference"), "record 2: there is no field 'reference', only pairid, target_hard"),
        ("cirr", CAP, put("caption", None), "record 2: 'caption' should be a text, not None"),
        ("cirr", CAP, put("pairid", True), "record 2: 'pairid' should be a whole number, not True"),
        ("cirr", CAP, put("pairid", 10), "'10' occurs twice"),
        ("cirr", CAP, put("target_hard", "dev-6"), "record 2: the target 'dev-6' is not among the members"),
        ("cirr", CAP, put("target_hard", "dev-0"), "record 2: the target 'dev-0' .* or is the reference"),
        ("cirr", CAP, put("img_set", SIX | {"members": NAMES[:5]}), "record 2: img_set should have 6 members"),
        ("cirr", CAP, put("img_set", SIX | {"members": NAMES[1:]}), "record 2: img_set should have 6 members, the reference"),
        ("cirr", CAP, put("img_set", SIX | {"members": [*NAMES[:5], 7]}), r"record 2, img_set: members\[5\] should be a text"),
        ("cirr", CAP, lambda records: [*records, 3], "record 3: should be an object, not 3"),
        ("cirr", CAP, lambda _: [], "expected a list of records, not an empty list"),
        ("cirr", CAP, lambda _: {"a": 1}, "expected a list of records, not an object"),
        ("cirr", SPLIT, lambda _: [], "expected an object, not an empty list"),
        ("cirr", SPLIT, lambda names: names | {"dev-3": 5}, "'dev-3' should be a text, not 5"),
        ("fashioniq:dress", WORN, drop("captions"), "record 2: there is no field 'captions'"),
        ("fashioniq:dress", WORN, put("captions", ["one"]), "record 2: expected two captions, got 1"),
        ("fashioniq:dress", WORN, put("target", "B0"), r"record 2: mentions 'B0', which is not in .*split\.dress\.val\.json"),
        ("fashioniq:dress", ITEMS, lambda names: [*names, names[2]], "'dev-2' occurs twice"),
        ("fashioniq:dress", ITEMS, lambda names: [*names, 8], "record 8: should be a text, not 8"),
        ("circo", VAL, put("gt_img_ids", [3, 2]), r"record 2: gt_img_ids should start with target_img_id, 2, .* is \[3, 2\]"),
        ("circo", VAL, put("gt_img_ids", [2, 3, 3]), "record 2: .* without duplicates"),
        ("circo", VAL, put("id", 0), "'0' occurs twice"),
        ("circo", VAL, put("semantic_aspects", ["mood"]), "record 2: unknown semantic aspect 'mood'; choose from: cardinality"),
        ("circo", VAL, put("reference_img_id", 99), "record 2: mentions '99'"),
        ("circo", INFO, lambda whole: {"images": [*whole["images"], {"id": 3}]}, "'3' occurs twice"),
        ("circo", INFO, lambda _: {"images": [{"id": 1}, {"name": 2}]}, r"images\[1\]: there is no field 'id', only name"),
        ("circo", INFO, lambda _: {"info": 1}, "there is no field 'images', only info"),
        (
            "genecis:focus_object",
            OBJECT,
            lambda r: [r[0] | {"gallery": r[0]["gallery"][1:]}],
            "record 1: expected 14 .* got 13",
        ),
        (
            "genecis:focus_object",
            OBJECT,
            lambda r: [r[0] | {"target": {}}],
            "record 1, target: there is no field 'val_image_id'",
        ),
        (
            "genecis:focus_attribute",
            ATTRIBUTE,
            lambda r: [r[0] | {"gallery": r[0]["gallery"][1:]}],
            "record 1: expected 9 or 14 distractors in the gallery, got 8",
        ),
        (
            "genecis:focus_attribute",
            ATTRIBUTE,
            lambda r: [r[0], r[0] | {"gallery": (r[0]["gallery"] * 2)[:14]}],
            "record 2: expected 9 distractors in the gallery, got 14",
        ),
        (
            "genecis:focus_attribute",
            ATTRIBUTE,
            lambda r: [r[0] | {"target": {"image_id": 7, "instance_bbox": [1, 2, 0, 4]}}],
            "record 1, target: instance_bbox should be left, top, width and height",
        ),
        (
            "genecis:focus_attribute",
            ATTRIBUTE,
            lambda r: [r[0] | {"target": {"image_id": 7, "instance_bbox": [1, 2, "3", 4]}}],
            r"record 1, target: instance_bbox\[2\] should be a number, not '3'",
        ),
    ],
)
def test_errors_name_the_file_and_the_record(
    tmp_path: Path, name: str, file: str, edit: Callable[[Json], Json], message: str
) -> None:
    TINY[name](tmp_path)
    load_benchmark(name, tmp_path)
    change(tmp_path / file, edit)
    assert_refused(name, tmp_path, None, rf"{re.escape(file)}.*{message}")


@pytest.mark.parametrize("name", TINY)
def test_errors_name_a_truncated_missing_or_binary_file(tmp_path: Path, name: str) -> None:
    TINY[name](tmp_path)
    file = {"cirr": CAP, "fashioniq:dress": ITEMS, "circo": INFO}.get(name, f"{name.partition(':')[2]}.json")
    whole = (tmp_path / file).read_text()
    (tmp_path / file).write_text(whole[: len(whole) // 2])
    assert_refused(name, tmp_path, None, rf"{re.escape(file)}, line 1, column \d+: not JSON")
    (tmp_path / file).write_text(
        whole.replace("{", "{\n", 1).replace(":", "=", 1) if "{" in whole else whole.replace(",", ";", 1)
    )
    assert_refused(name, tmp_path, None, rf"{re.escape(file)}, line \d, column \d+: not JSON")
    (tmp_path / file).write_bytes(b"[\xff]")
    assert_refused(name, tmp_path, None, rf"{re.escape(file)}: not UTF-8 text, at byte 1")
    (tmp_path / file).unlink()
    assert_refused(name, tmp_path, None, rf"there is no .*{re.escape(file)}.* in this folder")


def test_duplicate_keys_are_errors(tmp_path: Path) -> None:
    tiny_cirr(tmp_path)
    (tmp_path / SPLIT).write_text('{"dev-0": "./dev/dev-0.png", "dev-0": "./dev/dev-1.png"}')
    assert_refused("cirr", tmp_path, None, r"split\.rc2\.val\.json: 'dev-0' occurs twice")


def test_errors_name_a_line_that_is_not_a_number(tmp_path: Path) -> None:
    tiny_circo(tmp_path, "unlabeled2017_ids.txt")
    (tmp_path / "unlabeled2017_ids.txt").write_text("1\n2\nthree\n")
    assert_refused("circo", tmp_path, None, r"unlabeled2017_ids\.txt, line 3: expected the number of an image, not 'three'")


def test_targets_in_a_split_with_hidden_targets_are_detected(tmp_path: Path) -> None:
    tiny_cirr(tmp_path)
    shutil.copy(tmp_path / CAP, tmp_path / "captions/cap.rc2.test1.json")
    assert_refused(
        "cirr", tmp_path, "test1", r"cap\.rc2\.test1\.json, record 1: has 'target_hard', which is not public in this split"
    )


@pytest.mark.parametrize("name", ["cirr", "fashioniq:dress", "circo", "genecis:focus_object", "catalogue"])
def test_the_error_of_a_wrong_root_lists_the_expected_files(tmp_path: Path, name: str) -> None:
    looked_for = {
        "cirr": "cirr/captions/cap.rc2.val.json or captions/cap.rc2.val.json",
        "fashioniq:dress": "captions/cap.dress.val.json",
        "circo": "annotations/val.json",
        "genecis:focus_object": "focus_object.json or genecis/focus_object.json",
        "catalogue": "items.csv",
    }[name]
    assert_refused(name, tmp_path, None, f"there is no {re.escape(looked_for)}.* in this folder")
    assert_refused(
        name, tmp_path / "nowhere", None, f"nowhere: there is no such folder; expected one with {re.escape(looked_for)}"
    )


def test_the_error_of_an_unknown_name_lists_the_choices(tmp_path: Path) -> None:
    for name, split, message in (
        ("imagenet", None, "unknown benchmark 'imagenet'; choose from: cirr, fashioniq"),
        ("fashioniq", None, "fashioniq has parts: choose from fashioniq:dress, fashioniq:shirt"),
        ("cirr:hats", None, "cirr has no parts: write cirr"),
        ("fashioniq:hats", None, "unknown part of fashioniq 'hats'; choose from: dress, shirt, toptee"),
        ("cirr", "train", "unknown split of cirr 'train'; choose from: val, test1"),
    ):
        with pytest.raises(OptionError, match=message):
            load_benchmark(name, tmp_path, split)
    with pytest.raises(OptionError, match="cirr needs its folder: give --root FOLDER with captions/ and image_splits/"):
        load_benchmark("cirr")
    with pytest.raises(MMRetrieveError, match=r"there is no focus_attribute\.json or change_attribute\.json"):
        load_suite("genecis", tmp_path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text("id,file,article,colour\na,a.jpg,shirt,red\nb,b.jpg,shirt,blue\n")
    query = {"id": 0, "reference": "a", "prompt": "in blue", "caption": "a shirt", "attribute": "colour", "targets": ["b"]}
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(query | {"id": i}) + "\n" for i in range(2)))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("items.csv", "b,b.jpg", "a,b.jpg", "items.csv: 'a' occurs twice"),
        ("items.csv", "b,b.jpg,shirt,blue\n", "b,b.jpg", "items.csv, record 2: there is no article"),
        ("queries.jsonl", '"id": 1', '"id": 0', "queries.jsonl: '0' occurs twice"),
        ("queries.jsonl", '["b"]', '["c"]', "queries.jsonl, record 1: mentions 'c', which is not in .*items.csv"),
        ("queries.jsonl", '["b"]', '"b"', "queries.jsonl, line 1: 'targets' should be a list, not 'b'"),
        ("queries.jsonl", '{"id": 1', '{"id": ', "queries.jsonl, line 2: not JSON"),
        ("queries.jsonl", '{"id": 1', '[]\n{"id": 1', r"queries.jsonl, line 2: expected an object, not \[\]"),
    ],
)
def test_errors_in_a_catalogue_name_the_line(shop: Path, file: str, old: str, new: str, message: str) -> None:
    assert load_benchmark("catalogue", shop).queries[1].targets == ("b",)
    path = shop / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert_refused("catalogue", shop, None, message)
