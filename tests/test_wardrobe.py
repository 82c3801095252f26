"""The wardrobe: the same drawings and queries on every machine, readable attributes, and targets that need image and prompt."""

from __future__ import annotations

import doctest
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from mmretrieve import wardrobe
from mmretrieve.encoders.base import Encoder
from mmretrieve.errors import MMRetrieveError
from mmretrieve.options import BUILT_IN_MODEL
from mmretrieve.wardrobe import captions, gallery
from mmretrieve.wardrobe.attributes import (
    Background,
    Colour,
    Detail,
    Garment,
    Kind,
    Motif,
    Pattern,
    Pose,
    choices,
    garments,
    is_unseen,
    random_detail,
)
from mmretrieve.wardrobe.dataset import DETAILS, drawings, queries
from mmretrieve.wardrobe.draw import draw
from mmretrieve.wardrobe.train import (
    SECOND_STAGE,
    BatchSampler,
    TrainingStage,
    clip_loss,
    draw_shoots,
    new_model,
    seen_garments,
    train,
    training_caption,
    view_loss,
)

BY_ID = {drawing.id: drawing for drawing in drawings()}
NAMES = [field.name for field in fields(Garment)]


def test_an_existing_gallery_is_opened_without_the_drawing_code() -> None:
    code = "import sys, mmretrieve; mmretrieve.wardrobe.gallery_folder(); print('mmretrieve.wardrobe.draw' in sys.modules)"
    gallery.gallery_folder()
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_garment_has_every_combination_of_the_attributes_of_its_kind_and_no_others() -> None:
    every = list(garments())
    assert len(every) == len(set(every))
    for kind in Kind:
        groups = choices(kind)
        of_kind = [garment for garment in every if garment.kind is kind]
        assert len(of_kind) == np.prod([len(values) for values in groups.values()])
        for name in NAMES[1:]:
            assert {getattr(garment, name) for garment in of_kind} == set(groups.get(name, [None]))


def variants() -> Iterator[tuple[str, list[tuple[Garment, Detail]]]]:
    """For every attribute, drawings that differ in it alone, one for each of its values."""
    detail = replace(drawings()[0].detail, pose=Pose.FLAT, background=Background.CREAM)
    for kind in Kind:
        groups = choices(kind)
        plainest: dict[str, StrEnum | None] = {name: groups[name][0] if name in groups else None for name in NAMES[1:]}
        garment = Garment(kind, **plainest)  # type: ignore[arg-type]
        for name, values in groups.items():
            yield f"{kind} {name}", [(garment.changed(**{name: value}), detail) for value in values]
    shirts = [garment for garment in garments() if garment.colour is Colour.BLUE and garment.pattern is Pattern.PLAIN]
    first_of_kind = [next(garment for garment in shirts if garment.kind is kind) for kind in Kind]
    yield "kind", [(garment, detail) for garment in first_of_kind]
    for name, values in DETAILS.items():
        yield name, [(first_of_kind[0], replace(detail, **{name: value})) for value in values]


@pytest.mark.parametrize(("attribute", "pairs"), list(variants()))
def test_every_value_of_every_attribute_can_be_seen(attribute: str, pairs: list[tuple[Garment, Detail]]) -> None:
    images = [np.asarray(draw(garment, detail, seed=1, size=64), np.int16) for garment, detail in pairs]
    differing = {(i, j): (np.abs(images[i] - images[j]) > 8).mean() for i, j in combinations(range(len(images)), 2)}
    assert min(differing.values()) > 0.002, f"{attribute}: {min(differing, key=differing.__getitem__)}"


def test_a_drawing_is_the_same_every_time_and_its_seed_moves_it_a_little() -> None:
    drawing = drawings()[0]
    image = draw(drawing.garment, drawing.detail, seed=1, size=64)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    assert image.tobytes() == draw(drawing.garment, drawing.detail, seed=1, size=64).tobytes()
    other = draw(drawing.garment, drawing.detail, seed=2, size=64)
    assert (np.asarray(image) != np.asarray(other)).mean() > 0.01


BRIGHTNESS = [
    [226.0, 210.3, 203.7, 226.0],
    [227.0, 175.7, 154.3, 227.0],
    [227.0, 172.7, 163.7, 227.0],
    [226.0, 211.0, 207.7, 226.0],
]  # of the first drawing, in 4 × 4 fields


def test_drawings_are_those_that_the_results_were_measured_on() -> None:
    """The text of a garment, class names included, seeds its drawing: a renamed class would draw another gallery."""
    first = drawings()[0]
    text = "Garment(kind=<Kind.SHIRT: 'shirt'>, colour=<Colour.PINK: 'pink'>, pattern=<Pattern.CHECKED: 'checked'>, "
    assert str(first.garment) == f"{text}sleeves=<Sleeves.NONE: 'no sleeves'>, length=None, neckline=None)"
    text = "Detail(motif=<Motif.HEART: 'heart'>, trim=<Trim.NONE: 'none'>, pose=<Pose.HANGER: 'hanger'>, "
    assert str(first.detail) == f"{text}background=<Background.SPECKS: 'specks'>, light=<Light.SOFT: 'soft'>)"
    image = draw(first.garment, first.detail, seed=first.seed).resize((4, 4), Image.Resampling.BOX)
    np.testing.assert_allclose(np.asarray(image).mean(axis=2), BRIGHTNESS, atol=0.5)


def test_every_kind_can_be_drawn_in_every_detail() -> None:
    random = Random(3)
    every = list(garments())
    for _ in range(150):
        assert draw(random.choice(every), random_detail(random), seed=0, size=32).size == (32, 32)


def test_held_out_combinations_are_new_only_as_combinations() -> None:
    """The model has seen every kind, color and pattern of a held-out garment, and each pair of them, but not all three together."""
    seen = seen_garments(0)
    unseen = [garment for garment in garments() if is_unseen(garment)]
    assert len(unseen) / (len(seen) + len(unseen)) == pytest.approx(0.2, abs=0.03)
    assert set(seen) | set(unseen) == set(garments())
    assert not {(g.kind, g.colour, g.pattern) for g in seen} & {(g.kind, g.colour, g.pattern) for g in unseen}
    for names in combinations(("kind", "colour", "pattern"), 2):
        pairs = [{tuple(getattr(g, name) for name in names) for g in some} for some in (seen, unseen)]
        assert pairs[1] <= pairs[0]
    training = {caption for caption in captions.training_captions(2000) if caption.startswith("a photo of")}
    assert not training & {captions.caption(garment) for garment in unseen}


def test_texts_mention_the_garment_and_never_its_detail() -> None:
    random = Random(0)
    hidden = {str(value) for values in (Motif, Pose, Background) for value in values} - {"arch", "room", "flat", "ring", "plus"}
    for garment in Random(1).sample(list(garments()), 200):
        texts = [captions.varied_caption(garment, random), captions.caption(garment), training_caption(garment, random)]
        assert not any(word in hidden for text in texts for word in text.replace(",", " ").split())
        assert any(noun in texts[0] for noun in captions.NOUNS[garment.kind])
        assert str(garment.colour) in texts[1]


def test_captions_and_prompts_by_example() -> None:
    garment = Garment(
        Kind.DRESS,
        Colour.ORANGE,
        Pattern.STRIPED,
        *(choices(Kind.DRESS)[n][0] for n in ("sleeves", "length", "neckline")),  # type: ignore[arg-type]
    )
    assert captions.caption(garment) == "a photo of an orange striped short dress without sleeves with a round neck"
    assert captions.caption(garment, omit={"length", "neckline", "sleeves"}) == "a photo of an orange striped dress"
    prompts = {captions.change_prompt(garment, ["colour"], Random(i)) for i in range(60)}
    assert {"in orange", "make it in orange", "the same but orange"} <= prompts
    other = garment.changed(colour=Colour.RED, pattern=Pattern.PLAIN)
    assert captions.differences(garment, other) == ["colour", "pattern"]
    assert captions.with_article("blue pair of trousers") == "a blue pair of trousers"
    assert doctest.testmod(captions).failed == 0


def test_the_data_set_is_the_same_on_every_machine() -> None:
    assert len(drawings()) == len(BY_ID) == 2000
    assert [drawings()[i].id for i in (0, 9, -1)] == [
        "pink-checked-shirt-0000.png",
        "white-striped-shirt-0009.png",
        "beige-zigzag-top-1999.png",
    ]
    assert len(queries()) == 500
    assert [(q.id, q.reference, q.prompt, len(q.targets)) for q in (queries()[0], queries()[9], queries()[-1])] == [
        ("000", "orange-striped-hoodie-0921.png", "short-sleeved", 2),
        ("009", "white-checked-sweater-1332.png", "in brown please", 2),
        ("499", "pink-striped-skirt-0671.png", "polka dot instead", 2),
    ]
    assert 0.1 < np.mean([is_unseen(drawing.garment) for drawing in drawings()]) < 0.3


def test_every_target_has_the_requested_attributes_and_the_detail_of_the_reference() -> None:
    for query in queries():
        reference, targets = BY_ID[query.reference], [BY_ID[id_] for id_ in query.targets]
        assert query.reference not in query.targets
        assert {target.detail for target in targets} == {reference.detail}
        (garment,) = {target.garment for target in targets}
        assert tuple(captions.differences(reference.garment, garment)) == query.changed
        assert len(query.changed) in (1, 2)
        every = [d.id for d in drawings() if d.detail == reference.detail and d.garment == garment]
        assert sorted(every) == sorted(query.targets)


def test_neither_the_prompt_nor_the_image_is_sufficient() -> None:
    """For nearly every query, other drawings show the requested garment, and others the detail of the reference."""
    same_garment, same_detail = [], []
    for query in queries():
        target = BY_ID[query.targets[0]]
        same_garment.append(sum(d.garment == target.garment for d in drawings()) - len(query.targets))
        same_detail.append(sum(d.detail == target.detail for d in drawings()) - len(query.targets) - 1)
    assert np.mean(np.array(same_garment) >= 3) > 0.95
    assert min(same_detail) >= 3


def test_every_process_draws_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.draw_share(str(tmp_path), "500", "1")
    assert sorted(os.listdir(tmp_path)) == sorted(drawing.id for drawing in drawings()[1::500])
    drawing = drawings()[1]
    expected = io.BytesIO()
    draw(drawing.garment, drawing.detail, seed=drawing.seed).save(expected, "PNG", compress_level=3)
    assert (tmp_path / drawing.id).read_bytes() == expected.getvalue()
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(MMRetrieveError, match="could not be made; see the messages above"):
        gallery.draw_images(tmp_path / "other", processes=2)


def test_the_cache_folder_can_be_named_and_else_is_that_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MMRETRIEVE_CACHE", str(tmp_path / "here"))
    assert wardrobe.cache_folder() == tmp_path / "here"
    monkeypatch.delenv("MMRETRIEVE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert wardrobe.cache_folder() == tmp_path / "cache" / "mmretrieve"


def test_the_shipped_model_is_small_and_its_vocabulary_is_that_of_the_captions() -> None:
    from mmretrieve.language.vocabulary import Vocabulary

    assert sum(file.stat().st_size for file in BUILT_IN_MODEL.iterdir()) <= 16_000_000
    assert Vocabulary.read(BUILT_IN_MODEL / "vocabulary.json") == captions.vocabulary()


def test_the_model_recognizes_held_out_garments(encoder: Encoder) -> None:
    random = Random(11)
    sample = random.sample([garment for garment in garments() if is_unseen(garment)], 60)
    images = encoder.encode_images([draw(garment, random_detail(random), seed=0) for garment in sample])
    scores = encoder.encode_texts([captions.caption(garment) for garment in sample]) @ images.T
    assert (scores.argmax(axis=1) == np.arange(60)).mean() > 0.6


def test_losses_by_hand() -> None:
    eye = torch.eye(4)
    ids = torch.tensor([0, 0, 1, 2])
    one_hot = -torch.log_softmax(eye[0], 0)[0]
    pair = -(torch.log_softmax(eye[0], 0)[:2]).mean()
    assert clip_loss(eye, eye, ids, torch.tensor(1.0)).item() == pytest.approx(((2 * pair + 2 * one_hot) / 4).item())
    assert view_loss(eye, eye, 1.0).item() == pytest.approx(one_hot.item())


def test_training_lowers_its_loss_and_repeats_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    subjects = seen_garments(0)[:12]
    images = torch.from_numpy(np.stack([draw_shoots(garment) for garment in subjects])).permute(0, 1, 4, 2, 3)
    stage = TrainingStage(steps=16, garments=6, shoots=2, looks=None, learning_rate=1.5e-3, warmup=2, second_views=6)
    for name in ("a", "b"):
        train(new_model(0), stage, images, subjects, tmp_path / name, report_every=4)
    lines = [line for line in caplog.messages if line.startswith("step")]
    losses = [float(line.split("clip ")[1].split()[0]) for line in lines[:4]]
    assert losses[-1] < losses[0]
    assert [line.rsplit("  ", 1)[0] for line in lines[:4]] == [line.rsplit("  ", 1)[0] for line in lines[4:]]


def test_the_second_stage_compares_garments_of_a_few_looks() -> None:
    subjects = seen_garments(0)
    chosen, shoots = BatchSampler(subjects, SECOND_STAGE, torch.Generator().manual_seed(0))()
    assert len(chosen) == len(shoots) == SECOND_STAGE.garments * SECOND_STAGE.shoots
    assert len({(subjects[i].colour, subjects[i].pattern) for i in chosen.tolist()}) <= (SECOND_STAGE.looks or 0)
    assert shoots.max() < len(draw_shoots(subjects[0]))
    assert (shoots.view(-1, 2)[:, 0] != shoots.view(-1, 2)[:, 1]).all()
