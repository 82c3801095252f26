"""Phis on the Hugging Face Hub: models of one safetensors file, which contains no pickle and no code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors import SafetensorError, safe_open

from mmretrieve.errors import EncoderError
from mmretrieve.hub import download, upload, write_card
from mmretrieve.inversion.phi import ENCODER_KEY, FILE
from mmretrieve.options import check_path, check_regular

KIND = "model"  # of a repository
SUMMARY = "Maps an image feature to a pseudo token, for composed image retrieval with mmretrieve. It works with one encoder:"
TAGS = ("mmretrieve", "textual-inversion")


def push_phi(path: str | Path, name: str, *, private: bool | None = None) -> str:
    """Uploads a phi as a model of the Hub, with a card that names its encoder. A card that the model has already is kept.

    Parameters
    ----------
    path : str or Path
        A .safetensors file of `mmretrieve train-phi`.
    name : str
        The name of the model, `OWNER/NAME`. It is created, or its file is replaced.
    private : bool, optional
        Whether a new model is private. By default as the owner's settings on the Hub say.

    Returns
    -------
    str
        The address of the model.

    Raises
    ------
    EncoderError
        The file is not a phi that names its encoder.
    MMRetrieveError
        The Hub cannot be reached, or refuses the name or the token.
    """
    file = check_path("path", path)
    facts = _encoder_of(file)
    code = f"from mmretrieve.inversion.sharing import download_phi\n\npath = download_phi({json.dumps(name)})"
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copyfile(file, folder / FILE)
        write_card(folder, SUMMARY, facts, code, TAGS)
        return upload(folder, name, KIND, private=private)


def download_phi(name: str, *, revision: str | None = None) -> Path:
    """Downloads a phi that `push_phi` uploaded.

    Parameters
    ----------
    name : str
        The name of the model, `OWNER/NAME`.
    revision : str, optional
        A branch, tag or commit. By default the main branch.

    Returns
    -------
    Path
        The file in the cache of the Hub, for `load_phi` and `--phi`.

    Raises
    ------
    EncoderError
        The model has no such file.
    MMRetrieveError
        The Hub cannot be reached and the model is not in its cache, or there is no such model.
    """
    file = download(name, KIND, [FILE], revision) / FILE
    if not file.is_file():
        raise EncoderError(f"{name}: there is no {FILE}; expected a model that push_phi uploaded")
    return file


def _encoder_of(file: Path) -> dict[str, str]:
    """The metadata of a phi, which name its encoder. Raises EncoderError if they do not."""
    try:
        with safe_open(check_regular(file), framework="pt") as weights:
            metadata: dict[str, str] = weights.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{file}: cannot be read as safetensors ({error})") from error
    if ENCODER_KEY not in metadata:
        raise EncoderError(f"{file}: the file does not name its encoder; expected one of mmretrieve train-phi")
    return metadata
