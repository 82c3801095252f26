"""Names on the Hub, from a server on this machine that speaks its protocol, and from its cache. Random weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="NO SENTENCE-TRANSFORMERS: pip install 'mmretrieve[encoders]'")

import transformers
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from test_transformers import CONTEXT, pictures, saved, small

import mmretrieve as mm
from mmretrieve.errors import EncoderError, OptionError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubHandler(BaseHTTPRequestHandler):
    """The Hub, as far as a download of whole repositories needs it: `repositories` has the folder of each."""

    repositories: dict[str, Path]
    fetched: list[str]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        name = next((name for name in self.repositories if path.startswith((f"/api/models/{name}/", f"/{name}/"))), None)
        if name is None:
            return self.send(b"{}", 200 if path == "/" else 404, {"X-Error-Code": "RepoNotFound"})
        folder, rest = self.repositories[name], path.partition(f"{name}/")[2]
        if rest.startswith("revision/"):
            return self.send(json.dumps({"id": name, "sha": COMMIT}).encode())
        if rest.startswith("tree/"):
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            rows = [
                {"type": "file", "path": str(f.relative_to(folder)), "size": f.stat().st_size, "oid": etag(f)} for f in files
            ]
            return self.send(json.dumps(rows).encode())
        file = folder / rest.partition("/")[2].partition("/")[2]
        if self.command == "GET":
            self.fetched.append(str(file.relative_to(folder)))
        return self.send(file.read_bytes(), 200, {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT})

    def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Repositories of both packages, with what nobody may load beside the weights."""
    model, processor = small("clip")
    processor.tokenizer.model_max_length = CONTEXT
    clip, own = saved((model, processor), tmp_path_factory.mktemp("clip")), tmp_path_factory.mktemp("sentences")
    SentenceTransformer(modules=[Transformer(str(clip))], device="cpu").save(str(own), create_model_card=False)
    for folder in (clip, own):
        (folder / "pytorch_model.bin").write_bytes(b"a pickle")
        (folder / "modeling.py").write_text("raise SystemExit")
    code = shutil.copytree(own, tmp_path_factory.mktemp("code") / "code")
    (code / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "modeling.Module"}]))
    remote = shutil.copytree(clip, tmp_path_factory.mktemp("code") / "remote")
    (remote / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "modeling.Mine"}}))
    pickled = shutil.copytree(clip, tmp_path_factory.mktemp("code") / "pickled")
    (pickled / "model.safetensors").unlink()
    return {
        "me/clip": clip,
        "sentence-transformers/own": own,
        "me/code": code,
        "me/remote": remote,
        "me/pickled": pickled,
    }


@pytest.fixture
def fetched(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Hub with the models, and an empty cache. What is fetched of the files of a repository."""
    handler = type("Handler", (HubHandler,), {"repositories": models, "fetched": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler.fetched
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("spec", "repository"),
    [("transformers:me/clip", "me/clip"), ("sentence-transformers:own", "sentence-transformers/own")],
)
def test_a_name_is_downloaded_once_and_is_the_encoder_in_its_folder(
    spec: str,
    repository: str,
    models: dict[str, Path],
    fetched: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    encoder = mm.load_encoder(spec, device="cpu", dtype="float32")
    assert any(name.endswith("model.safetensors") for name in fetched)
    assert not any(name.endswith((".bin", ".py")) for name in fetched)
    local = mm.load_encoder(models[repository], device="cpu", dtype="float32")
    assert (encoder.identity, encoder.identity.model) == (local.identity, spec)
    np.testing.assert_array_equal(encoder.encode_images(pictures()), local.encode_images(pictures()))
    np.testing.assert_array_equal(encoder.encode_texts(["a red dress"]), local.encode_texts(["a red dress"]))
    for i, picture in enumerate(pictures()):
        picture.save(tmp_path / f"{i}.png")
    mm.Gallery.create(tmp_path / "g", encoder=encoder).add([tmp_path / f"{i}.png" for i in range(5)])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # from here on, the cache alone
    count = len(fetched)
    retriever = mm.Retriever.open(tmp_path / "g", device="cpu", dtype="float32")
    assert retriever.encoder.identity.model == spec
    assert retriever.search(image=tmp_path / "3.png", k=1).ids == ("3.png",)
    assert (len(fetched), capfd.readouterr().err) == (count, "")


@pytest.mark.usefixtures("fetched")
def test_a_gallery_of_a_model_object_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mm.load_encoder("transformers:me/clip", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = transformers.CLIPModel.from_pretrained("me/clip", cache_dir=tmp_path / "cache")
    encoder = mm.load_encoder((model, transformers.AutoProcessor.from_pretrained("me/clip", cache_dir=tmp_path / "cache")))
    assert encoder.identity.model == "transformers:me/clip"
    assert encoder.identity == mm.load_encoder("transformers:me/clip", device="cpu").identity


def test_a_folder_keeps_its_prefix(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models["me/clip"].parent)
    encoder = mm.load_encoder(f"transformers:{models['me/clip'].name}", device="cpu")
    assert encoder.identity == mm.load_encoder(models["me/clip"], device="cpu").identity
    assert encoder.identity.model == f"transformers:{models['me/clip'].resolve()}"
    mm.Gallery.create(tmp_path / "g", encoder=encoder)
    assert mm.Retriever.open(tmp_path / "g", device="cpu").encoder.identity.model == encoder.identity.model
    with pytest.raises(EncoderError, match=r"not a model of sentence-transformers, which has modules\.json"):
        mm.load_encoder(f"sentence-transformers:{models['me/clip']}")


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("transformers:", OptionError, "expected transformers:org/name or a folder"),
        ("sentence-transformers:./nowhere", OptionError, "there is no such folder, and no model of the Hub"),
        ("transformers:a/b/c", OptionError, "there is no such folder, and no model of the Hub"),
        ("transformers:me/nothing", EncoderError, "could not be downloaded .*404"),
        ("transformers:me/pickled", EncoderError, "cannot be loaded .*model.safetensors"),
        ("transformers:me/remote", EncoderError, "of type 'mine'; expected one of clip"),
        (
            "sentence-transformers:me/code",
            EncoderError,
            "the module 'modeling.Module' is code of the model, which is not executed",
        ),
        ("sentence-transformers:me/clip", EncoderError, "not a model of sentence-transformers"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        mm.load_encoder(spec, device="cpu")
    assert str(caught.value).startswith(f"{spec}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("spec", ["transformers:me/clip", "sentence-transformers:own"])
def test_an_unreachable_hub_fails_quickly(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(
        EncoderError, match=r"not in the cache, and the Hub cannot be reached\); without a network, give a folder"
    ) as caught:
        mm.load_encoder(spec)
    assert time.monotonic() - started < 10
    assert str(caught.value).isprintable()
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("spec", ["transformers:me/clip", "sentence-transformers:me/clip"])
def test_the_dtype_is_checked_before_a_download(spec: str, fetched: list[str]) -> None:
    with pytest.raises(OptionError, match="dtype 'int8' is for models of open_clip"):
        mm.load_encoder(spec, device="cpu", dtype="int8")
    assert not fetched
