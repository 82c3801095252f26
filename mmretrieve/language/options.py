"""Who speaks, as the words of a shell option say it: a built-in by name, a file, an endpoint, or a model on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmretrieve.errors import OptionError, unknown
from mmretrieve.language.llm.batch import DEFAULT_TIMEOUT
from mmretrieve.language.tables import READERS

if TYPE_CHECKING:
    from mmretrieve.encoders.base import Encoder, Progress
    from mmretrieve.language.base import Captioner, Describer, Rewriter
    from mmretrieve.language.llm.cache import AnswerCache
    from mmretrieve.language.llm.endpoint import ChatEndpoint
    from mmretrieve.language.roles import Compiler
    from mmretrieve.language.vocabulary import Vocabulary


class BackendName(StrEnum):
    """The speakers that have a name."""

    TAGGER = "tagger"
    TEMPLATE = "template"
    SWAP = "swap"
    RULES = "rules"
    ENDPOINT = "endpoint"


@dataclass(frozen=True)
class LocalModel:
    """A captioner of transformers, by its name on the hub or its folder."""

    name: str


Speaker = BackendName | LocalModel | Path
LOCAL = "transformers:"
NAMED = {
    "captioner": (BackendName.TAGGER, BackendName.ENDPOINT),
    "rewriter": (BackendName.TEMPLATE, BackendName.SWAP, BackendName.ENDPOINT),
    "compiler": (BackendName.RULES, BackendName.ENDPOINT),
    "describer": (BackendName.ENDPOINT,),
}
FIELDS = ("id_field", "caption_field", "prompt_field", "rewrite_field")


@dataclass(frozen=True)
class LanguageOptions:
    """Who speaks in each role, and what the speakers need. Shell and evaluation share it.

    captioner: "tagger", "endpoint", "transformers:MODEL" or a file. rewriter: "template", "swap", "endpoint" or a file. None
    leaves either to whoever asks: searches caption by fields or the tagger and swap words, evaluation tags and takes the template.
    compiler: "rules", "endpoint" or a file. describer: "endpoint" or a file; there is none by default.
    endpoint, model, key, timeout: of the endpoint (see `ChatEndpoint`). memory: the file in which models' answers are kept;
    offline: they come from there alone. allow_missing, …_field: for files (see `files`). device: of a local model.
    Raises OptionError for words that name nobody, and for options that contradict each other or serve nobody.
    """

    captioner: str | None = None
    rewriter: str | None = None
    compiler: str = BackendName.RULES
    describer: str | None = None
    endpoint: str | None = None
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    memory: str | Path | None = None
    offline: bool = False
    timeout: float = DEFAULT_TIMEOUT
    allow_missing: bool = False
    id_field: str | None = None
    caption_field: str | None = None
    prompt_field: str | None = None
    rewrite_field: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        speakers = [self.speaker(role) for role in NAMED if getattr(self, role) is not None]
        asks = BackendName.ENDPOINT in speakers
        remembers = asks or any(isinstance(speaker, LocalModel) for speaker in speakers)
        reads = any(isinstance(speaker, Path) for speaker in speakers)
        if asks and self.model is None:
            raise OptionError("an endpoint was asked for, but no model: name the one that should answer")
        if self.offline and self.memory is None:
            raise OptionError("offline, answers come from a memory alone: name its file")
        self._refuse_idle(("endpoint", "model", "key", "offline"), asks, "an endpoint")
        self._refuse_idle(("memory",), remembers, "a model")
        self._refuse_idle(("allow_missing", *FIELDS), reads, "a file")

    def speaker(self, role: str) -> Speaker:
        """Who was chosen for a role. Raises OptionError where nobody goes by that name."""
        spec, words = str(getattr(self, role)), NAMED[role]
        if spec in words:
            return BackendName(spec)
        if role == "captioner" and spec.startswith(LOCAL) and spec != LOCAL:
            return LocalModel(spec.removeprefix(LOCAL))
        if Path(spec).is_file():
            return Path(spec)
        if Path(spec).suffix.lower() in READERS:
            raise OptionError(f"{role}: there is no file {spec}")
        raise unknown(
            role, spec, [*words, *([f"{LOCAL}MODEL"] if role == "captioner" else []), f"a file ({', '.join(READERS)})"]
        )

    def fields(self, *names: str) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in names}

    def _refuse_idle(self, names: tuple[str, ...], serves: bool, whom: str) -> None:
        given = [name for name in names if getattr(self, name) not in (None, False)]
        if given and not serves:
            raise OptionError(f"{', '.join(given)} given, but nobody who speaks is {whom}; choose one, or leave it out")

    @cached_property
    def shared_memory(self) -> AnswerCache | None:
        from mmretrieve.language.llm.cache import AnswerCache

        return AnswerCache(self.memory) if self.memory is not None else None

    @cached_property
    def shared_endpoint(self) -> ChatEndpoint:
        from mmretrieve.language.llm.endpoint import ChatEndpoint

        if self.model is None:
            raise OptionError("an endpoint needs the name of a model")
        memory = self.shared_memory
        return ChatEndpoint(self.model, self.endpoint, self.key, memory, timeout=self.timeout, offline=self.offline)


def captioner_from(
    options: LanguageOptions, encoder: Encoder, *, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> Captioner:
    """Who says references in words. The tagger speaks `vocabulary`, or the encoder's own, also where a file lacks captions."""
    from mmretrieve.language import files, tagger, transformers_captioner
    from mmretrieve.language.llm import roles
    from mmretrieve.language.vocabulary import default_vocabulary

    chosen = options.speaker("captioner") if options.captioner is not None else BackendName.TAGGER
    if chosen is BackendName.ENDPOINT:
        return roles.EndpointCaptioner(options.shared_endpoint, progress=progress)
    if isinstance(chosen, LocalModel):
        return transformers_captioner.TransformersCaptioner(
            chosen.name, options.device, options.shared_memory, progress=progress
        )
    built_in = tagger.Tagger(encoder, vocabulary or default_vocabulary(encoder))
    if isinstance(chosen, Path):
        otherwise = built_in if options.allow_missing else None
        return files.FileCaptioner.read(
            chosen, **options.fields("id_field", "caption_field", "prompt_field"), otherwise=otherwise
        )
    return built_in


def rewriter_from(
    options: LanguageOptions, encoder: Encoder, *, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> Rewriter:
    """Who applies prompts to captions. "swap" knows the words of `vocabulary`, or of the encoder's own."""
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles
    from mmretrieve.language.vocabulary import default_vocabulary

    chosen = options.speaker("rewriter") if options.rewriter is not None else BackendName.TEMPLATE
    if chosen is BackendName.ENDPOINT:
        return roles.EndpointRewriter(options.shared_endpoint, progress)
    if isinstance(chosen, Path):
        fields = options.fields("caption_field", "prompt_field", "rewrite_field")
        return files.FileRewriter.read(chosen, **fields, allow_missing=options.allow_missing)
    return named_rewriter(str(chosen), vocabulary or default_vocabulary(encoder))


def named_rewriter(name: str, vocabulary: Vocabulary) -> Rewriter:
    """The built-in rewriter of that name. OptionError, naming both, for another."""
    from mmretrieve.language import rewriters

    built_in: dict[str, Callable[[], Rewriter]] = {
        BackendName.SWAP: lambda: rewriters.SwapRewriter(vocabulary),
        BackendName.TEMPLATE: rewriters.TemplateRewriter,
    }
    if name not in built_in:
        raise unknown("rewriter", name, built_in)
    return built_in[name]()


def compiler_from(options: LanguageOptions, *, progress: Progress | None = None) -> Compiler:
    """Who sorts prompts into roles."""
    from mmretrieve.language import files
    from mmretrieve.language.llm.roles import EndpointCompiler
    from mmretrieve.language.roles import RuleCompiler

    chosen = options.speaker("compiler")
    if chosen is BackendName.ENDPOINT:
        return EndpointCompiler(options.shared_endpoint, progress)
    if isinstance(chosen, Path):
        return files.FileCompiler.read(
            chosen, **options.fields("id_field", "prompt_field"), allow_missing=options.allow_missing
        )
    return RuleCompiler()


def describer_from(options: LanguageOptions, *, progress: Progress | None = None) -> Describer:
    """Who describes targets in one step. Raises OptionError where nobody was chosen: no built-in can."""
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles

    if options.describer is None:
        raise OptionError("describing targets in one step needs a describer: choose 'endpoint' or a file")
    chosen = options.speaker("describer")
    if isinstance(chosen, Path):
        fields = options.fields("id_field", "prompt_field", "rewrite_field")
        return files.FileDescriber.read(chosen, **fields, allow_missing=options.allow_missing)
    return roles.EndpointDescriber(options.shared_endpoint, progress)
