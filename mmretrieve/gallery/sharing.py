"""Galleries on the Hugging Face Hub: datasets in the layout of `Gallery.export`, without images, paths, pickles or code."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from mmretrieve.encoders.base import Progress
from mmretrieve.errors import GalleryError
from mmretrieve.gallery import transfer
from mmretrieve.gallery.local_view import LocalView
from mmretrieve.gallery.manifest import Manifest

KIND = "dataset"  # of a repository
DOWNLOADED = (transfer.MANIFEST, f"{transfer.VECTORS}/*.npy", f"{transfer.METADATA}/*.parquet")
SUMMARY = "Vectors (float16 unit rows) and fields of images for composed image retrieval with mmretrieve, without the images."
TAGS = ("mmretrieve", "image-retrieval")


def push(view: LocalView, name: str, *, private: bool | None, progress: Progress | None) -> str:
    """Uploads a gallery with a card. Returns its address. Raises as `export` and `upload` do."""
    from mmretrieve.hub import upload, write_card  # only here, as it imports the client of the Hub

    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = transfer.export(view, folder, progress, with_paths=False)
        code = f'import mmretrieve as mm\n\ngallery = mm.Gallery.from_hub({json.dumps(name)}, "a.gallery")'
        write_card(folder, SUMMARY, _facts(view.manifest.without_folder(), count), code, TAGS)
        return upload(folder, name, KIND, private=private)


def pull(name: str, revision: str | None) -> tuple[Path, Manifest]:
    """The downloaded folder and the manifest in it. Raises as `download` does, and GalleryError if it is no gallery."""
    from mmretrieve.hub import download  # only here, as it imports the client of the Hub

    folder = download(name, KIND, DOWNLOADED, revision)
    manifest = transfer.read_manifest(folder)
    if manifest is None:
        raise GalleryError(f"{name}: there is no {transfer.MANIFEST}; expected a dataset that Gallery.push_to_hub uploaded")
    return folder, manifest


def _facts(manifest: Manifest, count: int) -> dict[str, object]:
    encoder = manifest.encoder
    return {
        "items": count,
        "dimension": manifest.dim,
        "encoder": encoder.model,
        "encoder weights": encoder.weights,
        "encoder preprocessing": encoder.preprocessing,
        "fields": {field: str(kind) for field, kind in manifest.fields.items()},
    }
