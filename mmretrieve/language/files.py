"""Words from files: captions, rewrites, descriptions and roles that somebody made before, looked up instead of made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from mmretrieve.composer_input import ComposerInput
from mmretrieve.errors import OptionError
from mmretrieve.language.base import Captioner, Description
from mmretrieve.language.llm.cache import AnswerCache, is_memory
from mmretrieve.language.llm.parsing import phrases, sentence, words_or_none
from mmretrieve.language.lookup import IdLookup, RequestLookup, id_of, settle_missing
from mmretrieve.language.roles import Roles, RuleCompiler
from mmretrieve.language.tables import CAPTION_FIELDS, ID_FIELDS, PROMPT_FIELDS, REWRITE_FIELDS, TARGET_FIELDS, TextRecords

V = TypeVar("V")
Pair = tuple[str, str]  # a caption and a prompt
REFERENCE_IDS = tuple(name for name in ID_FIELDS if name != "reference")  # here "reference" may be words
ROLE_FIELDS = ("global", "desired", "preserve", "forbidden")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileCaptioner:
    """Captions by the id of an image (`ComposerInput.id`; see `IdLookup` for how ids meet). `otherwise` says what the file does not.

    An image may have been captioned anew for each prompt; where `by_query` knows id and prompt, those captions come first.
    """

    path: Path
    by_id: Mapping[str, Sequence[str]] = field(repr=False)
    otherwise: Captioner | None = None
    by_query: Mapping[Pair, Sequence[str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        id_field: str | None = None,
        caption_field: str | None = None,
        prompt_field: str | None = None,
        otherwise: Captioner | None = None,
    ) -> FileCaptioner:
        """From records with an id and a caption, or a list of captions; an id may have several records.

        With `prompt_field` each record is of one prompt, and its captions are those of that query; another prompt gets all
        captions of its image. Repeated captions of one record stay: they are how often a model said so. A record that says nothing new is passed
        over. Raises OptionError for fields that are not recognised or not certain, MMRetrieveError for an unreadable file.
        """
        records = TextRecords.read(path)
        id_name = records.field("id", ID_FIELDS, id_field)
        caption_name = records.field("caption", CAPTION_FIELDS, caption_field)
        prompt_name = None if prompt_field is None else records.field("prompt", PROMPT_FIELDS, prompt_field)
        by_id: dict[str, list[str]] = {}
        by_query: dict[Pair, list[str]] = {}
        for number in range(1, len(records.rows) + 1):
            name = records.text(number, id_name)
            known = by_id.setdefault(name, [])
            said = [caption for caption in records.texts(number, caption_name) if caption]
            if not set(said) <= set(known):
                known.extend(said)
            if prompt_name is not None:
                by_query.setdefault((name, records.text(number, prompt_name)), said)
        return cls(records.path, {name: said for name, said in by_id.items() if said}, otherwise, by_query)

    def captions(self, queries: Sequence[ComposerInput], count: int = 1) -> list[list[str]]:
        """The first `count` captions of each image, fewer where the file has fewer (a warning counts these images).

        Raises MMRetrieveError, counting and naming them, where images have none and there is no `otherwise`.
        """
        found = [self._names.find(id_of(query)) for query in queries]
        missing = [query for query, name in zip(queries, found, strict=True) if name is None]
        what, allowed = "images' captions", self.otherwise is not None
        settle_missing(self.path, what, [id_of(query) for query in missing], len(queries), allowed=allowed)
        said = [
            self._known(name, query)[:count] if name is not None else [] for name, query in zip(found, queries, strict=True)
        ]
        if short := sum(0 < len(several) < count for several in said):
            logger.warning("%s: %d of %d images have fewer than %d captions", self.path, short, len(queries), count)
        others = iter(self.otherwise.captions(missing, count) if missing and self.otherwise is not None else [])
        return [several or next(others) for several in said]

    def _known(self, name: str, query: ComposerInput) -> list[str]:
        return list(self.by_query.get((name, (query.prompt or "").strip())) or self.by_id[name])

    @cached_property
    def _names(self) -> IdLookup:
        return IdLookup(self.by_id)


@dataclass(frozen=True)
class FileRewriter:
    """Rewrites by caption and prompt. Where a pair has several, the first stands; a warning counts them when they are read."""

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
        """From records with a caption, a prompt and a rewrite, or lists of captions and rewrites as long as each other.

        A memory in which `EndpointRewriter` keeps its answers serves as well. Raises OptionError for fields that are not
        recognised or not certain, MMRetrieveError naming the record for lists of other lengths.
        """
        path = Path(path)
        told = _kept(path) if is_memory(path) else _pairs(TextRecords.read(path), caption_field, prompt_field, rewrite_field)
        by_pair: dict[Pair, str] = {}
        several = sum(by_pair.setdefault(pair, rewrite) != rewrite for pair, rewrite in told)
        if several:
            logger.warning("%s: %d rewrites of pairs that have one already are passed over", path, several)
        return cls(path, by_pair, allow_missing)

    def rewrite(self, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
        """One rewrite a pair, in order; "" for a missing one where that is allowed. Else MMRetrieveError counts and names them."""
        pairs = [(caption.strip(), prompt.strip()) for caption, prompt in zip(captions, prompts, strict=True)]
        missing = [f"{caption!r} with {prompt!r}" for caption, prompt in pairs if not self.by_pair.get((caption, prompt))]
        settle_missing(self.path, "rewrites", missing, len(pairs), allowed=self.allow_missing)
        return [self.by_pair.get(pair, "") for pair in pairs]


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
        """From records with an id, a prompt, a target (the caption rewritten) and perhaps a reference, each said in words."""
        records = TextRecords.read(path)
        records.field("id", REFERENCE_IDS, id_field)  # a description is of one picture
        target = records.field("rewrite", TARGET_FIELDS, rewrite_field)
        said = [Description(words_or_none(row.get(target)), words_or_none(row.get("reference"))) for row in records.rows]
        return cls(_by_query(records, said, id_field, prompt_field), allow_missing)

    def describe(self, queries: Sequence[ComposerInput]) -> list[Description]:
        """One description a query; one without words for a missing one where that is allowed, else MMRetrieveError."""
        found = self.entries.find(queries, "descriptions", allow_missing=self.allow_missing)
        return [said or Description(None) for said in found]


@dataclass(frozen=True)
class FileCompiler:
    """Roles by prompt, and by the reference's id too where the file has ids."""

    entries: RequestLookup[Roles]
    allow_missing: bool = False

    @classmethod
    def read(
        cls, path: str | Path, *, id_field: str | None = None, prompt_field: str | None = None, allow_missing: bool = False
    ) -> FileCompiler:
        """From records with a prompt, perhaps an id, and any of: global (a text), desired, preserve, forbidden (lists)."""
        records = TextRecords.read(path)
        if not set(ROLE_FIELDS) & set(records.fields):
            raise OptionError(f"{records.path}: expected any of {', '.join(ROLE_FIELDS)}, got {', '.join(records.fields)}")
        whole, *lists = ROLE_FIELDS
        said = [Roles(words_or_none(row.get(whole)), *(phrases(row.get(role)) for role in lists)) for row in records.rows]
        return cls(_by_query(records, said, id_field, prompt_field), allow_missing)

    def compile(self, queries: Sequence[ComposerInput]) -> list[Roles]:
        """Roles of each query; those of `RuleCompiler` for a missing one where that is allowed, else MMRetrieveError."""
        found = self.entries.find(queries, "roles", allow_missing=self.allow_missing)
        by_rule = RuleCompiler().compile(queries)
        return [roles if roles is not None else rule for roles, rule in zip(found, by_rule, strict=True)]


def _by_query(records: TextRecords, said: Sequence[V], id_field: str | None, prompt_field: str | None) -> RequestLookup[V]:
    """What is said in each record, under its prompt, and under its id where there is one. The first record stands."""
    name = records.find_field("id", REFERENCE_IDS, id_field)
    prompt = records.field("prompt", PROMPT_FIELDS, prompt_field)
    entries: dict[tuple[str | None, str], V] = {}
    for number, one in enumerate(said, 1):
        entries.setdefault((records.text(number, name) if name else None, records.text(number, prompt)), one)
    return RequestLookup(records.path, entries)


def _kept(memory: Path) -> Iterator[tuple[Pair, str]]:
    """Pairs and rewrites of a memory."""
    for asked, said in AnswerCache(memory).said("rewrite"):
        yield (str(asked["caption"]), str(asked["prompt"])), sentence(said)


def _pairs(
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
                number, f"{len(captions)} in {caption!r} and {len(rewrites)} in {rewrite!r}; expected one for each"
            )
        for before, after in zip(captions, rewrites, strict=True):
            yield (before, records.text(number, prompt)), after
