"""Models of transformers and sentence-transformers on the Hugging Face Hub: downloads what is loaded of them, which excludes pickles and code."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from mmretrieve.encoders.checkpoints import encoder_folder, one_line, split_package
from mmretrieve.errors import EncoderError, OptionError
from mmretrieve.hub import offline_if_unreachable, quiet_hub

DOWNLOADED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
NOT_DOWNLOADED = ("onnx/*", "openvino/*", "original/*")  # the same weights in other forms
DEFAULT_OWNER = "sentence-transformers"  # of a name of that package without an owner, as there


def locate_model(spec: str) -> tuple[Path, str]:
    """The folder of a model, downloaded if it is a name on the Hub, and the name by which `load_encoder` finds the model again.

    Raises OptionError for a name that cannot exist, and EncoderError if the model is neither on this machine nor downloaded.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     locate_model(f"transformers:{folder}") == (Path(folder).resolve(), f"transformers:{Path(folder).resolve()}")
    True
    """
    package, name = split_package(spec)
    if (folder := encoder_folder(spec)) is not None:
        return folder, str(folder) if package is None else f"{spec.removesuffix(name)}{folder}"
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise OptionError(
            f"{spec}: there is no such folder, and no model of the Hub has such a name; expected {spec.removesuffix(name)}org/name or a folder"
        )
    is_short = package == "sentence_transformers" and "/" not in name
    return _download(f"{DEFAULT_OWNER}/{name}" if is_short else name, spec), spec


def _download(name: str, spec: str) -> Path:
    """The folder with the files of a repository, from the cache of the Hub if it is unreachable."""
    try:
        with offline_if_unreachable(needed=True), quiet_hub():
            return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED), ignore_patterns=list(NOT_DOWNLOADED)))
    except Exception as error:  # of the network, the Hub or the file system
        is_unreachable = isinstance(error, LocalEntryNotFoundError)  # its text is about a variable that nobody has set
        reason = "it is not in the cache, and the Hub cannot be reached" if is_unreachable else one_line(error)
        raise EncoderError(
            f"{spec}: the model could not be downloaded ({reason}); without a network, give a folder with it: "
            f"{spec.partition(':')[0]}:FOLDER"
        ) from error
