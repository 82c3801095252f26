"""What fits into an encoder's context, and that the prompt is read where a caption does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer

from mmretrieve.encoders.base import ContextLimit, PromptCutWarning
from mmretrieve.encoders.context import TextContext
from mmretrieve.encoders.openclip import OpenClipEncoder

LENGTH = 12
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
def test_a_text_fits_up_to_the_last_place_of_the_context(make: Callable[[Path], Tokenizer], room: int, tmp_path: Path) -> None:
    context = TextContext(make(tmp_path))
    assert context.length == LENGTH
    texts = [" ".join(["red"] * words) for words in range(3 * LENGTH)]
    assert context.fits(texts) == [words <= room for words in range(3 * LENGTH)]
    assert context.fits([]) == []


@pytest.mark.parametrize("refusal", [TypeError, ValueError, None])
def test_a_tokenizer_of_one_length_is_asked_for_one_more_word(refusal: type[Exception] | None) -> None:
    def tokenize(texts: Sequence[str], context_length: int = LENGTH) -> torch.Tensor:
        if refusal is not None and context_length != LENGTH:
            raise refusal("only one length")
        return EndPadded()(texts)

    texts = [" ".join(["red"] * words) for words in range(3 * LENGTH)]
    assert TextContext(tokenize).fits(texts) == [words < LENGTH - 1 for words in range(3 * LENGTH)]


def test_a_word_with_the_id_of_the_padding_is_no_padding() -> None:
    tokenizer = clip()
    assert (len(tokenizer.encode("!♥")), tokenizer.encode("!♥")[0]) == (2, 0)
    full = "red " * (LENGTH - 4)
    assert TextContext(tokenizer).fits([f"{full}!♥", f"{full}red !♥", f"{full}red red red red !♥"]) == [True, False, False]


def test_the_encoder_tells_what_it_reads(encoder: OpenClipEncoder) -> None:
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
    return OpenClipEncoder(model, EndPadded(), "end-padded", device=torch.device("cpu"), dtype=torch.float32)


def test_a_tokenizer_that_pads_with_its_end_token_warns_too() -> None:
    encoder = end_padded_encoder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_texts(["red " * (LENGTH - 1)])
    with pytest.warns(PromptCutWarning, match="1 of 2 texts cut to the 12 tokens that end-padded reads, first: 'red red"):
        encoder.encode_texts(["red " * LENGTH, "in red"])
