"""The facade: defaults, knobs, references, and the promise that sliders and a fresh search agree."""

from __future__ import annotations

import copy
import csv
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmretrieve as mm
from mmretrieve.encoders.base import DtypeWarning
from mmretrieve.errors import GalleryError, ImageError, OptionError
from mmretrieve.gallery.view import SearchOptions
from mmretrieve.options import BUILT_IN_MODEL


@pytest.fixture
def picture(photos: Path) -> Path:
    return sorted(photos.rglob("*.png"))[3]


def test_search_by_default_weighs_the_picture_and_the_words(retriever: mm.Retriever, picture: Path) -> None:
    ranking = retriever.search(picture, "in red")
    assert all(ranking.weights[term] > 0 for term in ("image", "composed", "prompt"))
    assert len(ranking) == 10
    assert [hit.rank for hit in ranking] == list(range(1, 11))
    assert ranking == retriever.search(picture, "in red", weights="auto")
    assert str(ranking.why).startswith("automatic: ")


def test_base_weights_are_the_method_alone(made: Path, encoder: mm.Encoder, picture: Path) -> None:
    retriever = mm.Retriever.open(made, encoder=encoder, parts=mm.Parts(rewriter="template"))
    ranking = retriever.search(picture, "in red", weights="base")
    assert ranking.weights == {"image": 0, "text": 0, "composed": 1, "prompt": 0}
    assert ranking.words["composed"] == f"{ranking.words['text']}, in red"
    assert ranking == retriever.search(picture, "in red", beta=1, alpha_text=1)


def test_ranking_is_that_of_the_pdv_vector(retriever: mm.Retriever, picture: Path) -> None:
    knobs = {"alpha_image": 1.4, "alpha_text": 1.2, "beta": 0.75}
    terms = retriever.compose(picture, "in red")
    query = mm.pdv(*(terms[name][None] for name in ("image", "text", "composed")), **knobs)[0]
    order = np.argsort(-(retriever.gallery.vectors() @ query), kind="stable")
    found = retriever.search(picture, "in red", k=60, **knobs)
    assert found.ids == tuple(retriever.gallery.ids[i] for i in order)


@pytest.mark.parametrize(
    "knobs", [{}, {"beta": 0.0}, {"beta": 0.3, "alpha_image": 2.0}, {"alpha_text": -0.5}, {"alpha_image": "auto", "beta": 0.5}]
)
def test_folded_scores_equal_a_fresh_search(retriever: mm.Retriever, picture: Path, knobs: dict[str, float]) -> None:
    composition = retriever.compose(picture, "with long sleeves")
    scores = retriever.gallery.term_scores(composition)
    ranking = retriever.gallery.rank(retriever.weigh(composition, **knobs), scores, SearchOptions(20))
    found = retriever.search(picture, "with long sleeves", k=20, **knobs)
    assert retriever.with_answerable([ranking], [composition]) == [found]


def test_image_alone_and_prompt_alone(retriever: mm.Retriever, picture: Path, photos: Path) -> None:
    assert retriever.search(picture)[0].id == picture.relative_to(photos).as_posix()
    assert retriever.search(prompt="a dress", weights="base").weights == {"prompt": 1}
    for wrong in ({}, {"prompt": ""}, {"image": picture, "prompt": " "}):
        with pytest.raises(OptionError):
            retriever.search(**wrong)


def test_a_reference_in_memory(retriever: mm.Retriever, picture: Path) -> None:
    expected = retriever.search(picture, "in red", weights={"composed": 1}, caption="a dress").ids
    for image in (picture.read_bytes(), np.asarray(Image.open(picture).convert("RGB")), Image.open(picture)):
        assert retriever.search(image, "in red", weights={"composed": 1}, caption="a dress").ids == expected
        assert retriever.search(image).ids == retriever.search(picture).ids


def test_a_file_is_encoded_once_for_each_content(
    made: Path, picture: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = mm.load_encoder("wardrobe", dtype="float32")
    retriever, calls, encode = mm.Retriever.open(made, encoder=encoder), [], encoder.encode_images
    monkeypatch.setattr(encoder, "encode_images", lambda images: calls.append(1) or encode(images))
    file = shutil.copy(picture, tmp_path / "a.png")
    first = retriever.search(file, "in red")
    shutil.copy(picture, tmp_path / "b.png")
    assert retriever.search(file, "in red") == first
    assert retriever.search_many([{"image": tmp_path / "b.png", "prompt": "in red"}])[0].ids == first.ids
    assert len(calls) == 1
    shutil.copy(sorted(photos.rglob("*.png"))[9], file)  # another content under the same name
    assert retriever.search(file, "in red").ids != first.ids
    assert len(calls) == 2
    retriever.search(file, "in red", region=(0, 0, 0.5, 0.5))
    assert len(calls) == 3
    file.write_bytes(b"no image")
    with pytest.raises(ImageError, match="not an image that can be read"):
        retriever.search(file, "in red")


def test_a_retriever_can_be_sent_to_another_process(made: Path, picture: Path) -> None:
    retriever = mm.Retriever.open(made)
    ranking = retriever.search(picture, "in red")
    assert pickle.loads(pickle.dumps(retriever)).search(picture, "in red") == ranking
    assert copy.deepcopy(retriever).search(picture, "in red") == ranking


def test_a_reference_from_the_gallery(retriever: mm.Retriever, picture: Path, photos: Path) -> None:
    id_ = picture.relative_to(photos).as_posix()
    assert retriever.search(reference_id=id_, k=1).ids == (id_,)
    assert id_ not in retriever.search(reference_id=id_, k=60, exclude=[id_]).ids
    with pytest.raises(GalleryError, match="no item 'nothing'"):
        retriever.search(reference_id="nothing")


def test_the_reference_can_be_left_out(retriever: mm.Retriever, picture: Path, photos: Path) -> None:
    id_ = picture.relative_to(photos).as_posix()
    for reference in ({"image": picture}, {"reference_id": id_}):
        whole = retriever.search(**reference, prompt="in red", k=60)
        others = retriever.search(**reference, prompt="in red", k=60, exclude_reference=True)
        assert id_ in whole.ids
        assert others.ids == tuple(other for other in whole.ids if other != id_)


def test_a_caption_that_nothing_would_use_is_refused(retriever: mm.Retriever, picture: Path) -> None:
    for query in ({"image": picture}, {"prompt": "a dress"}, {"image": picture, "prompt": "in red", "composer": "sum"}):
        with pytest.raises(OptionError, match="a caption needs a composer that reads captions"):
            retriever.search(**query, caption="a blue dress")
    assert retriever.search(picture, "in red", caption=" a  blue dress").words["text"] == " a  blue dress"


def test_knobs_need_terms_and_ranges(retriever: mm.Retriever, picture: Path) -> None:
    with pytest.raises(OptionError, match="PDV weighs image, text and composed"):
        retriever.search(picture, "in red", composer="sum", beta=0.5)
    for knobs in ({"beta": 1.5}, {"beta": float("nan")}, {"alpha_image": float("inf")}, {"alpha_text": "much"}):
        with pytest.raises(OptionError, match=next(iter(knobs))):
            retriever.search(picture, "in red", **knobs)
    with pytest.raises(OptionError, match="k must be"):
        retriever.search(picture, "in red", k=0)
    with pytest.raises(OptionError, match="choose from"):
        retriever.search(picture, "in red", composer="magic")


def test_a_gallery_may_name_its_setting(tmp_path: Path, encoder: mm.Encoder, photos: Path, picture: Path) -> None:
    setting = mm.PDV(alpha_image=1.4, alpha_text=1.2, beta=0.75)
    mm.Gallery.create(tmp_path / "g", encoder=encoder, setting=setting).add(photos / "summer")
    retriever = mm.Retriever.open(tmp_path / "g", encoder=encoder)
    assert retriever.gallery.setting == setting
    assert tuple(retriever.search(picture, "in red", beta=0.75).weights.values())[:3] == setting.weights
    assert retriever.search(picture, "in red", beta=1, alpha_text=1).weights["composed"] == 1
    assert retriever.search(picture, "in red", weights="base").weights["composed"] == 1
    assert retriever.search(picture, weights="base").weights == {"image": 1}


def test_open_finds_its_encoder_and_refuses_another(made: Path, picture: Path) -> None:
    assert mm.Retriever.open(made).search(picture, k=1, weights="base")[0].score == pytest.approx(1, abs=0.01)

    class Other:
        identity = mm.EncoderIdentity("other", "00", "none")
        dim = 128

    with pytest.raises(GalleryError, match=r"made by wardrobe, not by other.*; use the encoder that made it"):
        mm.Retriever.open(made, encoder=Other())


def test_a_moved_encoder_folder_still_fits(tmp_path: Path, photos: Path, picture: Path) -> None:
    folder = (tmp_path / "model").resolve()
    folder.mkdir()
    for file in BUILT_IN_MODEL.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    mm.Gallery.create(tmp_path / "g", encoder=mm.load_encoder(folder)).add(photos / "summer")
    folder.rename(tmp_path / "moved")
    with pytest.raises(mm.MMRetrieveError, match="model"):
        mm.Retriever.open(tmp_path / "g")
    assert len(mm.Retriever.open(tmp_path / "g", encoder=mm.load_encoder(tmp_path / "moved")).search(picture)) == 10


def test_a_gallery_reopens_with_the_preprocessing_that_made_it(encoder: mm.Encoder, picture: Path, tmp_path: Path) -> None:
    wide = tmp_path / "pictures" / "wide.png"
    wide.parent.mkdir()
    with Image.open(picture) as square:
        square.resize((200, 80)).save(wide)
    padded = mm.load_encoder("wardrobe", device="cpu", dtype="float32", preprocessing="targetpad")
    gallery = mm.Gallery.create(tmp_path / "padded.gallery", encoder=padded)
    gallery.add(wide.parent)
    reopened = mm.Retriever.open(tmp_path / "padded.gallery", device="cpu", dtype="float32")
    assert reopened.encoder.identity == padded.identity
    again = reopened.encoder.encode_images([wide])
    np.testing.assert_allclose(again, padded.encode_images([wide]), atol=1e-6)
    assert reopened.search(wide, k=1, weights="base")[0].score == pytest.approx(1, abs=1e-5)
    with pytest.raises(GalleryError, match="target_pad"):
        mm.Retriever.open(tmp_path / "padded.gallery", encoder=encoder)


@pytest.mark.shared_data
def test_real_photos_in_red(catalogue: Path, tmp_path: Path) -> None:
    """Black shoes, "in red", among real photos: red shoes come, at least five times more often than by chance, and PDV brings more."""
    with (catalogue / "items.csv").open() as file:
        items = {row["file"].removeprefix("images/"): row for row in csv.DictReader(file)}
    shoes = {name for name, row in items.items() if "shoe" in row["article"]}
    (tmp_path / "photos").mkdir()
    for name in shoes | set(sorted(items)[::8]):
        (tmp_path / "photos" / name).symlink_to(catalogue / "images" / name)
    encoder = mm.load_encoder(catalogue / "model")
    mm.Gallery.create(tmp_path / "g", encoder=encoder).add(tmp_path / "photos")
    retriever = mm.Retriever.open(tmp_path / "g", encoder=encoder)
    black = sorted(name for name in shoes if items[name]["colour"] == "black")[:30]
    red = {name for name in shoes if items[name]["colour"] == "red"}

    def share(**knobs: Any) -> float:
        rankings = [
            retriever.search(
                reference_id=name,
                prompt="in red",
                caption=f"a photo of a black {items[name]['article']}",
                exclude=[name],
                **knobs,
            )
            for name in black
        ]
        return sum(id_ in red for ranking in rankings for id_ in ranking.ids) / (10 * len(black))

    chance = len(red) / len(shoes)
    pdv = share(alpha_image=1.4, alpha_text=1.2, beta=0.75)
    assert pdv > 5 * chance
    assert pdv > share(weights="base")
    assert share() > 5 * chance


def test_the_gallery_of_a_retriever_adds_images(tmp_path: Path, made: Path, encoder: mm.Encoder, photos: Path) -> None:
    shutil.copytree(made, tmp_path / "g")
    retriever = mm.Retriever.open(tmp_path / "g", encoder=encoder)
    retriever.gallery.delete([retriever.gallery.ids[0]])
    assert retriever.gallery.add(photos).added == 1


def test_a_retriever_keeps_the_encoder_that_its_gallery_was_opened_with(made: Path, encoder: mm.Encoder) -> None:
    gallery = mm.Gallery.open(made, encoder=encoder)
    with pytest.warns(DtypeWarning, match="computed in float32, and this encoder computes in bfloat16"):
        mm.Retriever(gallery, mm.load_encoder("wardrobe", dtype="bfloat16"))
    assert gallery._encoder is encoder
