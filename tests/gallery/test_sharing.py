"""Galleries and phis on the Hub, through its own client and a server on this machine that speaks its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import mmretrieve as mm
from mmretrieve.errors import EncoderError, GalleryError, MMRetrieveError
from mmretrieve.inversion.phi import SearlePhi, load_phi, save_phi
from mmretrieve.inversion.sharing import download_phi, push_phi

NAME = "me/coats"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ["README.md", "img_emb/img_emb_0.npy", "metadata/metadata_0.parquet", "mmretrieve.json"]


class HubHandler(BaseHTTPRequestHandler):
    """The Hub, as far as one repository needs it that is made, committed to and downloaded. `files` are those in it."""

    files: dict[str, bytes]
    commits: list[list[str]]
    created: list[dict[str, Any]]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            return self.send({})
        if f"/{NAME}/tree/" in path:
            return self.send([{"type": "file", "path": p, "size": len(c), "oid": etag(c)} for p, c in self.files.items()])
        if f"/{NAME}/revision/" in path:
            return self.send({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        file = path.partition(f"/{NAME}/resolve/")[2].partition("/")[2]
        if file in self.files:
            return self.send_bytes(self.files[file], 200, {"ETag": f'"{etag(self.files[file])}"', "X-Repo-Commit": COMMIT})
        return self.send_bytes(b"{}", 404, {"X-Error-Code": "EntryNotFound" if NAME in path else "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self.send({"url": f"{constants.ENDPOINT}/datasets/{NAME}"})
        if "/preupload/" in self.path:
            rows = json.loads(body)["files"]
            return self.send({"files": [{"path": r["path"], "uploadMode": "regular", "shouldIgnore": False} for r in rows]})
        if "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines()])
            return self.send(
                {"success": True, "commitOid": COMMIT, "commitUrl": f"{constants.ENDPOINT}/datasets/{NAME}/commit/{COMMIT}"}
            )
        return self.send({})

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.commits.append([line["value"]["path"] for line in lines if line["key"] != "header"])

    def send(self, answer: object) -> None:
        self.send_bytes(json.dumps(answer).encode(), 200, {"Content-Type": "application/json"})

    def send_bytes(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HubHandler]]:
    """A Hub without repositories, and an empty cache."""
    handler = type("Handler", (HubHandler,), {"files": {}, "commits": [], "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def gallery(tmp_path: Path) -> mm.Gallery:
    """Four items: of files, and one from memory; with fields of both types and a name that looks like markup."""
    gallery = mm.Gallery.create(tmp_path / "g", encoder=mm.load_encoder("wardrobe"), setting=mm.PDV(beta=0.75))
    pictures = sorted(mm.wardrobe.pictures_folder().glob("*.png"))[:3]
    rows = [(path.stem, path, {"price": at, "<img src=x>": "a\n---\nb"}) for at, path in enumerate(pictures)]
    gallery.add_items([*rows, ("gray", np.full((64, 64, 3), 128, np.uint8))])
    return gallery


def test_a_gallery_comes_back_equal_and_takes_no_path_along(
    hub: type[HubHandler],
    gallery: mm.Gallery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert gallery.push_to_hub(NAME, private=True).endswith(f"/datasets/{NAME}")
    assert (sorted(hub.files), hub.created[0]["type"]) == (FILES, "dataset")
    assert hub.created[0].get("visibility") == "private" or hub.created[0].get("private")  # older versions of the client
    folders = [str(mm.wardrobe.pictures_folder()).encode(), str(tmp_path).encode()]
    assert not any(folder in content for folder in folders for content in hub.files.values())

    back = mm.Gallery.from_hub(NAME, tmp_path / "back")
    assert (back.ids, back.encoder_identity, back.manifest.setting) == (
        gallery.ids,
        gallery.encoder_identity,
        mm.PDV(beta=0.75),
    )
    assert [item.fields for item in back.items(back.ids)] == [item.fields for item in gallery.items(gallery.ids)]
    np.testing.assert_array_equal(back.vectors(back.ids), gallery.vectors(gallery.ids))
    assert list(back.pictures(back.ids)) == [None] * 4
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # from here on, the cache alone
    assert mm.Gallery.from_hub(NAME, tmp_path / "back").ids == gallery.ids
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["{}", "transformers:{}", "ViT-B-32/{}"])
def test_the_folder_of_an_encoder_is_not_shared(hub: type[HubHandler], tmp_path: Path, kind: str) -> None:
    identity = mm.EncoderIdentity(kind.format(tmp_path / "clients" / "acme" / "clip"), "weights", "none")
    gallery = mm.Gallery.from_vectors(tmp_path / "g", ["a"], [[1.0, 0.0]], encoder=identity)
    gallery.push_to_hub(NAME)
    assert not any(b"acme" in content for content in hub.files.values())
    assert mm.Gallery.from_hub(NAME, tmp_path / "back").encoder_identity == identity, "the weights are compared"


def test_the_card_says_what_is_inside_and_the_owners_card_is_kept(hub: type[HubHandler], gallery: mm.Gallery) -> None:
    gallery.push_to_hub(NAME)
    card = hub.files["README.md"].decode()
    facts = json.loads("\n".join(line for line in card.split("## Use")[0].splitlines() if line.startswith("    ")))
    assert (facts["items"], facts["encoder weights"]) == (4, gallery.encoder_identity.weights)
    assert facts["fields"] == {"price": "number", "<img src=x>": "text"}
    assert card.startswith("---\nlicense: other")
    assert card.count("\n---\n") == 1

    hub.files |= {"README.md": b"mine", "img_emb/img_emb_1.npy": b"of a larger gallery"}
    gallery.delete(["gray"])
    gallery.push_to_hub(NAME)
    assert (sorted(hub.files), hub.files["README.md"], len(hub.commits)) == (FILES, b"mine", 2)


def test_files_of_other_kinds_are_not_downloaded(hub: type[HubHandler], gallery: mm.Gallery, tmp_path: Path) -> None:
    gallery.push_to_hub(NAME)
    hub.files |= {"run.py": b"raise SystemExit", "img_emb/weights.pkl": b"a pickle"}
    mm.Gallery.from_hub(NAME, tmp_path / "back")
    names = [path.name for path in (tmp_path / "cache").rglob("*") if "snapshots" in path.parts]
    assert "mmretrieve.json" in names
    assert not any(fnmatch(name, "*.p[yk]*") for name in names)


def test_a_dataset_that_is_no_gallery_is_refused(hub: type[HubHandler], tmp_path: Path) -> None:
    hub.files["data/train.parquet"] = b"rows"
    with pytest.raises(GalleryError, match=rf"^{NAME}: there is no mmretrieve\.json; expected a dataset that .*$"):
        mm.Gallery.from_hub(NAME, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("offline", [True, False])
def test_an_unreachable_hub_is_one_line(
    hub: type[HubHandler], gallery: mm.Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MMRetrieveError) as pushed:
        gallery.push_to_hub(NAME)
    with pytest.raises(MMRetrieveError) as pulled:
        mm.Gallery.from_hub(NAME, tmp_path / "back")
    for error, verb in ((pushed, "uploaded"), (pulled, "downloaded")):
        assert str(error.value) == f"{NAME}: could not be {verb} (the Hub cannot be reached, or HF_HUB_OFFLINE is set)"
    assert (constants.HF_HUB_OFFLINE, hub.files) == (offline, {})


@pytest.mark.parametrize("name", ["a/b/c", "", "../up", "two words"])
def test_a_name_that_cannot_exist_is_one_line(hub: type[HubHandler], gallery: mm.Gallery, name: str) -> None:
    with pytest.raises(MMRetrieveError, match=r"^.*could not be uploaded \(.+\)$"):
        gallery.push_to_hub(name)
    assert not hub.files
    assert not hub.created


def test_a_phi_comes_back_equal_with_a_card(hub: type[HubHandler], tmp_path: Path) -> None:
    encoder = mm.load_encoder("wardrobe", dtype="float32")
    save_phi(SearlePhi(128, 512, 96), tmp_path / "own.safetensors", encoder)
    push_phi(tmp_path / "own.safetensors", NAME)
    assert (sorted(hub.files), hub.created[0]["name"]) == (["README.md", "phi.safetensors"], "coats")
    assert encoder.identity.weights in hub.files["README.md"].decode()
    path = download_phi(NAME)
    assert path.read_bytes() == (tmp_path / "own.safetensors").read_bytes()
    assert load_phi(path, encoder).encoder_weights == encoder.identity.weights


def test_what_is_no_phi_is_not_uploaded_or_downloaded(hub: type[HubHandler], tmp_path: Path) -> None:
    (tmp_path / "pickle.pt").write_bytes(b"a pickle of weights")
    save_file({"layers.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    for name, reason in (
        ("pickle.pt", "cannot be read as safetensors"),
        ("none.safetensors", "cannot be read as safetensors"),
        ("other.safetensors", "the file does not name its encoder"),
    ):
        with pytest.raises(EncoderError, match=rf"^.*{name}: {reason}.*$"):
            push_phi(tmp_path / name, NAME)
    assert not hub.created
    hub.files["phi.pt"] = b"a pickle"
    with pytest.raises(EncoderError, match=rf"^{NAME}: there is no phi\.safetensors; expected"):
        download_phi(NAME)
