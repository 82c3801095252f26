"""What the shell's commands share: galleries and encoders by the names a person types, progress, and what is printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmretrieve import arguments
from mmretrieve.gallery.milvus.address import is_address
from mmretrieve.options import BUILT_IN

if TYPE_CHECKING:
    from mmretrieve.encoders.openclip import OpenClipEncoder

DONE, FAILED = 0, 1


def gallery_named(name: str) -> Path | str:
    """The folder of that name, the built-in gallery where there is no such folder and the name is `wardrobe`, or an address."""
    if is_address(name):
        return name
    if name != BUILT_IN or Path(name).is_dir():
        return Path(name)
    from mmretrieve import wardrobe

    return wardrobe.gallery_folder()


def load(options: argparse.Namespace, spec: str) -> OpenClipEncoder:
    from mmretrieve.encoders.openclip import load_encoder

    return load_encoder(spec, device=options.device, dtype=options.dtype)


def bar(total: int, unit: str, quiet: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", disable=quiet or None, file=sys.stderr)


def out(options: argparse.Namespace, text: str, data: Any) -> None:
    """The text, or the data as JSON where that was asked for."""
    print(json.dumps(data, ensure_ascii=False) if options.json else text)


def tell(lines: Iterable[str]) -> None:
    """One line each on stderr, as the shell's own."""
    for line in lines:
        print(f"mmretrieve: {arguments.printable(line)}", file=sys.stderr)
