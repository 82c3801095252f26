"""Captions, rewrites, paraphrases, descriptions, edited images and roles from files: the roles of `base`, looked up instead of generated."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from mmretrieve.composer_input import ComposerInput
from mmretrieve.errors import MMRetrieveError, OptionError
from mmretrieve.images import SUFFIXES, ImageLike
from mmretrieve.language.base import Captioner, Description, Roles
from mmretrieve.language.llm.cache import AnswerCache, is_answer_cache
from mmretrieve.language.llm.client import clean_sentence, phrases, text_or_none
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.language.text_records import (
    CAPTION_FIELDS,
    EDITED_FIELDS,
    ID_FIELDS,
    PARAPHRASE_FIELDS,
    PROMPT_FIELDS,
    REWRITE_FIELDS,
    TARGET_FIELDS,
    TextRecords,
)
from mmretrieve.request import normalized

V = TypeVar("V")
Pair = tuple[str, str]  # a caption and a prompt
REFERENCE_IDS = tuple(name for name in ID_FIELDS if name != "reference")  # here "reference" may be a description
ROLE_FIELDS = ("global", "desired", "preserve", "forbidden")
MAX_NAMED_ENTRIES = 3  # missing ones, in a message
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileCaptioner:
    """Captions by the id of an image (`ComposerInput.id`; `IdLookup` says which spellings are equal).

    Parameters
    ----------
    path : the file, for messages.
    by_id : captions by image id.
    fallback : captions images that the file lacks; None makes a missing caption an error.
    by_query : captions by image id and prompt, for files with captions per prompt; they are preferred to those of `by_id`.
    """

    path: Path
    by_id: Mapping[str, Sequence[str]] = field(repr=False)
    fallback: Captioner | None = None
    by_query: Mapping[Pair, Sequence[str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        id_field: str | None = None,
        caption_field: str | None = None,
        prompt_field: str | None = None,
        fallback: Captioner | None = None,
    ) -> FileCaptioner:
        """Read records with an id and a caption, or a list of captions. An id may have several records.

        With `prompt_field` the captions of a record are those of one query; another prompt gets all captions of its image.
        Repeated captions within a record are kept: their number is how often a model generated them. Records without a new
        caption are ignored.

        Raises
        ------
        OptionError : if a field is not recognized, or more than one is.
        MMRetrieveError : if the file cannot be read.
        """
        records = TextRecords.read(path)
        id_name = records.field("id", ID_FIELDS, id_field)
        caption_name = records.field("caption", CAPTION_FIELDS, caption_field)
        prompt_name = None if prompt_field is None else records.field("prompt", PROMPT_FIELDS, prompt_field)
        by_id: dict[str, list[str]] = {}
        by_query: dict[Pair, list[str]] = {}
        for number in range(1, len(records.rows) + 1):
            name = records.text(number, id_name)
            image_captions = by_id.setdefault(name, [])
            captions = [caption for caption in records.texts(number, caption_name) if caption]
            if not set(captions) <= set(image_captions):
                image_captions.extend(captions)
            if prompt_name is not None:
                by_query.setdefault((name, records.text(number, prompt_name)), captions)
        return cls(records.path, {name: captions for name, captions in by_id.items() if captions}, fallback, by_query)

    def captions(self, inputs: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """The first `count` captions of each image, fewer if the file has fewer (a warning counts these images).

        Raises
        ------
        MMRetrieveError : if images have no caption and there is no `fallback`; the message counts and names them.
        OptionError : if a query has no id.
        """
        ids = [self._ids.find(id_of(query)) for query in inputs]
        missing = [query for query, name in zip(inputs, ids, strict=True) if name is None]
        what, allowed = "images' captions", self.fallback is not None
        report_missing(self.path, what, [id_of(query) for query in missing], len(inputs), allowed=allowed)
        captions = [
            self._look_up(name, query)[:count] if name is not None else [] for name, query in zip(ids, inputs, strict=True)
        ]
        if short := sum(0 < len(several) < count for several in captions):
            logger.warning("%s: %d of %d images have fewer than %d captions", self.path, short, len(inputs), count)
        others = iter(self.fallback.captions(missing, count) if missing and self.fallback is not None else [])
        return [several or next(others) for several in captions]

    def _look_up(self, name: str, query: ComposerInput) -> list[str]:
        return list(self.by_query.get((name, (query.prompt or "").strip())) or self.by_id[name])

    @cached_property
    def _ids(self) -> IdLookup:
        return IdLookup(self.by_id)


@dataclass(frozen=True)
class FileRewriter:
    """Rewrites by caption and prompt. If a pair has several, the first one counts, and a warning counts the others."""

    path: Path
    by_pair: Mapping[Pair, str] = field(repr=False)
    allow_missing: bool = False

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        caption_field: str | None = None,
        prompt_field: str | None = None,
        rewrite_field: str | None = None,
        allow_missing: bool = False,
    ) -> FileRewriter:
        """Read records with a caption, a prompt and a rewrite, or with equally long lists of captions and rewrites.

        An `AnswerCache` with the answers of an `EndpointRewriter` can be read as well.

        Raises
        ------
        OptionError : if a field is not recognized, or more than one is.
        MMRetrieveError : if the file cannot be read, or lists differ in length.
        """
        path = Path(path)
        if is_answer_cache(path):
            rewrites = _cached_rewrites(path)
        else:
            rewrites = _rewrites(TextRecords.read(path), caption_field, prompt_field, rewrite_field)
        by_pair: dict[Pair, str] = {}
        repeated = sum(by_pair.setdefault(pair, rewrite) != rewrite for pair, rewrite in rewrites)
        if repeated:
            logger.warning("%s: %d further rewrites of the same caption and prompt are ignored", path, repeated)
        return cls(path, by_pair, allow_missing)

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewrite for each pair, in order; "" for a missing one if that is allowed.

        Raises
        ------
        MMRetrieveError : if rewrites are missing and that is not allowed; the message counts and names them.
        """
        pairs = [(caption.strip(), prompt.strip()) for caption, prompt in zip(captions, prompts, strict=True)]
        missing = [f"{caption!r} with {prompt!r}" for caption, prompt in pairs if not self.by_pair.get((caption, prompt))]
        report_missing(self.path, "rewrites", missing, len(pairs), allowed=self.allow_missing)
        return [self.by_pair.get(pair, "") for pair in pairs]


@dataclass(frozen=True)
class FileParaphraser:
    """Paraphrases by prompt. Neither case nor spaces of a prompt matter."""

    path: Path
    by_prompt: Mapping[str, Sequence[str]] = field(repr=False)
    allow_missing: bool = False

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        prompt_field: str | None = None,
        rewrite_field: str | None = None,
        allow_missing: bool = False,
    ) -> FileParaphraser:
        """Read records with a prompt and a list of paraphrases, or a JSON object {prompt: paraphrases}. A prompt may have several records.

        Raises
        ------
        OptionError : if a field is not recognized, or more than one is.
        MMRetrieveError : if the file cannot be read.
        """
        records = TextRecords.read(path)
        is_object = records.fields == ["id", "caption"]  # as `TextRecords` reads one
        prompt = records.field("prompt", ("id",) if is_object else PROMPT_FIELDS, prompt_field)
        texts = records.field("rewrite", ("caption",) if is_object else PARAPHRASE_FIELDS, rewrite_field)
        by_prompt: dict[str, list[str]] = {}
        for number in range(1, len(records.rows) + 1):
            by_prompt.setdefault(normalized(records.text(number, prompt)), []).extend(records.texts(number, texts))
        return cls(records.path, by_prompt, allow_missing)

    def paraphrase(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        """The first `count` paraphrases of each prompt; none for a prompt that the file lacks if that is allowed, else MMRetrieveError."""
        several = [self.by_prompt.get(normalized(prompt)) for prompt in prompts]
        missing = [repr(prompt) for prompt, texts in zip(prompts, several, strict=True) if texts is None]
        report_missing(self.path, "prompts' paraphrases", missing, len(prompts), allowed=self.allow_missing)
        return [list(texts or ())[:count] for texts in several]


@dataclass(frozen=True)
class FileDescriber:
    """Descriptions of targets, by the reference's id and the prompt."""

    entries: RequestLookup[Description]
    allow_missing: bool = False

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        id_field: str | None = None,
        prompt_field: str | None = None,
        rewrite_field: str | None = None,
        allow_missing: bool = False,
    ) -> FileDescriber:
        """Read records with an id, a prompt, a description of the target and, optionally, one of the reference."""
        records = TextRecords.read(path)
        records.field("id", REFERENCE_IDS, id_field)  # required: a description belongs to one image
        target = records.field("rewrite", TARGET_FIELDS, rewrite_field)
        descriptions = [Description(text_or_none(row.get(target)), text_or_none(row.get("reference"))) for row in records.rows]
        return cls(_by_query(records, descriptions, id_field, prompt_field), allow_missing)

    def describe(self, inputs: Sequence[ComposerInput]) -> list[Description]:
        """One description for each query; `Description(None)` for a missing one if that is allowed, else MMRetrieveError."""
        entries = self.entries.find(inputs, "descriptions", allow_missing=self.allow_missing)
        return [entry or Description(None) for entry in entries]


@dataclass(frozen=True)
class FileEditor:
    """Edited images by the reference's id and the prompt. A file names them by their paths, from its own folder."""

    entries: RequestLookup[Path]
    allow_missing: bool = False

    @classmethod
    def read(
        cls, path: str | Path, *, id_field: str | None = None, prompt_field: str | None = None, allow_missing: bool = False
    ) -> FileEditor:
        """Read records with an id, a prompt and the path of the edited image."""
        records = TextRecords.read(path)
        records.field("id", REFERENCE_IDS, id_field)  # required: an edited image belongs to one reference
        edited = records.field("edited image", EDITED_FIELDS, None)
        paths = [records.path.parent / records.text(number, edited) for number in range(1, len(records.rows) + 1)]
        return cls(_by_query(records, paths, id_field, prompt_field), allow_missing)

    def edit(self, inputs: Sequence[ComposerInput]) -> list[ImageLike]:
        """One image for each query; the reference itself for a missing one if that is allowed, else MMRetrieveError."""
        entries = self.entries.find(inputs, "edited images", allow_missing=self.allow_missing)
        return [query.required_image() if entry is None else entry for query, entry in zip(inputs, entries, strict=True)]


@dataclass(frozen=True)
class FileCompiler:
    """Roles by prompt, and by the reference's id if the file has ids."""

    entries: RequestLookup[Roles]
    allow_missing: bool = False

    @classmethod
    def read(
        cls, path: str | Path, *, id_field: str | None = None, prompt_field: str | None = None, allow_missing: bool = False
    ) -> FileCompiler:
        """Read records with a prompt, optionally an id, and any of: global (a text), desired, preserve, forbidden (lists)."""
        records = TextRecords.read(path)
        if not set(ROLE_FIELDS) & set(records.fields):
            raise OptionError(f"{records.path}: expected any of {', '.join(ROLE_FIELDS)}, got {', '.join(records.fields)}")
        whole, *lists = ROLE_FIELDS
        roles = [Roles(text_or_none(row.get(whole)), *(phrases(row.get(name)) for name in lists)) for row in records.rows]
        return cls(_by_query(records, roles, id_field, prompt_field), allow_missing)

    def compile(self, inputs: Sequence[ComposerInput]) -> list[Roles]:
        """The roles of each query; those of `RuleCompiler` for a missing one if that is allowed, else MMRetrieveError."""
        entries = self.entries.find(inputs, "roles", allow_missing=self.allow_missing)
        by_rule = RuleCompiler().compile(inputs)
        return [rule if roles is None else roles for roles, rule in zip(entries, by_rule, strict=True)]


class IdLookup:
    """Finds ids that are spelled differently: the same text, else the same bare name if it is unique among the ids.

    A bare name has no folder, no suffix of an image file and no leading zeros.

    >>> IdLookup(["21179", "dog"]).find("images/021179.jpg")
    '21179'
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._bare: dict[str, list[str]] = {}
        for each in sorted(self._ids):
            self._bare.setdefault(bare_name(each), []).append(each)

    def find(self, name: str) -> str | None:
        """The id for this name; None if there is none, or more than one."""
        if name in self._ids:
            return name
        candidates = self._bare.get(bare_name(name), [])
        return candidates[0] if len(candidates) == 1 else None


def bare_name(name: str) -> str:
    """An image's name without folder, suffix and leading zeros."""
    path = PurePosixPath(name.strip())
    short = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return short.lstrip("0") or short[-1:]


@dataclass(frozen=True)
class RequestLookup(Generic[V]):
    """Entries by prompt, and by the id of the reference if the file has ids."""

    path: Path
    entries: Mapping[tuple[str | None, str], V] = field(repr=False)

    def find(self, inputs: Sequence[ComposerInput], what: str, *, allow_missing: bool) -> list[V | None]:
        """The entry of each query.

        Parameters
        ----------
        inputs : the queries.
        what : what the entries are, for messages.
        allow_missing : return None for missing entries, with a warning, instead of raising MMRetrieveError.
        """
        keys = [(id_of(query) if self._names else None, query.required_prompt()) for query in inputs]
        entries = [self.entries.get((self._id(name), prompt)) for name, prompt in keys]
        missing_keys = [key for key, entry in zip(keys, entries, strict=True) if entry is None]
        missing = [repr(prompt) if name is None else f"{prompt!r} of {name}" for name, prompt in missing_keys]
        report_missing(self.path, what, missing, len(inputs), allowed=allow_missing)
        return entries

    def _id(self, name: str | None) -> str | None:
        """The id in the file, "" if it is not there; None in a file without ids."""
        return None if name is None or self._names is None else self._names.find(name) or ""

    @cached_property
    def _names(self) -> IdLookup | None:
        ids = [name for name, _ in self.entries if name is not None]
        return IdLookup(ids) if ids else None


def id_of(query: ComposerInput) -> str:
    """The id of a query's reference, else the path of its image.

    Raises
    ------
    OptionError : if it has neither.
    """
    if query.id is not None:
        return query.id
    if isinstance(query.image, str | Path):
        return str(query.image)
    raise OptionError("texts from a file are found by the id of the reference, and this query has none; give it one")


def report_missing(path: Path, what: str, missing: Sequence[str], total: int, *, allowed: bool) -> None:
    """Count missing entries and name the first: in a warning if they are allowed, else in MMRetrieveError."""
    if not missing:
        return
    first = "; ".join(missing[:MAX_NAMED_ENTRIES]) + ("; …" if len(missing) > MAX_NAMED_ENTRIES else "")
    message = f"{path}: {len(missing)} of {total} {what} are missing or ambiguous: {first}"
    if not allowed:
        raise MMRetrieveError(f"{message}; add them, or give --allow-missing")
    logger.warning("%s", message)


def _by_query(records: TextRecords, values: Sequence[V], id_field: str | None, prompt_field: str | None) -> RequestLookup[V]:
    """The value of each record by prompt, and by id if there is one. The first of equal records counts."""
    name = records.find_field("id", REFERENCE_IDS, id_field)
    prompt = records.field("prompt", PROMPT_FIELDS, prompt_field)
    entries: dict[tuple[str | None, str], V] = {}
    for number, value in enumerate(values, 1):
        entries.setdefault((records.text(number, name) if name else None, records.text(number, prompt)), value)
    return RequestLookup(records.path, entries)


def _cached_rewrites(path: Path) -> Iterator[tuple[Pair, str]]:
    """Pairs and rewrites of a cache of answers."""
    for request, answer in AnswerCache(path).answers("rewrite"):
        texts = (*map(request.get, ("caption", "prompt")), answer) if isinstance(request, Mapping) else ()
        if not texts or not all(isinstance(text, str) for text in texts):
            raise MMRetrieveError(
                f"{path}: an answer to a rewrite is not one text to a caption and a prompt; name another file"
            )
        yield (str(texts[0]), str(texts[1])), clean_sentence(str(answer))


def _rewrites(
    records: TextRecords, caption_field: str | None, prompt_field: str | None, rewrite_field: str | None
) -> Iterator[tuple[Pair, str]]:
    """Pairs and rewrites of a file of records."""
    caption = records.field("caption", CAPTION_FIELDS, caption_field)
    prompt = records.field("prompt", PROMPT_FIELDS, prompt_field)
    rewrite = records.field("rewrite", REWRITE_FIELDS, rewrite_field)
    for number in range(1, len(records.rows) + 1):
        captions, rewrites = records.texts(number, caption), records.texts(number, rewrite)
        if len(captions) != len(rewrites):
            raise records.error(
                number, f"{len(captions)} in {caption!r} and {len(rewrites)} in {rewrite!r}; expected lists of equal length"
            )
        for before, after in zip(captions, rewrites, strict=True):
            yield (before, records.text(number, prompt)), after
