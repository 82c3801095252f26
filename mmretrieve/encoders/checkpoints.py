"""Says in one sentence why a file or a folder of weights cannot be loaded, and what to do. Nothing is unpickled."""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten

from mmretrieve.errors import EncoderError
from mmretrieve.options import BUILT_IN, BUILT_IN_MODEL, load_json

PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and of DistributedDataParallel, around the names of all weights
MAX_REASON_CHARACTERS = 300
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, as in that library
AGAIN = "download it again"
CONFIG = "open_clip_config.json"
PACKAGES = {CONFIG: "open_clip", "modules.json": "sentence_transformers", "config.json": "transformers"}
"""The file that a folder of each package has → the package. A folder of sentence-transformers may have config.json, too."""
HUB_PACKAGES = ("sentence_transformers", "transformers")
"""The packages that prefixes of names stand for, as in "transformers:org/name"."""
CHECKPOINT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
HUGGING_FACE = (
    "weights of Hugging Face transformers, which have other names than those of open_clip; name their folder, which has config.json, "
    "or use the open_clip form of the model (MODEL/TAG or hf-hub:org/name)"
)
ALONE = "load it where it was made, and save its weights alone: torch.save(model.state_dict(), 'weights.pt')"
SIGNATURES = (  # the first bytes of files that are no weights of PyTorch
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights; run `git lfs pull`"),
    (b"GGUF", "a GGUF file of llama.cpp, which open_clip does not load; use the original weights of the model"),
    (b"\x89HDF", "an HDF5 file (Keras), which open_clip does not load; use the PyTorch weights of the model"),
    (b"\x1f\x8b", "a gzip archive; unpack it, and name the weights in it"),
    (b"\xfd7zXZ", "an xz archive; unpack it, and name the weights in it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it, and name the weights in it"),
    (b"Rar!", "a RAR archive; unpack it, and name the weights in it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it, and name the weights in it"),
    (b"{", "a JSON file, such as a configuration, not weights; name the file of weights beside it"),
)


def file_problem(path: Path, error: Exception) -> str:
    """Why a file of weights cannot be loaded, given the error of the attempt: what it is, and what to do.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "weights.pt"
    ...     _ = path.write_text("<!doctype html><html>Please log in")
    ...     print(file_problem(path, ValueError("invalid load key")))
    an HTML page that was saved in place of the weights; download it again
    """
    try:
        with path.open("rb") as file:
            head = file.read(1024)
        kind = _kind(path, head, path.stat().st_size)
    except OSError as failed:
        return f"it cannot be read ({failed.strerror or failed})"
    return kind or state_problem(error) or _object_problem(error) or _other_problem(error)


def split_package(spec: str) -> tuple[str | None, str]:
    """The package that the prefix of a name stands for, and the name without it; None and the name if it has no such prefix.

    >>> split_package("sentence-transformers:clip-ViT-B-32"), split_package("ViT-B-32/openai")
    (('sentence_transformers', 'clip-ViT-B-32'), (None, 'ViT-B-32/openai'))
    """
    prefix, _, name = spec.partition(":")
    package = prefix.replace("-", "_")
    return (package, name) if prefix != spec and package in HUB_PACKAGES else (None, spec)


def encoder_folder(spec: str) -> Path | None:
    """The folder of the encoder with that name; None for one that has none of its own.

    >>> encoder_folder("wardrobe") == BUILT_IN_MODEL, encoder_folder("ViT-B-32/openai")
    (True, None)
    """
    if spec == BUILT_IN:
        return BUILT_IN_MODEL
    name = split_package(spec)[1]
    return Path(name).resolve() if os.path.isdir(name) and not spec.startswith("hf-hub:") else None


def folder_package(folder: Path) -> str:
    """The package that loads the encoder in a folder. Raises EncoderError if there is none in it.

    >>> folder_package(BUILT_IN_MODEL)
    'open_clip'
    """
    for name, package in PACKAGES.items():
        if (folder / name).is_file():
            return package
    *names, last = (f"{name} ({package.replace('_', '-')})" for name, package in PACKAGES.items())
    raise EncoderError(f"{folder}: not an encoder folder; expected {', '.join(names)} or {last} in it")


def folder_weights(folder: Path) -> Path | None:
    """The file of weights in an encoder folder that open_clip would load; None if there is none."""
    named = [folder / name for name in CHECKPOINT_NAMES]
    others = [path for suffix in ("safetensors", "bin", "pth") for path in sorted(folder.glob(f"*.{suffix}"))]
    return next((path for path in [*named, *others] if path.is_file()), None)


def is_json(path: Path) -> bool:
    """Whether a file is valid JSON."""
    try:
        load_json(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def strip_prefixes(name: str) -> str:
    """The name of a weight without PREFIXES.

    >>> strip_prefixes("module._orig_mod.visual.proj")
    'visual.proj'
    """
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def state_problem(error: Exception) -> str | None:
    """How weights and model differ, from the error of `load_state_dict`; None for another error."""
    text = str(error)
    missing, unexpected = _names("Missing", text), _names("Unexpected", text)
    sizes = re.findall(r"size mismatch for (\S+): .*?shape torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)", text)
    if not (missing or unexpected or sizes):
        return None
    if any(name.startswith(("vision_model.", "text_model.")) for name in unexpected):
        return HUGGING_FACE
    if any("lora_" in name for name in unexpected):
        return "an adapter (LoRA), not a whole model; merge it into its model, and save the weights of that"
    counts = ((len(missing), "missing"), (len(unexpected), "unknown"), (len(sizes), "of another shape"))
    told = ", ".join(f"{count} {what}" for count, what in counts if count)
    if sizes:
        name, there, here = sizes[0]
        first = f"{name} is {there} in the file and {here} in the model"
    else:
        first = f"{(missing or unexpected)[0]} is {'missing' if missing else 'unknown'}"
    return f"weights of another model ({told}; first: {first}); name the model that they were made for"


def one_line(error: object) -> str:
    """The text of an error as one line without escape codes, shortened at a word."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error)) or type(error).__name__
    text = "".join(c if c.isprintable() else " " for c in text)
    return shorten(text, MAX_REASON_CHARACTERS, placeholder=" …")


def _kind(path: Path, head: bytes, size: int) -> str | None:
    """What a file is, if its first bytes show why it cannot be loaded."""
    if not size:
        return f"an empty file; {AGAIN}"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"an HTML page that was saved in place of the weights; {AGAIN}"
    if (length := _safetensors_length(head)) is not None:
        return _safetensors_problem(path, length, size)
    for signature, kind in SIGNATURES:
        if head.startswith(signature):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it, and name the weights in it"
    if path.suffix == ".onnx" or (head.startswith(b"\x08") and b"pytorch" in head[:64]):
        return "an ONNX model, which open_clip does not load; use the PyTorch weights that it was made of"
    if head.startswith(b"PK"):
        return _zip_problem(path)
    if path.suffix == ".safetensors":
        return f"not a safetensors file, though it is named so; {AGAIN}"
    if head.startswith((b"\x80", b"\x93NUMPY")):  # a pickle, or an array of NumPy
        return None
    return f"not a file of weights; {AGAIN}, or name another"


def _safetensors_length(head: bytes) -> int | None:
    """The length of the header of a safetensors file; None for another file."""
    if len(head) < 10 or head[8:9] != b"{":
        return None
    (length,) = struct.unpack("<Q", head[:8])
    return int(length) if length <= MAX_HEADER_BYTES else None


def _safetensors_problem(path: Path, length: int, size: int) -> str | None:
    """Whether a safetensors file is shorter than its header says, or has another suffix."""
    try:
        with path.open("rb") as file:
            header = load_json(file.read(8 + length)[8:])
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return f"a damaged safetensors file; {AGAIN}"
    if size < 8 + length + end:
        return f"a truncated safetensors file, of which {size:,} of {8 + length + end:,} bytes are there; {AGAIN}"
    return None if path.suffix == ".safetensors" else "a safetensors file; give it a name that ends in .safetensors"


def _zip_problem(path: Path) -> str | None:
    """What a ZIP file is; None for weights of PyTorch, whose files have this form."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickled = next((name for name in names if name.rpartition("/")[2] == "data.pkl"), None)
            content = b"" if pickled is None else archive.open(pickled).read(MAX_HEADER_BYTES)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return f"a truncated or damaged file of PyTorch; {AGAIN}"
    if pickled is None:
        return "a ZIP archive; unpack it, and name the weights in it"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return "a TorchScript program, which is not run; save its weights alone: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
    if b"pytorch-lightning_version" in content:
        return f"a checkpoint of Lightning, whose weights have other names and objects beside them; {ALONE}"
    return None


def _object_problem(error: Exception) -> str | None:
    """Which object stops a pickle from being loaded; None for another error."""
    found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
    if found is None:
        return None
    name = found[1].rstrip(".,")
    kind = "a training checkpoint" if name.startswith(("numpy", "_codecs", "argparse", "omegaconf")) else "a file"
    return f"{kind} with Python objects ({name}), which are not loaded, because a pickle can run any program; {ALONE}"


def _other_problem(error: Exception) -> str:
    if isinstance(error, EOFError) or "unexpected EOF" in str(error) or "central directory" in str(error):
        return f"a truncated file; {AGAIN}"
    if isinstance(error, KeyError):
        return f"weights of another model (there is no {one_line(error)} in them); name the model that they were made for"
    if isinstance(error, StopIteration | AttributeError | TypeError):
        return f"a file without named weights; {ALONE}"
    return f"weights that PyTorch cannot read ({one_line(error)}); {AGAIN}, or name another file"


def _names(kind: str, text: str) -> Sequence[str]:
    """The names of weights that an error of `load_state_dict` lists as missing or unexpected."""
    parts: Iterable[str] = re.findall(rf"{kind} key\(s\) in state_dict: (.*?)\. *$", text, re.MULTILINE)
    return [name for part in parts for name in re.findall(r'"([^"]+)"', part)]
