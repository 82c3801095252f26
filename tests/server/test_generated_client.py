"""A client that openapi-python-client writes from the document of a server, used against this server."""

from __future__ import annotations

import base64
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from live_server import served

import mmretrieve as mm
from mmretrieve.server.app import create_app
from mmretrieve.server.auth import Auth

TOKEN = "correct-horse"
PACKAGE = "generated_client"
CONFIG = {"content_type_overrides": {"image/jpeg": "application/octet-stream"}, "post_hooks": []}


@dataclass(frozen=True)
class Generated:
    """The package, and its client of a live server."""

    client: Any

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGE}.{name}")

    @property
    def models(self) -> Any:
        return self.module("models")

    def file(self, content: bytes) -> Any:
        return self.module("types").File(io.BytesIO(content), "dress.png", "image/png")

    def call(self, operation: str, **arguments: Any) -> Any:
        return self.module(f"api.default.{operation}").sync(client=self.client, **arguments)


@pytest.fixture(scope="module")
def document(link: str) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{link}/api/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    return document


@pytest.fixture(scope="module")
def link(retriever: mm.Retriever) -> Iterator[str]:
    with served(create_app(retriever, auth=Auth(token=TOKEN))) as link:
        yield link


@pytest.fixture(scope="module")
def generated(link: str, document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    folder = tmp_path_factory.mktemp("client")
    for name, content in (("openapi.json", document), ("config.json", CONFIG)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    program = Path(sys.executable).with_name("openapi-python-client")
    words = ["generate", "--path", "openapi.json", "--config", "config.json", "--output-path", PACKAGE, "--meta", "none"]
    ended = subprocess.run([program, *words, "--fail-on-warning"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    sys.path.insert(0, str(folder))
    try:
        client = importlib.import_module(PACKAGE).AuthenticatedClient(link, TOKEN, timeout=httpx.Timeout(60))
        with client:
            yield Generated(client)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def file(photos: Path) -> Path:
    return sorted(photos.rglob("*.png"))[7]


def hits_of(response: Any) -> list[tuple[str, float, dict[str, float]]]:
    return [(hit.id, hit.score, hit.contributions.to_dict()) for hit in response.hits]


def expected(ranking: mm.Ranking) -> list[tuple[str, float, dict[str, float]]]:
    return [(hit.id, hit.score, dict(hit.contributions)) for hit in ranking]


def test_a_search_with_a_prompt_alone(generated: Generated, retriever: mm.Retriever) -> None:
    body = generated.models.SearchBody(prompt="in red")
    defaults = {"paraphrases": 1, "k": 10, "exclude_reference": False, "axis_weight": 1.0, "judge_k": 20, "judge_weight": 1.0}
    assert body.to_dict() == {"prompt": "in red"} | defaults
    assert hits_of(generated.call("search", body=body)) == expected(retriever.search(prompt="in red"))


def test_a_search_with_everything(generated: Generated, retriever: mm.Retriever, file: Path) -> None:
    coded = base64.b64encode(file.read_bytes()).decode()
    weights = {"image": 0.5, "composed": 1.0}
    query = {"prompt": "in red", "strength": [0.5], "avoid": ["stripes"], "where": "width > 90", "k": 4}
    body = generated.models.SearchBody(
        image=[coded], weights=generated.models.SearchBodyWeightsType0.from_dict(weights), region=None, caption=None, **query
    )
    assert hits_of(generated.call("search", body=body)) == expected(retriever.search(file, weights=weights, **query))


def test_files_in_forms_and_uploads(generated: Generated, retriever: mm.Retriever, file: Path) -> None:
    ranking = expected(retriever.search(file, "in red", k=5))
    request = json.dumps({"prompt": "in red", "k": 5})
    form = generated.models.BodySearchForm(image=[generated.file(file.read_bytes())], request=request)
    assert hits_of(generated.call("search_form", body=form)) == ranking
    upload = generated.call("upload", body=generated.file(file.read_bytes())).upload
    search = generated.models.SearchBody(upload=upload, prompt="in red", k=5)
    assert hits_of(generated.call("search", body=search)) == ranking
    assert generated.call("uploaded", upload=upload).payload.read()[:2] == b"\xff\xd8"


def test_a_batch_with_an_error(generated: Generated, retriever: mm.Retriever) -> None:
    models = generated.models
    requests = [models.SearchBody(prompt="in red"), models.SearchBody(prompt="in red", composer="sun")]
    first, second = generated.call("batch", body=models.BatchRequest(requests=requests)).answers
    assert hits_of(first) == expected(retriever.search(prompt="in red"))
    assert second.error.startswith("unknown composer 'sun'; did you mean 'sum'?")


def test_a_session(generated: Generated, retriever: mm.Retriever) -> None:
    models = generated.models
    first = models.TurnBody(prompt="a red dress", k=4, where="width < 90")
    turns = [first, models.TurnBody(prompt="with dots", k=6, drop=["where"])]
    answer = generated.call("session", body=models.SessionRequest(turns=turns, decay=0.5))
    assert hits_of(answer) == expected(retriever.search(prompt=["a red dress", "with dots"], strength=[0.5, 1], k=6))


def test_items_and_images(generated: Generated, retriever: mm.Retriever) -> None:
    id_ = retriever.gallery.ids[3]
    page = generated.call("items", where="width > 90", limit=2)
    assert [item.id for item in page.items] == list(retriever.gallery.ids[:2])
    assert generated.call("item", id=id_).width == retriever.gallery.item(id_).width
    assert generated.call("thumbnail", id=id_).payload.read() == retriever.gallery.thumbnail(id_)
    assert generated.call("item", id="none").error == "no item 'none' in this gallery"


def test_info_has_types(generated: Generated, retriever: mm.Retriever) -> None:
    info, identity = generated.call("info"), retriever.gallery.encoder_identity
    assert (info.items, info.dim) == (len(retriever.gallery), retriever.gallery.dim)
    assert (info.encoder.model, info.encoder.weights) == (identity.model, identity.weights)
    assert isinstance(info.index.factory, str)
    assert generated.call("health").status == "ok"


def test_the_token_is_part_of_the_document(generated: Generated, document: dict[str, Any], link: str) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert all(operation["security"] == [{"bearer": []}] for operation in operations)
    stranger = generated.module("client").Client(link)
    assert generated.module("api.default.health").sync(client=stranger).error == "this server requires a token"


def test_no_field_has_a_list_as_its_default(document: dict[str, Any]) -> None:
    schemas: dict[str, Any] = document["components"]["schemas"]
    fields = [field for schema in schemas.values() for field in schema.get("properties", {}).values()]
    assert not [field for field in fields if isinstance(field.get("default"), list)]
    assert not [field for field in fields if "default" in field and {"type": "null"} in field.get("anyOf", ())]


def test_files_are_binary_everywhere(document: dict[str, Any]) -> None:
    binary = {"type": "string", "format": "binary"}
    paths = document["paths"]
    uploads = paths["/api/uploads"]["post"]["requestBody"]["content"]
    assert uploads == {"application/octet-stream": {"schema": binary}}
    form = document["components"]["schemas"]["Body_search_form"]["properties"]["image"]
    assert (form["type"], form["items"]) == ("array", binary)
    for path in ("/api/image", "/api/thumbnail", "/api/uploads/{upload}"):
        assert paths[path]["get"]["responses"]["200"]["content"] == {"image/jpeg": {"schema": binary}}
    assert "contentMediaType" not in json.dumps(document)


@pytest.mark.parametrize(
    ("auth", "required"), [(Auth(), None), (Auth(user=("ann", "battery-staple")), [{"basic": []}])], ids=["open", "user"]
)
def test_every_server_names_all_credentials(retriever: mm.Retriever, auth: Auth, required: Any) -> None:
    with served(create_app(retriever, auth=auth)) as link:
        document = httpx.get(f"{link}/api/openapi.json", auth=auth.user).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "basic"}
    assert document["paths"]["/api/search"]["post"].get("security") == required
