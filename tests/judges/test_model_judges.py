"""Judges with a model on this machine: tiny random ones of real classes, and what is refused."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

import mmretrieve as mm
from mmretrieve.errors import JudgeError, OptionError
from mmretrieve.judges.base import judge_logits
from mmretrieve.judges.cross_encoder import CrossEncoderJudge
from mmretrieve.judges.factory import judge_from, register_judge_of
from mmretrieve.judges.transformers import TransformersJudge
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.language.options import LanguageOptions
from mmretrieve.registry import JUDGES

WORDS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "<image>", "yes", "Yes", "no", "No", "Prompt", ":", "in", "red", "blue", "picture")
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
DOCUMENTS = [{"image": Image.new("RGB", (32, 32), color)} for color in ("red", "green", "blue")]
QUERY = {"image": Image.new("RGB", (32, 32), "gray"), "text": "in red"}


def tokenizer(words: tuple[str, ...] = WORDS) -> transformers.PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, **special, extra_special_tokens={"image_token": "<image>"}
    )
    return made


def save_llava(folder: Path, *, template: str | None = TEMPLATE, words: tuple[str, ...] = WORDS) -> Path:
    """A LLaVA as public ones are saved, with random weights: a CLIP of four patches before a Llama of 15 words."""
    torch.manual_seed(0)
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    text = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=words.index("<image>"), vision_feature_layer=-1
    )
    model = transformers.LlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data *= 8  # so that candidates differ
    model.save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.LlavaProcessor(
        images,
        tokenizer(words),
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


def test_a_vision_language_model_gives_yes_minus_no(llava: Path) -> None:
    """The plain specification: the log-probabilities of the words at the last position of the prompt."""
    judge = TransformersJudge(str(llava))
    scores = [one["score"] for one in judge.rank(QUERY, DOCUMENTS)]
    assert len(set(scores)) == 3
    processor = transformers.AutoProcessor.from_pretrained(llava)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(llava)
    for score, document in zip(scores, DOCUMENTS, strict=True):
        text = f"<image> <image> {judge._instructions.text}\n\nPrompt: in red"
        inputs = processor(text=text, images=[QUERY["image"], document["image"]], return_tensors="pt")
        with torch.inference_mode():
            p = torch.softmax(model(**inputs).logits[0, -1].double(), dim=0)
        yes, no = (sum(float(p[WORDS.index(word)]) for word in words) for words in (("yes", "Yes"), ("no", "No")))
        assert score == pytest.approx(math.log(yes / no), abs=1e-4)
    backwards = judge_logits(judge, QUERY, DOCUMENTS[::-1])
    assert backwards[::-1] == pytest.approx(scores, abs=1e-5)
    mm.testing.check_judge(judge)


def test_logits_are_cached_by_content(llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = TransformersJudge(str(llava), cache=AnswerCache(tmp_path / "answers.sqlite"))
    first = judge.rank(QUERY, DOCUMENTS)
    monkeypatch.setattr(judge, "_model", None)  # it is not asked again
    assert judge.rank(QUERY, [{"image": document["image"].copy()} for document in DOCUMENTS]) == first
    with pytest.raises(JudgeError, match="TransformersJudge failed"):
        judge_logits(judge, {"text": "in blue"}, DOCUMENTS)


def test_candidates_beyond_the_seconds_have_no_score(llava: Path) -> None:
    judge = TransformersJudge(str(llava), seconds=0)
    assert [one["corpus_id"] for one in judge.rank(QUERY, DOCUMENTS)] == [0]


def test_models_that_cannot_judge_are_refused(tmp_path: Path) -> None:
    silent = save_llava(tmp_path / "silent", words=tuple(word for word in WORDS if word not in ("yes", "Yes")))
    with pytest.raises(JudgeError, match="its tokenizer has no token for 'yes'"):
        TransformersJudge(str(silent))
    plain = save_llava(tmp_path / "plain", template=None)
    with pytest.raises(JudgeError, match="its processor has no chat template"):
        TransformersJudge(str(plain))


@pytest.mark.parametrize("judge", [TransformersJudge, CrossEncoderJudge])
def test_a_model_that_is_not_there_fails_in_one_line(judge: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in (str(tmp_path), "nobody/nothing"):
        with pytest.raises(
            JudgeError, match=r"^.*: the judge could not be loaded \(.*\); without a network, give the folder of a "
        ) as caught:
            judge(name)
        assert "\n" not in str(caught.value)


def save_cross_encoder(folder: Path) -> Path:
    """A cross-encoder of texts, with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(WORDS), num_labels=1, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_a_cross_encoder_of_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="this cross-encoder reads text, not images; use another"):
        CrossEncoderJudge(str(save_cross_encoder(tmp_path)))


def test_a_cross_encoder_gives_its_logit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake with the API of CrossEncoder, because a real one that reads images is large."""
    calls: list[Any] = []

    class Fake:
        num_labels, modalities = 1, ["text", "image", "message"]

        def __init__(self, name: str, **options: Any) -> None:
            assert (name, options["trust_remote_code"], options["local_files_only"]) == (str(tmp_path), False, True)

        def supports(self, modality: Any) -> bool:
            return modality in ("image", "text")

        def predict(self, pairs: Any, *, activation_fn: Any, show_progress_bar: bool) -> Any:
            calls.extend(pairs)
            assert isinstance(activation_fn, torch.nn.Identity)
            assert not show_progress_bar
            return [image["image"].getpixel((0, 0))[0] / 51 for _, image in pairs]

    monkeypatch.setattr("sentence_transformers.CrossEncoder", Fake)
    judge = CrossEncoderJudge(str(tmp_path))
    assert [one["score"] for one in judge.rank(QUERY, DOCUMENTS)] == [5.0, 0.0, 0.0]
    assert [query for query, _ in calls] == [{"text": "in red"}] * 3  # it does not read both together
    judge._reads_both = True
    judge.rank(QUERY, DOCUMENTS[:1])
    assert calls[-1][0] == QUERY


# By name


@pytest.mark.usefixtures("registered")
def test_a_judge_of_options_has_a_name(llava: Path, retriever: mm.Retriever) -> None:
    name = f"transformers:{llava}"
    with pytest.raises(OptionError, match="unknown judge"):
        retriever.search(prompt="in red", judge=name)
    register_judge_of(LanguageOptions(judge=name))
    judged = retriever.search(prompt="in red", k=4, judge=name, judge_k=4)
    assert judged.note is None
    assert len({hit.contributions["judge"] for hit in judged}) > 1
    register_judge_of(LanguageOptions(judge="attributes"))
    assert JUDGES.names[-1] == name


def test_names_and_their_judges() -> None:
    for name, kind in (("endpoint", "Pointwise"), ("endpoint-listwise", "Listwise"), ("endpoint-rerank", "Rerank")):
        options = LanguageOptions(judge=name, model="m", endpoint="http://127.0.0.1:9/v1", judge_seconds=3)
        judge: Any = judge_from(options)
        assert (type(judge).__name__, judge.seconds, judge.endpoint.model) == (f"{kind}Judge", 3, "m")
    assert judge_from(LanguageOptions()) is None
    for name in ("endpoints", "transformers:", "rewrites.json"):
        with pytest.raises(
            OptionError, match=rf"unknown judge '{name}'.*choose from: attributes, local, endpoint, .*cross-encoder:MODEL$"
        ):
            LanguageOptions(judge=name)
    with pytest.raises(OptionError, match="an endpoint needs --model NAME"):
        LanguageOptions(judge="endpoint-rerank")
