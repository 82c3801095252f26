"""Encoders by name, and of objects: models of other packages are recognized by their class, without an import of these packages."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

from mmretrieve.encoders.base import Encoder, EncoderContext, EncoderIdentity, NamedEncoder, identity_of
from mmretrieve.encoders.checkpoints import HUB_PACKAGES, encoder_folder, folder_package, split_package
from mmretrieve.errors import EncoderError, OptionError, checks_keywords
from mmretrieve.options import AUTO, Preprocessing
from mmretrieve.registry import ENCODERS

if TYPE_CHECKING:
    from types import ModuleType

EncoderLike: TypeAlias = object
"""An `Encoder`, or a model that `as_encoder` makes one of."""
MODULES = {"open_clip": "openclip", "sentence_transformers": "sentence_transformers", "transformers": "transformers"}
"""Package → the module here that loads its models."""
REQUIRED_MEMBERS = ("dim", "encode_images", "encode_texts")
OPTIONAL_MEMBERS = (
    "supports",
    "encode_pairs",
    "encode_patches",
    "feature_batches",
    "context_length",
    "fits_context",
    "image_size",
    "dtype",
)


class IdentifiedEncoder:
    """An encoder object that has no identity of its own, with the members of an encoder that it has, and this identity."""

    def __init__(self, encoder: Any, identity: EncoderIdentity) -> None:
        self.identity = identity
        for name in (*REQUIRED_MEMBERS, *OPTIONAL_MEMBERS):
            if hasattr(encoder, name):
                setattr(self, name, getattr(encoder, name))


@overload
def load_encoder(
    spec: str | Path, *, device: str = AUTO, dtype: str = AUTO, preprocessing: str = Preprocessing.PLAIN
) -> NamedEncoder: ...


@overload
def load_encoder(spec: EncoderLike, *, identity: EncoderIdentity | None = None) -> Encoder: ...


@checks_keywords
def load_encoder(
    spec: EncoderLike,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    preprocessing: str = Preprocessing.PLAIN,
    identity: EncoderIdentity | None = None,
) -> Encoder:
    """Loads an encoder by name, or makes one of an object. Nothing is unpickled, and no code of a model is executed.

    Parameters
    ----------
    spec : str, Path or object
        "wardrobe" (built in); a name of `register_encoder` or of an installed package; "MODEL/TAG" or "MODEL/checkpoint.safetensors", an open_clip model and its weights;
        "hf-hub:org/name"; a folder with open_clip_config.json and open_clip_model.safetensors; a folder of transformers (CLIP,
        MetaCLIP 2, SigLIP or SigLIP 2) or of sentence-transformers; "transformers:MODEL" or "sentence-transformers:MODEL", the name
        of such a model on the Hugging Face Hub, or its folder. Or an object: a `SentenceTransformer`; a model of transformers,
        whose processor is loaded from where the model was, or a pair (model, processor); any `Encoder`.
    device : str, default="auto"
        "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:N" or "mps". An object stays on its device.
    dtype : str, default="auto"
        The dtype in which the image tower computes: "float32", "bfloat16", "float16", "int8" (on x86 CPUs with AVX2) or "auto",
        which is bfloat16 if the hardware supports it, else float32; on a CPU it is int8 if this tower is at least 1.2 times as fast in it as
        in bfloat16, or twice as fast as in float32, and its vectors have a mean cosine of at least 0.9995 to those of float32. Texts are
        always encoded in float32. Vectors are always float32. Only models of open_clip have int8. A model of sentence-transformers
        computes altogether in the dtype; "auto" is float32 there.
    preprocessing : str, default="plain"
        "plain", or "targetpad" to pad long images first (see `images.target_pad`).
    identity : EncoderIdentity, optional
        The identity of an encoder object that has none.

    Returns
    -------
    Encoder
        The encoder; an object that is one already, as it is.

    Raises
    ------
    OptionError
        The name, the device or the dtype is unknown, or not available on this machine; the object is no encoder, or has no identity.
    EncoderError
        The weights cannot be loaded, do not fit the model, or its int8 vectors differ too much from those of float32; a package is
        missing.

    Examples
    --------
    >>> from mmretrieve import EncoderIdentity, load_encoder
    >>> encoder = load_encoder("wardrobe")
    >>> encoder.encode_texts(["a red dress", "a blue shirt"]).shape
    (2, 128)
    >>> load_encoder(encoder) is encoder
    True
    """
    if isinstance(spec, str | Path):
        if identity is not None:
            raise OptionError(
                f"identity is for an encoder object; that of {str(spec)!r} follows from its weights: leave it out"
            )
        return _load_name(str(spec), device, dtype, Preprocessing(preprocessing))
    if (device, dtype, preprocessing) != (AUTO, AUTO, Preprocessing.PLAIN):
        raise OptionError("device, dtype and preprocessing are for names of encoders, not for an object; leave them out")
    encoder = as_encoder(spec)
    kind = f"an object of type {type(encoder).__name__}"
    if missing := [name for name in REQUIRED_MEMBERS if not hasattr(encoder, name)]:
        raise OptionError(f"{kind} is no encoder, which has {', '.join(REQUIRED_MEMBERS)} and identity: it has no {missing[0]}")
    if identity is not None:
        return cast(Encoder, IdentifiedEncoder(encoder, identity))
    if not isinstance(getattr(encoder, "identity", None), EncoderIdentity):
        raise OptionError(
            f"{kind} has no identity, by which a gallery recognizes its encoder: give load_encoder(…, "
            "identity=EncoderIdentity(name, weights, preprocessing))"
        )
    return encoder


def _load_name(name: str, device: str, dtype: str, preprocessing: Preprocessing) -> Encoder:
    if name not in ENCODERS:
        package, folder = split_package(name)[0], encoder_folder(name)
        module = _module(package or ("open_clip" if folder is None else folder_package(folder)))
        return cast(NamedEncoder, module.load(name, device=device, dtype=dtype, preprocessing=preprocessing))
    from mmretrieve.encoders.dtypes import resolve_dtype  # torch only for a name
    from mmretrieve.encoders.openclip import resolve_device

    context = EncoderContext(name, resolve_device(device), dtype, preprocessing)
    resolve_dtype(dtype, context.device)
    encoder: Encoder = ENCODERS.build(name, context)
    if (model := identity_of(encoder).model) != name:
        raise OptionError(
            f"encoder {name!r}: its identity names the model {model!r}, with which galleries could not load it again; "
            f"give it EncoderIdentity({name!r}, …)"
        )
    return encoder


def as_encoder(value: EncoderLike) -> Encoder:
    """The encoder of a model of sentence-transformers or transformers, or of a pair (model, processor); anything else as it is."""
    if isinstance(value, Encoder):
        return value
    package = _package_of(value[0] if isinstance(value, tuple) and len(value) == 2 else value)
    return cast(Encoder, value if package is None else _module(package).wrap(value))


def _package_of(model: object) -> str | None:
    """The package that a class of the model comes from; None for other objects."""
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    return next((name for name in HUB_PACKAGES if name in packages), None)


def _module(package: str) -> ModuleType:
    try:
        return import_module(f"mmretrieve.encoders.{MODULES[package]}")
    except ModuleNotFoundError as error:
        name = str(error.name).replace("_", "-")
        raise EncoderError(
            f"a model of {package.replace('_', '-')} needs the package {name}; install it with: pip install 'mmretrieve[encoders]'"
        ) from error
