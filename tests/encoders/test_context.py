"""What fits into an encoder's context, and that the prompt is read where a caption does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer

import mmretrieve as mm
from mmretrieve.combining import combine
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import Parts, make_composer
from mmretrieve.composers.fitting import longest_prefix
from mmretrieve.encoders.base import ContextLimit, Encoder, PromptCutWarning
from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.encoders.text_tower import TextContext
from mmretrieve.inversion.oti import OTI
from mmretrieve.language.base import Description, Roles
from mmretrieve.language.rewriters import SwapRewriter
from mmretrieve.language.vocabulary import Vocabulary, WordGroup

LENGTH = 12
LONG = " ".join(["a photo of a blue dress with"] + ["very long sleeves and"] * 13 + ["a belt"])  # 61 words
PROMPTS = ("in red and without any dots", "in green and covered with dots")
CUT = "the prompt is longer than the 40 tokens that the encoder reads: its end was cut"
Tokenizer = Callable[..., torch.Tensor]


def huggingface(folder: Path, *, pad: str = "<pad>", start: bool = False, side: str = "right", **how: Any) -> HFTokenizer:
    """open_clip's own wrapper of a tokenizer that gives one id a word and ends with <eos>."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    words = ["<pad>", "<eos>", "<bos>", "<cls>", "<unk>", "red", "a", "x"]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    frame = "<bos> $A <eos>" if start else "$A <eos>"
    inner.post_processor = tokenizers.processors.TemplateProcessing(single=frame, special_tokens=[("<bos>", 2), ("<eos>", 1)])
    special = {"pad_token": pad, "eos_token": "<eos>", "bos_token": "<bos>", "cls_token": "<cls>", "sep_token": "<eos>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, padding_side=side, **special).save_pretrained(folder)
    return HFTokenizer(str(folder), context_length=LENGTH, **how)


class EndPadded:
    """A SigLIP-like tokenizer without any library: ends and pads with 1, and keeps the end when it truncates, or not."""

    def __init__(self, *, keeps_end: bool = True) -> None:
        self.keeps_end = keeps_end

    def __call__(self, texts: Sequence[str], context_length: int = LENGTH) -> torch.Tensor:
        rows = torch.ones(len(texts), context_length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [2 + len(word) for word in text.split()][: context_length - self.keeps_end]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        return rows


def clip(**how: Any) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=LENGTH, **how)


@pytest.mark.parametrize(
    ("make", "room"),
    [
        (lambda _: clip(), LENGTH - 2),
        (lambda _: clip(clean="canonicalize"), LENGTH - 2),
        (lambda _: clip(reduction_mask="simple"), LENGTH - 2),
        (lambda _: clip(reduction_mask="random"), LENGTH - 2),
        (lambda _: clip(reduction_mask="shuffle"), LENGTH - 2),
        (lambda folder: huggingface(folder), LENGTH - 1),
        (lambda folder: huggingface(folder, pad="<eos>", clean="canonicalize"), LENGTH - 1),
        (lambda folder: huggingface(folder, start=True, strip_sep_token=True), LENGTH - 2),
        (lambda folder: huggingface(folder, start=True, side="left"), LENGTH - 2),
        (lambda folder: huggingface(folder, side="left", pad="<eos>"), LENGTH - 1),
        (lambda folder: huggingface(folder, tokenizer_mode="clips"), LENGTH - 3),
        (lambda _: EndPadded(), LENGTH - 1),
        (lambda _: EndPadded(keeps_end=False), LENGTH),  # the end token is lost first, and says nothing
    ],
)
def test_a_text_fits_up_to_the_last_position(make: Callable[[Path], Tokenizer], room: int, tmp_path: Path) -> None:
    context = TextContext(make(tmp_path))
    assert context.length == LENGTH
    texts = [" ".join(["red"] * words) for words in range(3 * LENGTH)]
    assert context.fits(texts) == [words <= room for words in range(3 * LENGTH)]
    assert context.fits([]) == []


@pytest.mark.parametrize("refusal", [TypeError, ValueError, None])
def test_a_fixed_length_tokenizer_is_tested_with_one_more_word(refusal: type[Exception] | None) -> None:
    def tokenize(texts: Sequence[str], context_length: int = LENGTH) -> torch.Tensor:
        if refusal is not None and context_length != LENGTH:
            raise refusal("only one length")
        return EndPadded()(texts)

    texts = [" ".join(["red"] * words) for words in range(3 * LENGTH)]
    assert TextContext(tokenize).fits(texts) == [words < LENGTH - 1 for words in range(3 * LENGTH)]


def test_a_word_with_the_padding_id_is_not_padding() -> None:
    tokenizer = clip()
    assert (len(tokenizer.encode("!♥")), tokenizer.encode("!♥")[0]) == (2, 0)
    full = "red " * (LENGTH - 4)
    assert TextContext(tokenizer).fits([f"{full}!♥", f"{full}red !♥", f"{full}red red red red !♥"]) == [True, False, False]


@pytest.mark.parametrize("has_variable_length", [True, False])
def test_only_texts_that_nearly_fill_the_context_are_tokenized_again(has_variable_length: bool) -> None:
    tokenized: list[int] = []

    def tokenize(texts: Sequence[str], **context: int) -> torch.Tensor:
        if context and not has_variable_length:
            raise TypeError
        tokenized.append(len(texts))
        return EndPadded()(texts, **context)

    context = TextContext(tokenize)
    tokenized.clear()
    context.fits([" ".join(["red"] * words) for words in range(LENGTH)])
    assert tokenized == [LENGTH, 1]


def test_the_encoder_reports_its_context_length(encoder: OpenClipEncoder) -> None:
    assert isinstance(encoder, ContextLimit)
    assert encoder.context_length == 40
    assert encoder.fits_context(["in red", "red " * 38, "red " * 39, "red " * 300]) == [True, True, False, False]


def end_padded_encoder() -> OpenClipEncoder:
    """A random text tower behind a tokenizer that ends and pads with one and the same token, as SigLIP's."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
    text = {"context_length": LENGTH, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2, "no_causal_mask": True}
    model = open_clip.CustomTextCLIP(embed_dim=16, vision_cfg=vision, text_cfg=text | {"pool_type": "last"})
    model.visual.preprocess_cfg = {"size": (32, 32), "mode": "RGB"}
    return OpenClipEncoder(model, EndPadded(), "end-padded", device=torch.device("cpu"), dtype="float32")


def test_a_tokenizer_that_pads_with_its_end_token_warns_too() -> None:
    encoder = end_padded_encoder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_texts(["red " * (LENGTH - 1)])
    with pytest.warns(PromptCutWarning, match="1 of 2 texts were cut to the 12 tokens that end-padded reads, first: 'red red"):
        encoder.encode_texts(["red " * LENGTH, "in red"])


# ---- composers of words


@pytest.fixture
def query(encoder: OpenClipEncoder, photos: Path) -> ComposerInput:
    path = sorted(photos.rglob("*.png"))[0]
    return ComposerInput(encoder.encode_images([path])[0], "in red", LONG, path)


def composer_input(query: ComposerInput, prompt: str, caption: str | None = LONG) -> ComposerInput:
    return ComposerInput(query.vector, prompt, caption, query.image)


def test_opposite_prompts_after_a_long_caption_differ(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    composer = make_composer("captions", encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        red, green = composer.compose([composer_input(query, prompt) for prompt in PROMPTS])
    assert np.abs(red["composed"] - green["composed"]).max() > 1e-2
    for composition, prompt in ((red, PROMPTS[0]), (green, PROMPTS[1])):
        kept, rewrite = composition.words["text"], composition.words["composed"]
        count = len(kept.split())
        assert LONG.startswith(f"{kept} ")
        assert rewrite == f"{kept}, {prompt}"
        assert encoder.fits_context([rewrite]) == [True]
        assert encoder.fits_context([f"{' '.join(LONG.split()[: count + 1])}, {prompt}"]) == [False]
        expected = encoder.encode_texts([kept, rewrite, prompt])
        np.testing.assert_allclose(composition.terms[1:], expected, atol=1e-6)
        assert composition.remark == (
            f"the caption was shortened to {count} of its 61 words, so that the prompt fits into the encoder's 40 tokens"
        )


def test_texts_that_fit_are_unchanged_bit_for_bit(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    class Bare:
        """The same encoder, which cannot tell what fits."""

        identity, dim = encoder.identity, encoder.dim
        encode_images, encode_texts = encoder.encode_images, encoder.encode_texts

    full = " ".join(["blue"] * 33)  # with ", in red", start and end: 40 tokens less one
    queries = [composer_input(query, "in red", caption) for caption in ("a blue dress", f"{full} x", full)]
    for name in ("captions", "sdr", "roles", "seize", "sum", "slerp", "prompt"):
        before, after = (make_composer(name, one).compose(queries) for one in (Bare(), encoder))
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old.terms, new.terms)
            assert (old.names, old.weights, old.words, old.remark) == (new.names, new.weights, new.words, new.remark)
    assert encoder.fits_context([f"{full} x, in red", f"{full} x x x, in red"]) == [True, False]
    with pytest.warns(PromptCutWarning):
        (unfitted,) = make_composer("captions", Bare()).compose([query])
    assert (unfitted.words["composed"], unfitted.remark) == (f"{LONG}, in red", None)


def test_a_tokenizer_that_pads_with_its_end_token_keeps_the_prompt_too() -> None:
    encoder = end_padded_encoder()
    vector = np.eye(16, dtype=np.float32)[0]
    composer = make_composer("captions", encoder)
    one, other = composer.compose([ComposerInput(vector, prompt, LONG) for prompt in ("in deep red", "no dots")])
    assert one.words["composed"] == f"{' '.join(LONG.split()[:8])}, in deep red"
    assert other.words["composed"] == f"{' '.join(LONG.split()[:9])}, no dots"
    assert str(one.remark).endswith("8 of its 61 words, so that the prompt fits into the encoder's 12 tokens")


class Several:
    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        return [["a blue dress", LONG, f"so {LONG}"][:count] for _ in queries]


@pytest.mark.parametrize("name", ["ldre", "seize"])
def test_each_of_several_captions_is_fitted(encoder: OpenClipEncoder, query: ComposerInput, name: str) -> None:
    composer = make_composer(name, encoder, Parts(captioner=Several()), score=lambda rows: rows @ rows.T)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (one,) = composer.compose([composer_input(query, PROMPTS[0], None)])
    assert str(one.remark).endswith(
        "2 of 3 captions or their rewrites were shortened, so that the prompt fits into the encoder's 40 tokens"
    )
    if name == "seize":
        captions = ["a blue dress", *(longest_prefix(text, behind(encoder, PROMPTS[0])) for text in (LONG, f"so {LONG}"))]
        rewrites = encoder.encode_texts([f"{caption}, {PROMPTS[0]}" for caption in captions])
        np.testing.assert_allclose(one["composed"], mm.vectors.unit([rewrites.mean(axis=0)])[0], atol=1e-5)


def behind(encoder: ContextLimit, prompt: str) -> Callable[[str], bool]:
    return lambda caption: encoder.fits_context([f"{caption}, {prompt}"])[0]


def test_the_swap_rewriter_rewrites_the_shortened_caption(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    swap = SwapRewriter(Vocabulary("a {colour}", (WordGroup("colour", ("red", "blue")),)))
    (one,) = make_composer("captions", encoder, Parts(rewriter=swap)).compose([query])
    assert one.words["text"].startswith("a photo of a blue dress")
    assert one.words["composed"] == f"{one.words['text'].replace('blue', 'red')}, in red"


class Model:
    """A rewriter that answers once, and only what it knows."""

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, 0

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        self.asked += len(captions)
        assert set(captions) == {LONG}
        return [self.answer for _ in prompts]


def test_the_rewrite_of_a_model_is_moved_after_the_prompt(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    model = Model("a red dress " + "with long sleeves " * 20)
    (one,) = make_composer("captions", encoder, Parts(rewriter=model)).compose([query])
    rewrite = one.words["composed"]
    assert model.asked == 1
    assert rewrite.startswith("in red, a red dress with long sleeves")
    assert encoder.fits_context([rewrite, f"{rewrite} with"]) == [True, False]
    count = len(rewrite.split()) - 2
    assert str(one.remark).split("; ") == [
        f"the rewrite was shortened to {count} of its 63 words and put behind the prompt, so that the prompt fits into the encoder's 40 tokens",
        "the caption was shortened to 38 of its 61 words, so that it fits into the encoder's 40 tokens",
    ]


def test_a_long_caption_with_a_short_rewrite(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    (one,) = make_composer("captions", encoder, Parts(rewriter=Model("a red dress"))).compose([query])
    assert one.words["composed"] == "a red dress"
    assert one.words["text"] == " ".join(LONG.split()[:38])
    assert one.remark == "the caption was shortened to 38 of its 61 words, so that it fits into the encoder's 40 tokens"


@pytest.mark.parametrize("rewriter", [None, Model("a red dress " + "with long sleeves " * 20)])
def test_a_prompt_that_fills_the_context_stands_alone(
    encoder: OpenClipEncoder, query: ComposerInput, rewriter: Model | None
) -> None:
    full = "red " * 37 + "red"
    (one,) = make_composer("captions", encoder, Parts(rewriter=rewriter)).compose([composer_input(query, full)])
    np.testing.assert_allclose(one["composed"], one["prompt"], atol=1e-6)
    what = "caption" if rewriter is None else "rewrite"
    assert f"the {what} was left out of `composed`: the prompt alone fills the encoder's 40 tokens" in str(one.remark)
    assert CUT not in str(one.remark)


class Narrator:
    def describe(self, queries: Sequence[ComposerInput]) -> list[Description]:
        return [Description("a red dress " * 20, "a blue dress") for _ in queries]


@pytest.mark.parametrize("name", ["captions", "seize", "sdr", "roles", "sum", "slerp", "prompt", "one-step", "searle-oti"])
def test_every_composer_reports_a_cut_prompt(encoder: OpenClipEncoder, query: ComposerInput, name: str) -> None:
    long, short = composer_input(query, "red " * 60, "a dress"), composer_input(query, "in red", "a dress")
    with pytest.warns(PromptCutWarning):
        cut, whole = make_composer(name, encoder, Parts(describer=Narrator(), oti=OTI(steps=1))).compose([long, short])
    assert CUT in str(cut.remark).split("; ")
    assert CUT not in str(whole.remark)
    description = "the description of the target is longer than the 40 tokens that the encoder reads: its end was cut"
    assert (description in str(whole.remark)) is (name == "one-step")


def test_a_prompt_cut_after_a_pseudo_token_is_reported(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    composer = make_composer("searle-oti", encoder, Parts(oti=OTI(steps=1)))
    prompts = [" ".join(["red"] * words) for words in (33, 34)]  # "a photo of $ that" takes five of 38 places
    with pytest.warns(PromptCutWarning):
        whole, cut = composer.compose([composer_input(query, prompt, None) for prompt in prompts])
    assert whole.remark is None
    assert cut.remark == "after 'a photo of $ that', the prompt does not fit into the encoder's 40 tokens: its end was cut"


def test_cut_phrases_and_descriptions_of_a_compiler_are_reported(encoder: OpenClipEncoder, query: ComposerInput) -> None:
    class Compiler:
        def compile(self, queries: Sequence[ComposerInput]) -> list[Roles]:
            return [Roles("a dress " * 30, ("in red", "long " * 50), (), ()) for _ in queries]

    with pytest.warns(PromptCutWarning):
        (one,) = make_composer("roles", encoder, Parts(compiler=Compiler())).compose(
            [composer_input(query, "in red", "a dress")]
        )
    end = "is longer than the 40 tokens that the encoder reads: its end was cut"
    assert one.remark == f"the description of the target {end}; a desired phrase {end}"


def test_remarks_of_all_parts_are_joined_each_once(encoder: Encoder, query: ComposerInput) -> None:
    (one,) = make_composer("prompt", encoder).compose([query])
    parts = [[one.with_remarks("a", "b"), one], [one.with_remarks("b"), one.with_remarks("c", None, "a")]]
    assert combine(parts, [1, 1], [1, 1]).remark == "a; b; c"
    assert combine([[one]], [1], [1]).remark is None
    assert one.with_remarks(None) is one


def test_the_longest_prefix_has_whole_words() -> None:
    for most in range(20):
        prefix = longest_prefix("a blue, wide dress", lambda text, most=most: len(text) <= most)
        assert (
            prefix
            == ["", "a", "a blue", "a blue, wide", "a blue, wide dress"][
                (most >= 1) + (most >= 6) + (most >= 12) + (most >= 18)
            ]
        )


def test_the_note_of_a_search_contains_the_remark(retriever: mm.Retriever, photos: Path) -> None:
    picture = sorted(photos.rglob("*.png"))[3]
    red, green = (retriever.search(picture, prompt, caption=LONG, k=20) for prompt in PROMPTS)
    assert red.ids != green.ids
    assert str(red.note).startswith("the caption was shortened to ")
    assert str(red.note).endswith("of its 61 words, so that the prompt fits into the encoder's 40 tokens")
    assert retriever.search(picture, PROMPTS[0], caption="a blue dress").note is None
    both = retriever.search(picture, list(PROMPTS), caption=LONG)
    assert str(both.note).count("the caption was shortened to") == len({str(red.note), str(green.note)})
    with pytest.warns(PromptCutWarning):
        several = retriever.search([picture, picture], "red " * 60, composer="sum", k=100)
    assert several.note == f"{CUT}; 60 of the 100 asked for: the gallery has no more"
