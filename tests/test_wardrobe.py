"""The built-in world: the same on every machine, readable, and with nothing given away."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from mmretrieve.encoders.base import Encoder
from mmretrieve.options import BUILT_IN_MODEL
from mmretrieve.wardrobe import words
from mmretrieve.wardrobe.attributes import (
    Background,
    Colour,
    Detail,
    Garment,
    GarmentType,
    Light,
    Motif,
    Pattern,
    Pose,
    Trim,
    choices,
    garments,
    is_unseen,
    unseen,
)
from mmretrieve.wardrobe.draw import draw
from mmretrieve.wardrobe.train import (
    ALIKE,
    Chooser,
    Recipe,
    clip_loss,
    fresh_model,
    random_detail,
    seen_garments,
    sentence,
    shoots,
    train,
    view_loss,
)
from mmretrieve.wardrobe.train import SHOOTS as SHOOTS_DRAWN
from mmretrieve.wardrobe.world import LINES, SHOOTS, drawings, queries

BY_ID = {drawing.id: drawing for drawing in drawings()}


def test_there_is_enough_to_draw() -> None:
    sizes = [len(kinds) for kinds in (GarmentType, Colour, Pattern, Motif, Trim, Pose, Background, Light)]
    assert sizes == [11, 14, 6, 12, 6, 4, 8, 4]
    assert len(list(garments())) == len(set(garments())) == 9996


def test_a_drawing_is_the_same_every_time_and_shows_its_attributes() -> None:
    drawing = drawings()[0]
    picture = draw(drawing.garment, drawing.detail, seed=1, size=64)
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert picture.tobytes() == draw(drawing.garment, drawing.detail, seed=1, size=64).tobytes()
    others = [draw(drawing.garment, drawing.detail, seed=2, size=64)]
    for name, values in choices(drawing.garment.kind).items():
        other = next(value for value in values if value != getattr(drawing.garment, name))
        others.append(draw(drawing.garment.changed(**{name: other}), drawing.detail, seed=1, size=64))
    for name in ("motif", "trim", "pose", "background", "light"):
        values = list(type(getattr(drawing.detail, name)))
        other = next(value for value in values if value != getattr(drawing.detail, name))
        others.append(draw(drawing.garment, Detail(**{**drawing.detail.__dict__, name: other}), seed=1, size=64))
    differing = [(np.asarray(picture) != np.asarray(other)).mean() for other in others]
    assert min(differing) > 0.01


def test_every_kind_can_be_drawn_in_every_detail() -> None:
    random = Random(3)
    every = list(garments())
    for _ in range(150):
        assert draw(random.choice(every), random_detail(random), seed=0, size=32).size == (32, 32)


def test_a_fifth_of_the_combinations_is_never_trained_on() -> None:
    assert len(unseen()) == len(GarmentType) * len(Colour) * len(Pattern) // 5
    assert not [garment for garment in seen_garments(0) if is_unseen(garment)]
    assert {garment.kind for garment in garments() if is_unseen(garment)} == set(GarmentType)


def test_words_say_the_garment_and_never_its_detail() -> None:
    random = Random(0)
    hidden = {str(value) for values in (Motif, Pose, Background) for value in values} - {"arch", "room", "flat", "ring", "plus"}
    for garment in Random(1).sample(list(garments()), 200):
        said = [words.describe(garment, random), words.caption(garment), sentence(garment, random)]
        assert not any(word in hidden for text in said for word in text.replace(",", " ").split())
        assert any(noun in said[0] for noun in words.NOUNS[garment.kind])
        assert str(garment.colour) in said[1]


def test_caption_and_change_by_example() -> None:
    garment = Garment(
        GarmentType.DRESS,
        Colour.ORANGE,
        Pattern.STRIPED,
        *(choices(GarmentType.DRESS)[n][0] for n in ("sleeves", "length", "neckline")),
    )
    assert words.caption(garment) == "a photo of an orange striped short dress without sleeves with a round neck"
    assert words.caption(garment, leave_out={"length", "neckline", "sleeves"}) == "a photo of an orange striped dress"
    asked = {words.change(garment, ["colour"], Random(i)) for i in range(60)}
    assert {"in orange", "make it in orange", "the same but orange"} <= asked
    assert words.differences(garment, garment.changed(colour=Colour.RED, pattern=Pattern.PLAIN)) == ["colour", "pattern"]
    assert words.with_article("blue trousers") == "blue trousers"
    assert words.with_article("blue pair of trousers") == "a blue pair of trousers"


def test_the_world_is_fixed_and_has_held_out_combinations() -> None:
    assert len(drawings()) == len(BY_ID) == 2000
    assert len({drawing.detail for drawing in drawings()}) == LINES * SHOOTS
    assert 200 < sum(is_unseen(drawing.garment) for drawing in drawings()) < 600


def test_every_target_has_what_was_asked_for_and_the_detail_of_the_reference() -> None:
    assert len(queries()) == 500
    for query in queries():
        reference, targets = BY_ID[query.reference], [BY_ID[id_] for id_ in query.targets]
        assert query.reference not in query.targets
        assert {target.detail for target in targets} == {reference.detail}
        (garment,) = {target.garment for target in targets}
        assert tuple(words.differences(reference.garment, garment)) == query.changed
        assert len(query.changed) in (1, 2)
        every = [d.id for d in drawings() if d.detail == reference.detail and d.garment == garment]
        assert sorted(every) == sorted(query.targets)


def test_words_alone_are_not_enough() -> None:
    """For nearly every query, drawings of the asked-for garment exist that are not targets."""
    others = [sum(d.garment == BY_ID[q.targets[0]].garment for d in drawings()) - len(q.targets) for q in queries()]
    assert np.mean(np.array(others) >= 3) > 0.95


def test_the_shipped_model_is_small_and_its_vocabulary_is_the_words() -> None:
    from mmretrieve.language.vocabulary import Vocabulary

    assert sum(file.stat().st_size for file in BUILT_IN_MODEL.iterdir()) <= 16_000_000
    assert Vocabulary.read(BUILT_IN_MODEL / "vocabulary.json") == words.vocabulary()


def test_the_model_has_learned_its_world(encoder: Encoder) -> None:
    random = Random(11)
    sample = random.sample([garment for garment in garments() if is_unseen(garment)], 60)
    pictures = encoder.encode_images([draw(garment, random_detail(random), seed=0) for garment in sample])
    scores = encoder.encode_texts([words.caption(garment) for garment in sample]) @ pictures.T
    assert (scores.argmax(axis=1) == np.arange(60)).mean() > 0.6


def test_losses_by_hand() -> None:
    eye = torch.eye(4)
    ids = torch.tensor([0, 0, 1, 2])
    one_hot = -torch.log_softmax(eye[0], 0)[0]
    pair = -(torch.log_softmax(eye[0], 0)[:2]).mean()
    assert clip_loss(eye, eye, ids, torch.tensor(1.0)).item() == pytest.approx(((2 * pair + 2 * one_hot) / 4).item())
    assert view_loss(eye, eye, 1.0).item() == pytest.approx(one_hot.item())


def test_training_runs_lowers_its_loss_and_repeats_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    wearers = seen_garments(0)[:12]
    pictures = torch.from_numpy(np.stack([shoots(garment) for garment in wearers])).permute(0, 1, 4, 2, 3)
    recipe = Recipe(steps=16, garments=6, shoots=2, looks=None, learning_rate=1.5e-3, warmup=2, second_views=6)
    for name in ("a", "b"):
        train(fresh_model(0), recipe, pictures, wearers, tmp_path / name, report_every=4)
    lines = [line for line in caplog.messages if line.startswith("step")]
    losses = [float(line.split("clip ")[1].split()[0]) for line in lines[:4]]
    assert losses[-1] < losses[0]
    assert [line.rsplit("  ", 1)[0] for line in lines[:4]] == [line.rsplit("  ", 1)[0] for line in lines[4:]]


def test_the_second_stage_compares_garments_of_one_look() -> None:
    wearers = seen_garments(0)
    chosen, which = Chooser(wearers, ALIKE, torch.Generator().manual_seed(0))()
    assert len(chosen) == len(which) == ALIKE.garments * ALIKE.shoots
    assert len({(wearers[i].colour, wearers[i].pattern) for i in chosen.tolist()}) <= (ALIKE.looks or 0)
    assert which.max() < SHOOTS_DRAWN
    assert (which.view(-1, 2)[:, 0] != which.view(-1, 2)[:, 1]).all()
