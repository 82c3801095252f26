"""Textual inversion: pseudo tokens stand where they should, published checkpoints load, OTI and training do what they say."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import mmretrieve as mm
from eval import load_benchmark
from eval.runs.compositions import compose
from eval.studies.inputs import METHODS
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composers import Parts, make_composer
from mmretrieve.encoders.base import PromptCutWarning
from mmretrieve.encoders.openclip import OpenClipEncoder
from mmretrieve.encoders.pseudo_tokens import PseudoTokens
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.inversion.oti import OTI
from mmretrieve.inversion.phi import Pic2WordPhi, SearlePhi, load_phi, replacing, save_phi
from mmretrieve.inversion.recipe import PhiRecipe, split_noun_phrases
from mmretrieve.inversion.train import read_captions, train_phi
from mmretrieve.options import BUILT_IN_MODEL
from mmretrieve.wardrobe.captions import training_captions
from mmretrieve.wardrobe.dataset import drawings

WORDS = "a photo of a cat that costs $5, a $. and $$"
PIECES = ("a photo of a", "that costs $5, a $. and $$")


def small_siglip() -> tuple[Any, Any]:
    """SigLIP's kind of text tower: no causal mask, pooled at the last position, a bias in the projection."""
    towers = {
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 32},
        "text_cfg": {
            "context_length": 64,
            "width": 64,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    return open_clip.CustomTextCLIP(embed_dim=32, **towers), open_clip.SimpleTokenizer(context_length=64)


def random_model(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    if name == "siglip":
        return small_siglip()
    if name == "wardrobe":
        folder = f"local-dir:{BUILT_IN_MODEL}"
        return open_clip.create_model(folder), open_clip.get_tokenizer(folder)
    return open_clip.create_model(name), open_clip.get_tokenizer(name)


@pytest.mark.parametrize("name", ["wardrobe", "ViT-B-32", "siglip", "coca_ViT-B-32"])
def test_the_embedding_of_a_word_gives_the_encoding_of_the_word(name: str) -> None:
    model, tokenizer = random_model(name)
    pseudo = PseudoTokens(model.eval().requires_grad_(False), tokenizer, name)
    cat, dog = pseudo.of_text("cat"), pseudo.of_text("dog")
    assert cat.shape == (1, pseudo.width)
    with torch.no_grad():
        whole = F.normalize(model.encode_text(tokenizer([WORDS, WORDS.replace("cat", "dog")])), dim=-1)
        spliced = F.normalize(pseudo.features([PIECES, PIECES], torch.cat([cat, dog])), dim=-1)
        elsewhere = F.normalize(model.encode_text(tokenizer([WORDS])), dim=-1)
    assert float((whole - spliced).abs().max()) < 1e-5
    assert float((whole[0] - whole[1]).abs().max()) > 1e-3
    assert float((elsewhere[0] - whole[0]).abs().max()) < 1e-6  # outside of `features` nothing is put in


def test_the_frame_of_a_huggingface_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {
        word: i for i, word in enumerate(["<pad>", "<eos>", "a", "photo", "of", "2", "cats", ",", "running", "cat", "<unk>"])
    }
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Punctuation()]
    )
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")
    wrapped.save_pretrained(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=64, clean="canonicalize")
    tokenizer.clean_fn = open_clip.tokenizer.get_clean_fn("whitespace")
    model = small_siglip()[0].eval().requires_grad_(False)
    pseudo = PseudoTokens(model, tokenizer, "siglip")
    with torch.no_grad():
        whole = model.encode_text(tokenizer(["a photo of cat running"]))
        spliced = pseudo.features([("a photo of", "running")], pseudo.of_text("cat"))
    assert float((F.normalize(whole, dim=-1) - F.normalize(spliced, dim=-1)).abs().max()) < 1e-5


def test_unsupported_towers_and_tokenizers_are_refused() -> None:
    model, tokenizer = small_siglip()

    class Foreign(nn.Module):
        text = nn.Linear(1, 1)

    with pytest.raises(EncoderError, match="no token embedding"):
        PseudoTokens(Foreign(), tokenizer, "foreign")
    with pytest.raises(EncoderError, match="cannot build its token ids"):
        PseudoTokens(model, lambda texts: torch.zeros(len(texts), 64), "foreign")

    class Backwards(open_clip.SimpleTokenizer):
        def __call__(self, texts: list[str], context_length: int | None = None) -> torch.Tensor:
            return super().__call__([" ".join(reversed(text.split())) for text in texts], context_length)

    tokenizer = Backwards(context_length=64)
    with pytest.raises(EncoderError, match="does not build a sentence from its pieces"):
        PseudoTokens(model, tokenizer, "foreign")


def test_long_and_invalid_sentences(encoder: OpenClipEncoder) -> None:
    pseudo = encoder.pseudo_tokens
    token = pseudo.of_text("cat")
    with pytest.warns(PromptCutWarning, match="cut to the 40 tokens that wardrobe reads"):
        long = pseudo.features([("a photo of", "that is " + "very " * 300 + "red")], token)
    with pytest.warns(PromptCutWarning):
        assert not torch.allclose(
            long, pseudo.features([("a photo of", "that is " + "very " * 300 + "red")], pseudo.of_text("dog"))
        )
    with pytest.raises(OptionError, match="no room for the pseudo token"):
        pseudo.features([("word " * 50, "")], token)
    for wrong in ("a photo", ("a photo",)):
        with pytest.raises(OptionError, match="a list of the pieces around its pseudo tokens"):
            pseudo.features([wrong], token)
    with pytest.raises(OptionError, match=r"expected pseudo tokens of shape \(1, 96\), got \(1, 5\)"):
        pseudo.features([("a", "b")], torch.zeros(1, 5))


# ---- published checkpoints


def published(kind: type[Pic2WordPhi | SearlePhi], dim: int, width: int) -> dict[str, torch.Tensor]:
    """Random numbers under exactly the published keys and shapes."""
    generator = torch.Generator().manual_seed(1)
    if kind is Pic2WordPhi:
        shapes = {"layers.0.0": (512, dim), "layers.1.0": (512, 512), "fc_out": (width, 512)}
    else:
        shapes = {"layers.0": (4 * dim, dim), "layers.3": (4 * dim, 4 * dim), "layers.6": (width, 4 * dim)}
    weights = {f"{name}.weight": torch.randn(shape, generator=generator) / 10 for name, shape in shapes.items()}
    return weights | {f"{name}.bias": torch.randn(shape[0], generator=generator) for name, shape in shapes.items()}


def plain_forward(
    kind: type[Pic2WordPhi | SearlePhi], weights: dict[str, torch.Tensor], features: torch.Tensor
) -> torch.Tensor:
    """The published architecture, written out."""
    names = ["layers.0.0", "layers.1.0", "fc_out"] if kind is Pic2WordPhi else ["layers.0", "layers.3", "layers.6"]
    act = torch.relu if kind is Pic2WordPhi else F.gelu
    for name in names[:2]:
        features = act(features @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
    return features @ weights[f"{names[2]}.weight"].T + weights[f"{names[2]}.bias"]


def write(path: Path, kind: type[Pic2WordPhi | SearlePhi], weights: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    elif kind is Pic2WordPhi:
        named = {f"module.{name}": value for name, value in weights.items()}
        torch.save(
            {"epoch": 3, "name": "cc", "state_dict": {"module.logit_scale": torch.ones(1)}, "state_dict_img2text": named}, path
        )
    else:
        torch.save({"Phi": weights}, path)
    return path


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", [Pic2WordPhi, SearlePhi])
def test_published_checkpoints_load_and_equal_a_plain_forward_pass(
    encoder: OpenClipEncoder, tmp_path: Path, kind: type[Pic2WordPhi | SearlePhi], suffix: str
) -> None:
    weights = published(kind, 128, 96)
    phi = load_phi(write(tmp_path / f"phi.{suffix}", kind, weights), encoder)
    features = torch.randn(5, 128, generator=torch.Generator().manual_seed(2)) * 17
    expected = plain_forward(kind, weights, features)
    np.testing.assert_allclose(phi.tokens(features.numpy(), encoder), expected, atol=1e-5 * float(expected.abs().max()))


def test_a_phi_for_another_encoder_is_refused(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    large = write(tmp_path / "lincir_large.pt", SearlePhi, published(SearlePhi, 768, 768))
    with pytest.raises(EncoderError, match=r"this phi is from 768 to 768 dimensions; wardrobe .* needs one from 128 to 96"):
        load_phi(large, encoder)
    net = SearlePhi(128, 512, 96)
    save_phi(net, tmp_path / "own.safetensors", encoder)
    assert load_phi(tmp_path / "own.safetensors", encoder).encoder_weights == encoder.identity.weights
    other = tmp_path / "model"
    shutil.copytree(BUILT_IN_MODEL, other)
    weights = {name: value * 1.01 for name, value in open_clip.create_model(f"local-dir:{other}").state_dict().items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, other / "open_clip_model.safetensors")
    stranger = mm.load_encoder(str(other), dtype="float32")
    with pytest.raises(EncoderError, match="this phi is for the encoder with weights"):
        load_phi(tmp_path / "own.safetensors", stranger)
    with pytest.raises(EncoderError, match="this phi was made for the encoder with weights"):
        load_phi(tmp_path / "own.safetensors", encoder).tokens(np.ones((1, 128), np.float32), stranger)


def test_files_without_a_phi_are_refused(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    weights = published(SearlePhi, 128, 96)
    del weights["layers.3.bias"]
    weights["layers.9.weight"] = torch.ones(1)
    with pytest.raises(EncoderError, match=r"missing: layers\.3\.bias; extra: layers\.9\.weight"):
        load_phi(write(tmp_path / "a.pt", SearlePhi, weights), encoder)
    (tmp_path / "b.pt").write_bytes(b"no checkpoint")
    torch.save({"Phi": nn.Linear(1, 1)}, tmp_path / "c.pt")  # needs code to be unpickled, which is never done
    torch.save({"Phi": 3}, tmp_path / "d.pt")
    torch.save([1], tmp_path / "f.pt")
    (tmp_path / "g.pt").write_text("a photo of a cat\n")
    flat = published(SearlePhi, 128, 96) | {"layers.6.weight": torch.tensor(1.0)}
    write(tmp_path / "h.pt", SearlePhi, flat)
    write(tmp_path / "i.pt", SearlePhi, published(SearlePhi, 128, 96) | {"layers.3.bias": torch.full((512,), torch.nan)})
    (tmp_path / "e.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0 no json")
    for name in ("b.pt", "c.pt", "d.pt", "e.safetensors", "f.pt", "g.pt", "h.pt", "i.pt", "nowhere.pt", "nowhere.safetensors"):
        with pytest.raises(EncoderError, match=name) as caught:
            load_phi(tmp_path / name, encoder)
        assert "\n" not in str(caught.value)


# ---- the composer


def test_the_composer_uses_the_image_as_a_word(encoder: OpenClipEncoder, photos: Path, tmp_path: Path) -> None:
    phi = load_phi(write(tmp_path / "phi.pt", SearlePhi, published(SearlePhi, 128, 96)), encoder)
    path = sorted(photos.rglob("*.png"))[0]
    query = ComposerInput(encoder.encode_images([path])[0], "costs $5", image=path)
    one = make_composer("lincir", encoder, Parts(phi=phi)).compose([query])[0]
    assert one.words == {"text": "a photo of $", "composed": "a photo of $ that costs $5", "prompt": "costs $5"}
    assert one.term_weights == {"image": 0, "text": 0, "composed": 1, "prompt": 0}
    token = phi.tokens(encoder.image_features([path]), encoder)
    with torch.no_grad():
        sentence_features = encoder.pseudo_tokens.features([("a photo of", "that costs $5")], token)
    np.testing.assert_allclose(one["composed"], F.normalize(sentence_features, dim=-1)[0], atol=1e-5)
    older = load_phi(write(tmp_path / "older.pt", Pic2WordPhi, published(Pic2WordPhi, 128, 96)), encoder)
    comma = make_composer("pic2word", encoder, Parts(phi=older)).compose([query])[0]
    assert comma.words["composed"] == "a photo of $ , costs $5"
    for name, wrong in (("pic2word", phi), ("searle", older)):
        with pytest.raises(
            OptionError, match=r"cannot use this phi, which was trained for .*: use that composer, or give another phi"
        ):
            make_composer(name, encoder, Parts(phi=wrong))


def test_missing_requirements_of_textual_inversion_are_named(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    folder = shutil.copytree(BUILT_IN_MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("phi*"))
    with pytest.raises(OptionError, match="'lincir' needs a phi for"):
        make_composer("lincir", mm.load_encoder(str(folder)))
    with pytest.raises(OptionError, match=r"the image of the reference is missing or has changed .*: restore the file"):
        make_composer("lincir", encoder).compose([ComposerInput(np.eye(128, dtype=np.float32)[0], "in red")])

    class Bare:
        identity, dim = encoder.identity, encoder.dim
        encode_images, encode_texts = encoder.encode_images, encoder.encode_texts

    with pytest.raises(OptionError, match="reaches into the towers of open_clip, and cannot use a Bare"):
        make_composer("searle-oti", Bare())


# ---- OTI


def cosines(encoder: OpenClipEncoder, tokens: torch.Tensor, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        sentence_features = encoder.pseudo_tokens.features([("a photo of", "")] * len(tokens), tokens)
    return F.cosine_similarity(sentence_features, torch.from_numpy(features)).numpy()


def test_oti_increases_the_cosine_of_sentence_and_image(encoder: OpenClipEncoder, photos: Path) -> None:
    paths, progress = sorted(photos.rglob("*.png"))[:6], []
    features = encoder.image_features(paths)
    oti = OTI(steps=60, batch=4)
    tokens = oti.tokens(features, encoder, progress=progress.append)
    assert progress == [4, 2]
    before, after = cosines(encoder, oti.start(6, 96), features), cosines(encoder, tokens, features)
    assert (after > before + 0.15).all()
    alone = torch.cat([oti.tokens(row[None], encoder) for row in features[:2]])
    np.testing.assert_allclose(tokens[:2], alone, atol=1e-4)


def test_phrases_pull_a_token_towards_their_concept(encoder: OpenClipEncoder, photos: Path) -> None:
    features = encoder.image_features(sorted(photos.rglob("*.png"))[:2])
    phrases = [[(("a", "with long sleeves"), "a red dress with long sleeves")]] * 2
    with torch.no_grad():
        target = torch.from_numpy(encoder.encode_texts([phrases[0][0][1]]))

        def near(tokens: torch.Tensor) -> np.ndarray:
            sentence_features = encoder.pseudo_tokens.features([phrases[0][0][0]] * 2, tokens)
            return F.cosine_similarity(sentence_features, target).numpy()

    free, bound = (OTI(steps=40).tokens(features, encoder, phrases=given) for given in (None, phrases))
    with torch.no_grad():
        assert (near(bound) > near(free)).all()


# ---- training


@pytest.mark.parametrize(
    ("caption", "pieces"),
    [
        ("a red dress with long sleeves", ("", "with", "")),
        ("A dog runs in the park, near two men", ("", "runs in", ", near", "")),
        ("in red", ("in", "")),
        ("sitting there", ("sitting there",)),
    ],
)
def test_captions_are_cut_at_their_noun_phrases(caption: str, pieces: tuple[str, ...]) -> None:
    assert split_noun_phrases(caption) == pieces


RECIPE = PhiRecipe(steps=30, batch=64, learning_rate=1e-3, validate_every=10)


def test_training_lowers_the_validation_loss_and_resumes(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    texts = training_captions(2000)
    points: list[Any] = []
    best = train_phi(texts, encoder, tmp_path / "whole.safetensors", RECIPE, report=points.append)
    assert [point.step for point in points] == [10, 20, 30]
    assert points[-1].validation < 0.8 * points[0].validation
    assert best.validation == min(point.validation for point in points)
    curve = (tmp_path / "whole.curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in curve] == [10, 20, 30]

    class KilledError(Exception):
        pass

    def stop(point: Any) -> None:
        if point.step == 20:
            raise KilledError

    with pytest.raises(KilledError):
        train_phi(texts, encoder, tmp_path / "part.safetensors", RECIPE, report=stop)
    resumed = train_phi(texts, encoder, tmp_path / "part.safetensors", RECIPE)
    assert resumed.validation == pytest.approx(best.validation, rel=1e-4)
    features = encoder.image_features([drawings_picture()])
    whole, part = (load_phi(tmp_path / f"{name}.safetensors", encoder).tokens(features, encoder) for name in ("whole", "part"))
    np.testing.assert_allclose(whole, part, atol=1e-3)
    with pytest.raises(OptionError, match="belongs to a run with other captions, encoder or settings"):
        train_phi([texts[0].replace("a", "e"), *texts[1:]], encoder, tmp_path / "part.safetensors", RECIPE)
    (tmp_path / "part.safetensors").unlink()
    with pytest.raises(OptionError, match="is missing, but the state of its run exists"):
        train_phi(texts, encoder, tmp_path / "part.safetensors", RECIPE)
    torch.save({"other": 1}, tmp_path / "whole.state")
    with pytest.raises(EncoderError, match="not the state of a training run"):
        train_phi(texts, encoder, tmp_path / "whole.safetensors", RECIPE)


def drawings_picture() -> Any:
    from mmretrieve.wardrobe.draw import draw

    drawing = drawings()[0]
    return draw(drawing.garment, drawing.detail, seed=drawing.seed)


def test_training_refuses_invalid_arguments(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="captions have a noun phrase"):
        train_phi(["there", "sitting"], encoder, tmp_path / "phi.safetensors", RECIPE)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(OptionError, match="contains no caption"):
        read_captions(tmp_path / "empty.txt")
    with pytest.raises(OptionError, match=r"nowhere.txt: no such file or directory; expected a text file"):
        read_captions(tmp_path / "nowhere.txt")
    for wrong in ({"steps": 0}, {"batch": 1.5}, {"seed": -1}, {"noise": float("nan")}, {"learning_rate": -1}):
        with pytest.raises(OptionError, match=f"{next(iter(wrong))} must be"):
            PhiRecipe(**wrong)
    for out, message in (
        (tmp_path, "is a folder: give --out FILE.safetensors"),
        (tmp_path / "phi.pt", r"phi\.pt: the name of the file must end in \.safetensors"),
        (tmp_path / "nowhere" / "phi.safetensors", "there is no folder .*nowhere; create it first"),
    ):
        with pytest.raises(OptionError, match=message):
            train_phi(training_captions(100), encoder, out, RECIPE)
    with pytest.raises(OptionError, match="lower the learning rate or the noise"):
        train_phi(
            training_captions(100), encoder, tmp_path / "phi.safetensors", PhiRecipe(steps=2, batch=8, learning_rate=1e30)
        )
    assert not (tmp_path / "phi.safetensors").exists()
    for wrong, message in (
        ({"batch": 0}, "OTI: batch must be a whole number of at least 1, got 0"),
        ({"mean": 1}, "OTI: mean must be a number from 0 to less than 1, got 1"),
        ({"templates": ()}, "OTI: templates must be a list of at least one sentence"),
    ):
        with pytest.raises(OptionError, match=message):
            OTI(**wrong)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:671]"), "is the disk full?"),
        (SafetensorError("Error while serializing"), "is the disk full?"),
    ],
)
def test_a_file_that_cannot_be_written_keeps_the_one_before(error: Exception, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "phi.safetensors"
    file.write_bytes(b"before")

    def write() -> None:
        with replacing(file) as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(EncoderError, match=re.escape(f"phi.safetensors: could not be written ({reason})")):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["phi.safetensors"]
    assert file.read_bytes() == b"before"


def test_the_command_survives_a_kill(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(training_captions(500)))
    out = tmp_path / "phi.safetensors"
    words = [
        "train-phi",
        str(tmp_path / "captions.txt"),
        "--encoder",
        "wardrobe",
        "--out",
        str(out),
        "--steps",
        "40",
        "--batch",
        "16",
        "--validate-every",
        "5",
        "--quiet",
        "--json",
    ]
    command = [sys.executable, "-m", "mmretrieve.cli.main", *words]
    running = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not out.with_suffix(".curve.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.wait()
    reached = len(out.with_suffix(".curve.jsonl").read_text().splitlines())
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = [json.loads(line)["step"] for line in out.with_suffix(".curve.jsonl").read_text().splitlines()]
    assert steps == list(range(5, 41, 5))
    assert 1 <= reached < 8
    assert json.loads(done.stdout)["phi"] == str(out)


def test_the_shipped_phi_beats_prompt_only_and_image_only(encoder: mm.Encoder) -> None:
    bench = load_benchmark("wardrobe")
    gallery = encoder.encode_images([bench.image_path(id_) for id_ in bench.gallery_ids])
    wanted = {method.label: method for method in METHODS if method.label in ("image only", "prompt only", "LinCIR")}
    found = {}
    for label, method in wanted.items():
        composed = compose(bench, gallery, encoder, method.config, Parts())
        found[label] = bench.mean_metrics(composed.measure(lambda composition: composition))["map@10"]
    assert found["LinCIR"] > 2 * max(found["image only"], found["prompt only"])
