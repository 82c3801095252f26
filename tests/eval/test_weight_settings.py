"""Weight settings of the command line: numbers, names, the file of a sweep; and the numbers of the paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmretrieve as mm
from eval.benchmarks.base import BenchmarkQuery
from eval.runs.compositions import MethodConfig, PromptOrder
from eval.runs.weight_settings import WeightSetting, check_takes_pdv, make_weight_setting, published_name
from mmretrieve import PUBLISHED, ComposerName, Composition
from mmretrieve.directions import plane_weights
from mmretrieve.errors import OptionError
from mmretrieve.rules import Product
from mmretrieve.vectors import unit
from mmretrieve.weighting import Spread, automatic_weights, balanced_weights

TERMS = unit(np.random.default_rng(1).normal(size=(4, 6)))
QUERY = Composition(("image", "text", "composed", "prompt"), TERMS, (0, 0, 1, 0))
SPREAD = Spread.of(unit(np.random.default_rng(2).normal(size=(30, 6))))
SMALL, LARGE, GIANT = "ViT-B-32/laion2b_s34b_b79k", "ViT-L-14/openai", "ViT-bigG-14/laion2b_s39b_b160k"
SWEEP: dict[str, Any] = {
    "kind": "sweep",
    "name": "a",
    "benchmark": "cirr",
    "split": "val",
    "label": "captions",
    "composer": "captions",
    "metric": "recall@1",
    "queries": 1,
    "betas": [1.0],
    "gammas": [1.0],
    "plane": {},
    "tuning": {"tuned on": "all queries", "reported on": "all queries"},
    "parts": {},
    "remarks": [],
    "options": {},
    "encoder": {"model": "wardrobe", "weights": "0", "preprocessing": "plain"},
    "provenance": {},
}
"""The record of a sweep but for its points."""


def make_setting(
    pdv: str | None = None,
    weights: dict[str, float] | str | None = None,
    *,
    composer: ComposerName = ComposerName.CAPTIONS,
    benchmark: str = "cirr",
    model: str = SMALL,
) -> WeightSetting:
    return make_weight_setting(pdv, weights, composer=composer, benchmark=benchmark, model=model)


def weights_of(result: WeightSetting) -> tuple[float, ...]:
    return result.weigh(QUERY, SPREAD).weights


def test_the_default_is_the_composers_own_weights() -> None:
    result = make_setting()
    assert result.label == "base"
    assert result.weigh(QUERY, SPREAD) is QUERY


def test_three_numbers() -> None:
    result = make_setting("1.4,1.2,0.75")
    assert result.label == "PDV-F 1.4/1.2/0.75"
    gamma = 0.25 * 1.4 + 0.75 * 1.2
    assert weights_of(result) == pytest.approx((0.25, 0.75 - gamma, gamma, 0))


def test_a_published_setting_by_name_and_by_method() -> None:
    for name, setting in PUBLISHED.items():
        result = make_setting(name)
        assert weights_of(result) == QUERY.with_pdv(setting).weights
        assert result.label.endswith(f" ({name})")
    assert make_setting("published").label.endswith(" (cirevl)")
    result = make_setting("published", composer=ComposerName.SEARLE, benchmark="fashioniq:dress", model=LARGE)
    assert result.label == "PDV-F 1.2/1/0.8 (searle-fashioniq-large)"


def test_automatic_weights_are_those_of_a_search() -> None:
    result = make_setting(weights="auto")
    assert result.label == "auto"
    assert weights_of(result) == automatic_weights(QUERY, SPREAD).weights
    assert result.weigh(QUERY.with_rule(Product()), SPREAD).is_linear
    keeping_rule = make_weight_setting(
        None, "auto", composer=ComposerName.CAPTIONS, benchmark="cirr", model=SMALL, keep_rule=True
    )
    assert keeping_rule.weigh(QUERY.with_rule(Product()), SPREAD).rule == Product()


def test_base_weights_may_be_named() -> None:
    result = make_setting(weights="base")
    assert result.label == "base"
    assert result.weigh(QUERY, SPREAD) is QUERY
    with pytest.raises(OptionError, match="give --pdv or --weights, not both"):
        make_setting("cirevl", "base")


def test_weights_by_role_and_balanced() -> None:
    result = make_setting(weights={"image": 1.0, "prompt": 2.5})
    assert result.label == "image=1,prompt=2.5"
    assert weights_of(result) == (1, 0, 0, 2.5)
    assert make_setting(weights="balanced").label == "balanced"
    assert weights_of(make_setting(weights="balanced")) == balanced_weights(QUERY, SPREAD).weights


def test_the_best_point_of_a_sweep(tmp_path: Path) -> None:
    for beta, gamma in [(0.0, 0.0), (0.35, 2.2), (1.0, -0.5), (0.75, 1.2500000000000004)]:
        file = tmp_path / "a.sweep.json"
        file.write_text(json.dumps(SWEEP | {"points": {"best": {"beta": beta, "gamma": gamma, "metrics": {"recall@1": 1.0}}}}))
        result = make_setting(str(file))
        assert result.label.endswith(" (best of a.sweep.json)")
        assert weights_of(result)[:3] == pytest.approx(plane_weights(beta, gamma), abs=1e-12)
        with pytest.raises(OptionError, match="is a sweep of 'captions'; its best point cannot be used for 'lincir'"):
            make_setting(str(file), composer=ComposerName.LINCIR)


@pytest.mark.parametrize(
    ("name", "numbers"),
    {
        "cirevl": (0.75, 1.4, 1.2),
        "ldre": (0.75, 1.4, 1.4),
        "searle-base": (0.9, 1.4, 1.2),
        "searle-large": (0.85, 1.4, 1.2),
        "pic2word": (0.85, 1.2, 1),
        "cirevl-fashioniq-base": (0.75, 1.4, 1.4),
        "cirevl-fashioniq-large": (0.55, 1, 1.3),
        "cirevl-fashioniq-giant": (0.6, 1.4, 1.4),
        "searle-fashioniq-base": (0.9, 1.1, 0.9),
        "searle-fashioniq-large": (0.8, 1.2, 1),
        "pic2word-fashioniq": (0.8, 1, 1),
    }.items(),
)
def test_published_weights(name: str, numbers: tuple[float, float, float]) -> None:
    """beta, alpha_image, alpha_text as in arXiv 2502.07215."""
    setting = PUBLISHED[name]
    assert (setting.beta, setting.alpha_image, setting.alpha_text) == numbers


def test_no_published_setting_is_left_unchecked() -> None:
    assert len(PUBLISHED) == 11


@pytest.mark.parametrize(
    ("composer", "benchmark", "model", "name"),
    [
        (ComposerName.CAPTIONS, "cirr", SMALL, "cirevl"),
        (ComposerName.CAPTIONS, "circo", GIANT, "cirevl"),
        (ComposerName.CAPTIONS, "fashioniq", SMALL, "cirevl-fashioniq-base"),
        (ComposerName.CAPTIONS, "fashioniq:shirt", LARGE, "cirevl-fashioniq-large"),
        (ComposerName.CAPTIONS, "fashioniq", GIANT, "cirevl-fashioniq-giant"),
        (ComposerName.CAPTIONS, "fashioniq", "wardrobe", "cirevl-fashioniq-base"),
        (ComposerName.LDRE, "cirr", LARGE, "ldre"),
        (ComposerName.LDRE, "fashioniq", LARGE, "ldre"),
        (ComposerName.SEARLE, "cirr", SMALL, "searle-base"),
        (ComposerName.SEARLE_OTI, "circo", LARGE, "searle-large"),
        (ComposerName.LINCIR, "genecis:focus_object", GIANT, "searle-large"),  # the nearest size there is
        (ComposerName.SEARLE, "fashioniq", GIANT, "searle-fashioniq-large"),
        (ComposerName.SEARLE, "fashioniq:toptee", "RN50/openai", "searle-fashioniq-base"),
        (ComposerName.PIC2WORD, "cirr", LARGE, "pic2word"),
        (ComposerName.PIC2WORD, "fashioniq", LARGE, "pic2word-fashioniq"),
        (ComposerName.SEIZE, "cirr", SMALL, None),
        (ComposerName.IMAGE, "cirr", SMALL, None),
    ],
)
def test_published_name(composer: ComposerName, benchmark: str, model: str, name: str | None) -> None:
    assert published_name(composer, benchmark, model) == name


@pytest.mark.parametrize(
    ("pdv", "message"),
    [
        ("1.4,1.2", "unknown setting '1.4,1.2'; choose from: alpha_image,alpha_text,beta, published, cirevl, "),
        ("1,2,3,4", "the file of a sweep"),
        ("cirevil", "unknown setting 'cirevil'"),
        ("nowhere.sweep.json", "unknown setting 'nowhere.sweep.json'"),
        ("", "unknown setting ''"),
        ("1.4,1.2,75", "beta must be a number from 0 to 1, got 75"),
        ("nan,1,0.5", "alpha_image must be a finite number"),
    ],
)
def test_invalid_settings_are_option_errors(pdv: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make_setting(pdv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_contradictory_options_are_option_errors() -> None:
    with pytest.raises(OptionError, match="all weights are 0"):
        make_setting(None, {"image": 0.0, "prompt": 0.0})
    with pytest.raises(OptionError, match="give --pdv or --weights, not both"):
        make_setting("cirevl", "balanced")
    with pytest.raises(OptionError, match="the paper gives no setting for 'sdr'"):
        make_setting("published", composer=ComposerName.SDR)
    with pytest.raises(OptionError, match="'slerp' does not have them all"):
        make_setting("1,1,0.5", composer=ComposerName.SLERP)


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "[]", "{}", '{"points": {"base": {}}}', '{"points": {"best": {"beta": 2, "gamma": 1}}}', '{"points": 3}'],
)
def test_the_error_names_a_file_that_is_not_a_sweep(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    with pytest.raises(mm.MMRetrieveError, match=r"a\.json: not the record of a sweep") as caught:
        make_setting(str(file))
    assert not isinstance(caught.value, OptionError)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("registered")
def test_traits_of_a_registered_composer_count_like_those_of_a_built_in_one() -> None:
    mm.register_composer("ours", lambda _: None, published="ldre", makes_captions=True, averages_prompts=True)
    mm.register_composer("plain", lambda _: None, supports_pdv=False)
    assert published_name("ours", "cirr", SMALL) == published_name(ComposerName.LDRE, "cirr", SMALL)
    assert MethodConfig("ours").prompt_orders is PromptOrder.BOTH
    assert MethodConfig("plain").prompt_orders is PromptOrder.FIRST
    query = BenchmarkQuery("1", "a", ("in red",), ("b",), "a dress")
    assert (MethodConfig("ours").caption(query), MethodConfig("plain").caption(query)) == (None, "a dress")
    with pytest.raises(OptionError, match="'plain' does not have them all"):
        check_takes_pdv("plain")
