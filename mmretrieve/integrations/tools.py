"""A search of a gallery as a tool that language models call, in the form of OpenAI's functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mmretrieve.errors import MMRetrieveError
from mmretrieve.integrations.hits import described
from mmretrieve.options import load_json
from mmretrieve.retriever import Retriever
from mmretrieve.server.agents import AgentSearch, inlined
from mmretrieve.server.errors import error_line, validation_line
from mmretrieve.server.limits import Limits
from mmretrieve.server.uploads import Uploads

DESCRIPTION = "Find images like a reference, changed as the prompt says. Without a reference, find images by words."


class SearchTool:
    """A search as a function of a chat model: `definition` goes into the list of tools, and the object is called with the arguments.

    Arguments are those of `POST /api/search`; images are base64. Files of this machine are not read.

    Parameters
    ----------
    retriever : Retriever
        Searches the gallery.
    name : str, default="search_images"
        The name of the function.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> tool = SearchTool(mm.Retriever.open(mm.wardrobe.gallery_folder()))
    >>> tool.definition["type"], tool.definition["function"]["name"]
    ('function', 'search_images')
    >>> json.loads(tool('{"prompt": "a red dress", "k": 1}'))["hits"][0]["colour"]
    'red'
    """

    def __init__(self, retriever: Retriever, name: str = "search_images") -> None:
        self.name, self._retriever, self._uploads = name, retriever, Uploads(Limits())

    @property
    def definition(self) -> dict[str, Any]:
        """The tool as JSON values: its name, description and the JSON schema of its arguments."""
        parameters = inlined(AgentSearch.model_json_schema())
        del parameters["properties"]["upload"]  # nothing is uploaded to it
        return {"type": "function", "function": {"name": self.name, "description": DESCRIPTION, "parameters": parameters}}

    def __call__(self, arguments: str | Mapping[str, Any]) -> str:
        """Answers a call.

        Parameters
        ----------
        arguments : str or mapping of str to Any
            The arguments, as JSON or parsed.

        Returns
        -------
        str
            JSON with `hits`, each with id, title, score, contributions and the fields of the item, and how the query was read; or with
            `error`, one line that says what to change.
        """
        try:
            values = load_json(arguments) if isinstance(arguments, str) else arguments
        except ValueError:
            return json.dumps({"error": "the arguments are not JSON; send an object"})
        try:
            request = AgentSearch.model_validate(values).to_request(self._uploads)
            ranking = self._retriever.search_requests([request])[0]
        except ValidationError as error:
            return json.dumps({"error": validation_line(error.errors())})
        except MMRetrieveError as error:
            return json.dumps({"error": error_line(error, self._retriever.gallery)})
        hits = [metadata for _, _, metadata in described(self._retriever, ranking)]
        for hit in hits:
            del hit["path"]  # private
        return json.dumps(ranking.query | {"hits": hits}, ensure_ascii=False)
