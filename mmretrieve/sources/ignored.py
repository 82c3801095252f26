"""What folders and archives contain besides the images that are read: counted by kind, so that nothing is passed over in silence."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

from mmretrieve.errors import OptionError
from mmretrieve.images import SUFFIXES
from mmretrieve.sources.base import suffix


class IgnoredKind(StrEnum):
    """The kinds of files and folders that are not read, as a report names them."""

    HEIF = "HEIC or HEIF images"
    JXL = "JPEG XL images"
    RAW = "camera RAW images"
    LAYERED = "PSD and other layered images"
    OTHER_IMAGES = "images of other formats"
    VIDEO = "videos"
    ARCHIVE = "archives"
    TABLE = "tables"
    LINK = "linked folders"
    SYSTEM = "hidden or system files"
    EXCLUDED = "excluded"
    OTHER = "other files"


SUFFIXES_OF_KIND = {
    IgnoredKind.HEIF: ".heic .heif .hif .avci",
    IgnoredKind.JXL: ".jxl",
    IgnoredKind.RAW: (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
    ),
    IgnoredKind.LAYERED: ".afphoto .clip .kra .psb .psd .xcf",
    IgnoredKind.OTHER_IMAGES: ".ai .dcm .dds .djvu .emf .eps .exr .fits .hdr .pcx .pdf .svg .svgz .wmf .xbm .xpm",
    IgnoredKind.VIDEO: ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv",
    IgnoredKind.ARCHIVE: ".7z .bz2 .cbr .cbz .gz .iso .lz4 .rar .tar .tbz2 .tgz .txz .xz .zip .zst",
    IgnoredKind.TABLE: ".csv .jsonl .ndjson .parquet .tsv",
}
KIND_OF_SUFFIX = {ending: kind for kind, endings in SUFFIXES_OF_KIND.items() for ending in endings.split()}
PLUGIN_KINDS = (IgnoredKind.HEIF, IgnoredKind.JXL)  # kinds that are read with `mmretrieve[formats]`
SYSTEM_NAMES = frozenset(
    # Synology, QNAP and other NAS; macOS; Windows; Linux; version control without a leading dot
    [
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "recycler",
        "lost+found",
        "cvs",
        "_darcs",
    ]
    + ["system volume information"]
)
SYSTEM_PATTERN = re.compile(r"\.|~\$|.*~$|#.*#$|.*\.lrdata$", re.IGNORECASE)  # hidden, temporary, previews of an editor


class FileFilter:
    """Decides which files of folders and archives are read, and counts the others.

    Parameters
    ----------
    suffixes : collection of str
        The suffixes of the files that are read.
    exclude : iterable of str
        Patterns with `*`, `?` and `[…]` of what is left out: of the name of a file or folder, or of its path in the source.
    """

    def __init__(self, suffixes: Collection[str], exclude: Iterable[str] = ()) -> None:
        self._suffixes = frozenset(suffixes)
        patterns = "|".join(fnmatch.translate(pattern.rstrip("/")) for pattern in check_exclude(exclude))
        self._exclude = re.compile(patterns) if patterns else None

    def ignores_name(self, path: str) -> IgnoredKind | None:
        """Why a file or folder is left out by its name; None if it is not."""
        name = path.rpartition("/")[2]
        if SYSTEM_PATTERN.match(name) or name.casefold() in SYSTEM_NAMES:
            return IgnoredKind.SYSTEM
        if self._exclude is not None and (self._exclude.match(path) or self._exclude.match(name)):
            return IgnoredKind.EXCLUDED
        return None

    def ignores_path(self, path: str) -> IgnoredKind | None:
        """The same for a path whose folders have not been tested, as in an archive."""
        members = [member for member in path.split("/") if member not in (".", "..")]
        paths = ("/".join(members[:count]) for count in range(1, len(members) + 1))
        return next(filter(None, map(self.ignores_name, paths)), None)

    def ignores_file(self, path: str) -> IgnoredKind | None:
        """Why a file whose name is not left out is not read; None if it is read."""
        ending = suffix(path)
        return None if ending in self._suffixes else KIND_OF_SUFFIX.get(ending, IgnoredKind.OTHER)


def check_exclude(patterns: object) -> tuple[str, ...]:
    """The patterns. Raises OptionError unless they are a list of texts that are not blank."""
    given = None if isinstance(patterns, str | bytes) or not isinstance(patterns, Iterable) else tuple(patterns)
    if given is None or not all(isinstance(pattern, str) and pattern.strip("/ ") for pattern in given):
        raise OptionError(f"exclude must be a list of patterns such as ['*_small.jpg', 'drafts'], got {patterns!r:.80}")
    return given


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """The counts in one line, most useful kinds first; empty if nothing was ignored.

    >>> describe_ignored({"videos": 2, "other files": 1})
    'videos (2), other files (1)'
    """
    missing = [kind for kind in PLUGIN_KINDS if ignored.get(kind) and not SUFFIXES.intersection(SUFFIXES_OF_KIND[kind].split())]
    hint = "; pip install 'mmretrieve[formats]' to read " + " and ".join(missing) if missing else ""
    return ", ".join(f"{kind} ({ignored[kind]:,})" for kind in IgnoredKind if ignored.get(kind)) + hint
