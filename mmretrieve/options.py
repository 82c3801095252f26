"""Closed choices and defaults, stated once for functions, shell and page. Nothing heavy is imported here."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final, NoReturn

from mmretrieve.errors import OptionError, unknown

MAX_NUMBER = 1_000_000  # of a weight, a strength or a bound on scores, either way
REGION_SIDES = 4  # left, top, right and bottom
DEFAULT_K = 10
DEFAULT_JUDGE_K = 20
DEFAULT_JUDGE_SECONDS = 20.0  # of all candidates of one search; a server answers within 30
MAX_PARAPHRASES = 6  # wordings of a prompt, its own included
DEFAULT_RECALL = 0.99  # of an index: the share of the ten best that it must find
AUTO: Final = "auto"
BALANCED: Final = "balanced"
BASE: Final = "base"
NO_MATCH = 0.35  # below it, `answerable` says that nothing in the gallery fits
MAX_PAIRS = 256  # of a reference and a prompt, in one query
DEFAULT_CAPTION_FIELD = "caption"
DEFAULT_CAPTION_WEIGHT = 0.15  # of the caption of an item in its vector
DEFAULT_TIMEOUT = 60.0  # seconds, for one answer of an endpoint
MIN_SECRET_CHARACTERS = 8  # of a server's token or password
DEFAULT_ENCODER = "ViT-B-32/laion2b_s34b_b79k"
BUILT_IN = "wardrobe"
BUILT_IN_MODEL = Path(__file__).parent / "wardrobe" / "model"
SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*(?:([KMGT])(I?))?B?\s*", re.ASCII | re.IGNORECASE)  # number, prefix, "i"
UNITS = "bytes", "kB", "MB", "GB", "TB"


def is_number(value: object) -> bool:
    """Whether this is a finite real number, one of numpy's included; True and False are not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return isfinite(value)
    except OverflowError:
        return False


def check_size(name: str, value: float) -> float:
    """The number as a float. Raises OptionError, with the name, beyond MAX_NUMBER either way, so that sums of products stay finite."""
    if abs(value) > MAX_NUMBER:
        raise OptionError(f"{name} must be from {-MAX_NUMBER:,} to {MAX_NUMBER:,}, got {value!r}")
    return float(value)


def check_count(name: str, value: Any, low: int = 1, high: float = inf) -> int:
    """The value as an int. Raises OptionError, with the name, unless it is a whole number from `low` to `high`; numpy's are accepted."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        expected = f"of at least {low}" if high == inf else f"from {low} to {high}"
        raise OptionError(f"{name} must be a whole number {expected}, got {value!r}")
    return int(value)


def check_bytes(name: str, value: Any) -> int:
    """The value as a number of bytes: a whole number of at least 1, or text such as "4GB", "1.5 GiB" or "500000".

    Raises OptionError, with the name, for anything else.

    >>> check_bytes("memory", "1.5 GB"), check_bytes("memory", "1kib"), check_bytes("memory", 500)
    (1500000000, 1024, 500)
    """
    if isinstance(value, str):
        match = SIZE.fullmatch(value)
        size = Fraction(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index((match[2] or " ").upper()) if match else 0
    else:
        size = 0 if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    if size < 1:
        raise OptionError(f"{name} must be a size of at least 1 byte, such as 4GB, 500MB or 1.5GiB; got {value!r:.80}")
    return int(size)


def format_bytes(count: float) -> str:
    """A number of bytes with three digits.

    >>> format_bytes(520), format_bytes(88_432_100), format_bytes(4e9)
    ('520 bytes', '88.4 MB', '4 GB')
    """
    exponent = next((i for i, _ in enumerate(UNITS) if count < 999.5 * 1000**i), len(UNITS) - 1)
    return f"{count / 1000**exponent:.3g} {UNITS[exponent]}"


def check_path(name: str, value: Any, *, on_disk: bool = True) -> Path:
    """The value as a Path. Raises OptionError, with the name, unless it is text or a Path that the file system accepts.

    It need not exist. `on_disk=False` does not ask the file system.
    """
    if not isinstance(value, str | Path):
        raise OptionError(f"{name} must be a path, got {value!r:.80}")
    if value == "":
        raise OptionError(f"{name} is empty; name a file or a folder, such as . for this one")
    if on_disk:
        try:
            os.lstat(value)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:  # a name that is too long, a folder that may not be read
            raise OptionError(f"{name} {str(value)!r:.200}: {error.strerror}") from error
        except ValueError as error:  # a null character, half a surrogate pair
            raise OptionError(f"{name} {str(value)!r:.200}: is not a path ({error})") from error
    return Path(value)


def regular_status(path: str | Path) -> os.stat_result:
    """The status of a file. Raises OSError if there is none, and for what is not a regular file: a pipe or a device has no end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file")
    return status


def check_regular(path: str | Path, max_bytes: int | None = None) -> Path:
    """The path, which need not exist. Raises OSError for what is not a regular file, or has more bytes."""
    if os.path.lexists(path):
        size = regular_status(path).st_size
        if max_bytes is not None and size > max_bytes:
            raise OSError(errno.EFBIG, f"has more than {max_bytes:,} bytes")
    return Path(path)


def cache_folder() -> Path:
    """Returns the folder for derived files: the environment variable MMRETRIEVE_CACHE, else the user's cache folder.

    Returns
    -------
    Path
        The folder, which may not exist yet.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> mm.wardrobe.gallery_folder().is_relative_to(mm.wardrobe.cache_folder())
    True
    """
    if folder := os.environ.get("MMRETRIEVE_CACHE"):
        return Path(folder)
    from platformdirs import user_cache_path

    return user_cache_path("mmretrieve", appauthor=False)


def load_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], object] | None = None) -> Any:
    """The value of a JSON text that a stranger may have written; `pairs` makes an object of its names and values.

    Whatever is wrong with the text is a ValueError (json.JSONDecodeError, or one for lists that are nested too deeply and numbers
    of too many digits), so that its reader can name the file.

    >>> load_json('{"price": 20}')
    {'price': 20}
    >>> load_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deeply
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("nested too deeply") from None


class OptionEnum(StrEnum):
    """A closed choice, parsed once where a word comes in: `ComposerName("sun")` raises OptionError and lists the choices."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__.removesuffix("Name"))
        raise unknown(words.lower(), value, cls)


class ComposerName(OptionEnum):
    """The built-in composers: ways to make the terms of a query. `register_composer` adds others.

    Examples
    --------
    >>> from mmretrieve import ComposerName
    >>> ComposerName("sum") is ComposerName.SUM, str(ComposerName.ONE_STEP)
    (True, 'one-step')
    """

    IMAGE = "image"
    PROMPT = "prompt"
    SUM = "sum"
    SLERP = "slerp"
    CAPTIONS = "captions"
    LDRE = "ldre"
    SEIZE = "seize"
    ONE_STEP = "one-step"
    SDR = "sdr"
    ROLES = "roles"
    JOINT = "joint"
    IMAGINED = "imagined"
    PIC2WORD = "pic2word"
    SEARLE = "searle"
    SEARLE_OTI = "searle-oti"
    LINCIR = "lincir"


class RuleName(OptionEnum):
    """The built-in score rules: ways to combine the scores of a query's terms into one. `register_rule` adds others.

    Examples
    --------
    >>> from mmretrieve import RuleName
    >>> RuleName("hinge") is RuleName.HINGE, str(RuleName.HARRIS)
    (True, 'product-harris')
    """

    LINEAR = "linear"
    HINGE = "hinge"
    SOFT = "soft"
    PRODUCT = "product"
    HARRIS = "product-harris"


class JudgeName(OptionEnum):
    """The built-in judges that need no model beside the encoder."""

    ATTRIBUTES = "attributes"
    LOCAL = "local"


class EndpointJudgeName(OptionEnum):
    """The judges behind an endpoint: one candidate at a time, all candidates at once, or a server that reranks."""

    POINTWISE = "endpoint"
    LISTWISE = "endpoint-listwise"
    RERANK = "endpoint-rerank"


class RewriterName(OptionEnum):
    """The built-in rewriters that need no model."""

    TEMPLATE = "template"
    SWAP = "swap"


class ParaphraserName(OptionEnum):
    """The built-in paraphrasers that need no model."""

    TEMPLATES = "templates"


class CaptionerName(OptionEnum):
    """The built-in captioner that needs no other model."""

    TAGGER = "tagger"


class CaptionSource(OptionEnum):
    """Where a caption comes from: the caller, an item's fields, the fields of its neighbors, the tagger, or a model."""

    GIVEN = "given"
    FIELDS = "fields"
    NEIGHBORS = "neighbors"
    TAGGER = "tagger"
    CAPTIONER = "captioner"


class Preprocessing(OptionEnum):
    """What an encoder does to an image before its own resizing: nothing, or SEARLE's padding of long ones to 1.25 : 1."""

    PLAIN = "plain"
    TARGET_PAD = "targetpad"


class Modality(OptionEnum):
    """What an encoder can encode: an image, a text, an image and a text together, or each patch of an image."""

    IMAGE = "image"
    TEXT = "text"
    PAIR = "pair"
    PATCHES = "patches"

    @property
    def description(self) -> str:
        """What an encoder of this modality encodes, in words."""
        named = {Modality.PAIR: "pairs of image and text", Modality.PATCHES: "patches of images"}
        return named.get(self, f"{self.value}s")


class Dtype(OptionEnum):
    """The dtype in which an image tower computes. Vectors are always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


class Decode(OptionEnum):
    """How a gallery decodes images: "exact" decodes every pixel; "fast" shrinks JPEG while decoding.

    "fast" is about twice as fast, and gives slightly different vectors. A gallery keeps the choice it was created with.

    Examples
    --------
    >>> from mmretrieve import Decode
    >>> Decode("fast") is Decode.FAST
    True
    """

    EXACT = "exact"
    FAST = "fast"


class Colors(OptionEnum):
    """How a gallery reads the colors of images: "srgb" applies embedded color profiles, as viewers do; "raw" ignores them.

    Papers encode raw values, so evaluation does. A gallery keeps the choice it was created with.

    Examples
    --------
    >>> from mmretrieve import Colors
    >>> Colors("raw") is Colors.RAW
    True
    """

    SRGB = "srgb"
    RAW = "raw"


OLD_COLORS: Final = Colors.RAW
"""The choice of galleries that were made before there was one."""
