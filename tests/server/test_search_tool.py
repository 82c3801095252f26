"""A search as a function that chat models call."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import mmretrieve as mm
from mmretrieve.integrations.tools import SearchTool
from mmretrieve.request import REQUEST_FIELDS

REFERENCE = mm.wardrobe.pictures_folder() / "red-checked-dress-1815.png"


@pytest.fixture(scope="module")
def tool() -> SearchTool:
    return SearchTool(mm.Retriever.open(mm.wardrobe.gallery_folder()), "find")


def test_the_definition_is_one_of_a_function(tool: SearchTool) -> None:
    definition = json.loads(json.dumps(tool.definition))
    assert (definition["type"], definition["function"]["name"]) == ("function", "find")
    parameters = definition["function"]["parameters"]
    jsonschema.Draft202012Validator.check_schema(parameters)
    assert REQUEST_FIELDS.keys() <= parameters["properties"].keys() | {"judge"}
    assert "upload" not in parameters["properties"], "nothing is uploaded to it"
    assert "$ref" not in json.dumps(parameters), "many models do not follow references"
    jsonschema.validate({"prompt": "in red", "k": 3}, parameters)


def test_a_call_is_a_search(tool: SearchTool) -> None:
    retriever = mm.Retriever.open(mm.wardrobe.gallery_folder())
    image = base64.b64encode(REFERENCE.read_bytes()).decode()
    query: dict[str, Any] = {"prompt": ["in blue"], "k": 3, "where": "kind = 'dress'"}
    expected = retriever.search(REFERENCE, **query)
    for arguments in (
        query | {"image": image},
        json.dumps(query | {"image": [image]}),
        query | {"image": image, "prompt": '["in blue"]'},
    ):
        answer = json.loads(tool(arguments))
        assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [(hit.id, hit.score) for hit in expected]
    assert answer["hits"][0].items() >= retriever.gallery.item(expected[0].id).fields.items()
    assert answer["weights"] == dict(expected.weights)
    assert str(mm.wardrobe.pictures_folder()) not in json.dumps(answer), "paths are private"


def test_fields_with_the_names_of_other_metadata_are_kept(tmp_path: Path, encoder: mm.Encoder) -> None:
    own: dict[str, str | float] = {
        "id": "A 7",
        "score": 4.5,
        "path": "aisle 3",
        "contributions": "none",
        "title": "A hat",
        "colour": "red",
    }
    gallery = mm.Gallery.create(tmp_path / "g", encoder=encoder)
    gallery.add_items([("hat.png", REFERENCE, own)])
    (hit,) = json.loads(SearchTool(mm.Retriever(gallery, encoder))({"prompt": "a hat"}))["hits"]
    assert (hit["id"], hit["title"], hit["colour"], "path" in hit) == ("hat.png", "A hat", "red", False)
    assert {f"field {name}": value for name, value in own.items() if name != "colour"}.items() <= hit.items()
    assert isinstance(hit["score"], float)
    assert isinstance(hit["contributions"], dict)


def test_an_error_of_a_part_is_not_one_of_the_arguments() -> None:
    class Broken:
        def rewrite(self, *_: object) -> list[str]:
            raise ValueError("broken")

    gallery = mm.open_gallery(mm.wardrobe.gallery_folder())
    parts = mm.Parts(rewriter=Broken())
    tool = SearchTool(mm.Retriever.open(mm.wardrobe.gallery_folder(), parts=parts))
    with pytest.raises(ValueError, match="broken"):
        tool({"reference_id": gallery.ids[0], "prompt": "in red"})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("", "the arguments are not JSON; send an object"),
        ("{", "the arguments are not JSON; send an object"),
        ("{}", "the query is empty; give"),
        ('{"promt": "in red"}', "unknown field 'promt'; did you mean 'prompt'"),
        ('{"prompt": "in red", "k": 0}', "k must be at least 1"),
        ('{"reference_id": "nobody"}', "no item 'nobody' in this gallery"),
        ('{"image": "/etc/passwd"}', "expected an image as base64"),
        ('{"image": "http://127.0.0.1/x.png"}', "URLs are never fetched"),
        ("[1]", "object"),
    ],
)
def test_a_wrong_call_is_one_line(tool: SearchTool, arguments: str, error: str) -> None:
    answer = json.loads(tool(arguments))
    assert list(answer) == ["error"]
    assert error in answer["error"]
    assert "\n" not in answer["error"]
