"""Which captioner, rewriter, paraphraser, role compiler, describer, editor and judge are used: parsed from options of the shell, and built.

To add a captioner, a rewriter or a paraphraser by name, see `registry.CAPTIONERS`, `registry.REWRITERS` and `registry.PARAPHRASERS`. To add
another implementation by name: an entry in `BACKENDS`, and a line in `compiler_from`, `describer_from` or `editor_from`. Judges
are built by `judges.factory`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmretrieve.errors import OptionError, unknown
from mmretrieve.language.text_records import READERS
from mmretrieve.options import DEFAULT_JUDGE_SECONDS, DEFAULT_TIMEOUT, CaptionerName, EndpointJudgeName
from mmretrieve.registry import CAPTIONERS, JUDGES, PARAPHRASERS, REWRITERS

if TYPE_CHECKING:
    from mmretrieve.encoders.base import Encoder, Progress
    from mmretrieve.language.base import Captioner, Describer, Editor, Paraphraser, Rewriter, RoleCompiler
    from mmretrieve.language.llm.cache import AnswerCache
    from mmretrieve.language.llm.endpoint import ChatEndpoint
    from mmretrieve.language.vocabulary import Vocabulary


ENDPOINT, RULES = "endpoint", "rules"
LOCAL_PREFIX, CROSS_ENCODER_PREFIX = "transformers:", "cross-encoder:"
JUDGE = "judge"
ENDPOINT_JUDGES = tuple(map(str, EndpointJudgeName))
BACKENDS = {  # the names for each role; those of REGISTRIES, PREFIXES and files are accepted as well, see `LanguageOptions.backend`
    "captioner": (ENDPOINT,),
    "rewriter": (ENDPOINT,),
    "paraphraser": (ENDPOINT,),
    "compiler": (RULES, ENDPOINT),
    "describer": (ENDPOINT,),
    "editor": (ENDPOINT,),
    JUDGE: ENDPOINT_JUDGES,
}
REGISTRIES = {"captioner": CAPTIONERS, "rewriter": REWRITERS, "paraphraser": PARAPHRASERS, JUDGE: JUDGES}
PREFIXES = {"captioner": (LOCAL_PREFIX,), JUDGE: (LOCAL_PREFIX, CROSS_ENCODER_PREFIX)}
FIELDS = ("id_field", "caption_field", "prompt_field", "rewrite_field")


@dataclass(frozen=True)
class LanguageOptions:
    """Which implementation fills each role, and its settings. The shell and the evaluation share these options.

    Parameters
    ----------
    captioner : "tagger", a registered name, "endpoint", "transformers:MODEL" or a file. None: searches use the gallery's fields, then
        the tagger; the evaluation uses the tagger.
    rewriter : "template", "swap", a registered name, "endpoint" or a file. None: searches use "swap", the evaluation "template".
    compiler : "rules", "endpoint" or a file.
    describer, editor : "endpoint" or a file; None for none.
    paraphraser : "templates", a registered name, "endpoint" or a file. None for templates.
    judge : a registered name, "endpoint", "endpoint-listwise", "endpoint-rerank", "transformers:MODEL" or "cross-encoder:MODEL"; None for none.
    judge_seconds : how long a judge with a model of its own may take for one search.
    endpoint, model, key, timeout : of the endpoint, see `ChatEndpoint`.
    memory : the file that stores the answers of models, see `AnswerCache`.
    offline : take all answers from the memory.
    allow_missing, id_field, caption_field, prompt_field, rewrite_field : for files, see `files`.
    device : of a local model.

    Raises
    ------
    OptionError : if a name is unknown, options contradict each other, or an option has no effect.
    """

    captioner: str | None = None
    rewriter: str | None = None
    compiler: str = RULES
    describer: str | None = None
    editor: str | None = None
    paraphraser: str | None = None
    judge: str | None = None
    judge_seconds: float = DEFAULT_JUDGE_SECONDS
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
        backends = [self.backend(role) for role in BACKENDS if getattr(self, role) is not None]
        uses_endpoint = any(backend in ENDPOINT_JUDGES for backend in backends)  # "endpoint" among them
        uses_model = uses_endpoint or any(_is_local(backend) for backend in backends)
        uses_file = any(isinstance(backend, Path) for backend in backends)
        if uses_endpoint and self.model is None:
            raise OptionError("an endpoint needs --model NAME, the model that should answer")
        if self.offline and self.memory is None:
            raise OptionError("--offline needs --memory FILE, which stores the answers")
        self._require(uses_endpoint, "the endpoint", "endpoint", "model", "key", "offline")
        self._require(uses_model, "a model", "memory")
        self._require(uses_file, "a file", "allow_missing", *FIELDS)

    def backend(self, role: str) -> str | Path:
        """The implementation chosen for a role: a file as a path, others by name.

        Raises
        ------
        OptionError : if the role has no implementation of that name, or the file does not exist.
        """
        value, names, prefixes = str(getattr(self, role)), BACKENDS[role], PREFIXES.get(role, ())
        is_registered = role in REGISTRIES and value in REGISTRIES[role]
        is_local = value.startswith(prefixes) and value not in prefixes
        if value in names or is_registered or is_local:
            return value
        if role != JUDGE and os.path.isfile(value):
            return Path(value)
        if role != JUDGE and Path(value).suffix.lower() in READERS:
            raise OptionError(f"--{role} {value}: no such file")
        local = [f"{prefix}MODEL" for prefix in prefixes]
        registered = REGISTRIES[role].names if role in REGISTRIES else ()
        files = [] if role == JUDGE else [f"a file ({', '.join(READERS)})"]
        raise unknown(role, value, [*registered, *names, *local, *files])

    def fields(self, *names: str) -> dict[str, str | None]:
        """The named options as keyword arguments of `files`."""
        return {name: getattr(self, name) for name in names}

    @cached_property
    def cache(self) -> AnswerCache | None:
        """The cache of answers that all roles share; None without a memory."""
        from mmretrieve.language.llm.cache import AnswerCache

        return AnswerCache(self.memory) if self.memory is not None else None

    @cached_property
    def chat_endpoint(self) -> ChatEndpoint:
        """The endpoint that all roles share."""
        from mmretrieve.language.llm.endpoint import ChatEndpoint

        assert self.model is not None  # checked at construction
        return ChatEndpoint(self.model, self.endpoint, self.key, self.cache, timeout=self.timeout, offline=self.offline)

    def _require(self, is_used: bool, what: str, *names: str) -> None:
        """Refuse options that have no effect."""
        names_set = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) not in (None, False)]
        if names_set and not is_used:
            *roles, last = BACKENDS
            raise OptionError(
                f"{', '.join(names_set)} given, but no {', '.join(roles)} or {last} is {what}; choose one, or omit it"
            )


def captioner_from(
    options: LanguageOptions, encoder: Encoder, *, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> Captioner | None:
    """The captioner that the options name; None if they name none.

    Parameters
    ----------
    options : the options.
    encoder : the encoder of the search, which the tagger uses.
    vocabulary : words of the tagger; default: the encoder's own. The tagger also captions what a file lacks, if that is allowed.
    progress : called with the number of captions that were just generated by a model.
    """
    if options.captioner is None:
        return None
    from mmretrieve.language import files
    from mmretrieve.language.captioners import transformers
    from mmretrieve.language.llm import roles
    from mmretrieve.language.vocabulary import default_vocabulary

    backend = options.backend("captioner")
    if backend == ENDPOINT:
        return roles.EndpointCaptioner(options.chat_endpoint, progress=progress)
    if isinstance(backend, str) and _is_local(backend):
        return transformers.TransformersCaptioner(
            backend.removeprefix(LOCAL_PREFIX), options.device, options.cache, progress=progress
        )
    vocabulary = vocabulary or default_vocabulary(encoder)
    if isinstance(backend, Path):
        fields = options.fields("id_field", "caption_field", "prompt_field")
        fallback = named_captioner(CaptionerName.TAGGER, encoder, vocabulary) if options.allow_missing else None
        return files.FileCaptioner.read(backend, **fields, fallback=fallback)
    return named_captioner(backend, encoder, vocabulary)


def named_captioner(name: str, encoder: Encoder, vocabulary: Vocabulary) -> Captioner:
    """The captioner of that name in `CAPTIONERS`, for searches with that encoder. Raises OptionError if the name is unknown."""
    from mmretrieve.language.base import CaptionerContext

    captioner: Captioner = CAPTIONERS.build(name, CaptionerContext(encoder, vocabulary))
    return captioner


def rewriter_from(
    options: LanguageOptions, encoder: Encoder, *, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> Rewriter | None:
    """The rewriter that the options name; None if they name none.

    Parameters
    ----------
    options : the options.
    encoder : its own vocabulary is the default of `vocabulary`.
    vocabulary : the words of "swap".
    progress : called with the number of rewrites that were just generated by a model.
    """
    if options.rewriter is None:
        return None
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles
    from mmretrieve.language.vocabulary import default_vocabulary

    backend = options.backend("rewriter")
    if backend == ENDPOINT:
        return roles.EndpointRewriter(options.chat_endpoint, progress)
    if isinstance(backend, Path):
        fields = options.fields("caption_field", "prompt_field", "rewrite_field")
        return files.FileRewriter.read(backend, **fields, allow_missing=options.allow_missing)
    rewriter: Rewriter = REWRITERS.build(backend, vocabulary or default_vocabulary(encoder))
    return rewriter


def paraphraser_from(
    options: LanguageOptions, encoder: Encoder, *, vocabulary: Vocabulary | None = None, progress: Progress | None = None
) -> Paraphraser | None:
    """The paraphraser that the options name; None if they name none.

    Parameters
    ----------
    options : the options.
    encoder : its own vocabulary is the default of `vocabulary`.
    vocabulary : the words by which templates read prompts.
    progress : called with the number of prompts that a model has just paraphrased.
    """
    if options.paraphraser is None:
        return None
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles
    from mmretrieve.language.vocabulary import default_vocabulary

    backend = options.backend("paraphraser")
    if backend == ENDPOINT:
        return roles.EndpointParaphraser(options.chat_endpoint, progress)
    if isinstance(backend, Path):
        fields = options.fields("prompt_field", "rewrite_field")
        return files.FileParaphraser.read(backend, **fields, allow_missing=options.allow_missing)
    paraphraser: Paraphraser = PARAPHRASERS.build(backend, vocabulary or default_vocabulary(encoder))
    return paraphraser


def compiler_from(options: LanguageOptions, *, progress: Progress | None = None) -> RoleCompiler:
    """The role compiler that the options name."""
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles
    from mmretrieve.language.role_compiler import RuleCompiler

    backend = options.backend("compiler")
    if backend == ENDPOINT:
        return roles.EndpointCompiler(options.chat_endpoint, progress)
    if isinstance(backend, Path):
        fields = options.fields("id_field", "prompt_field")
        return files.FileCompiler.read(backend, **fields, allow_missing=options.allow_missing)
    return RuleCompiler()


def describer_from(options: LanguageOptions, *, progress: Progress | None = None) -> Describer | None:
    """The describer that the options name; None if they name none."""
    if options.describer is None:
        return None
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles

    backend = options.backend("describer")
    if isinstance(backend, Path):
        fields = options.fields("id_field", "prompt_field", "rewrite_field")
        return files.FileDescriber.read(backend, **fields, allow_missing=options.allow_missing)
    return roles.EndpointDescriber(options.chat_endpoint, progress)


def editor_from(options: LanguageOptions, *, progress: Progress | None = None) -> Editor | None:
    """The editor of reference images that the options name; None if they name none."""
    if options.editor is None:
        return None
    from mmretrieve.language import files
    from mmretrieve.language.llm import roles

    backend = options.backend("editor")
    if isinstance(backend, Path):
        fields = options.fields("id_field", "prompt_field")
        return files.FileEditor.read(backend, **fields, allow_missing=options.allow_missing)
    return roles.EndpointEditor(options.chat_endpoint, progress)


def _is_local(backend: str | Path) -> bool:
    return isinstance(backend, str) and backend.startswith((LOCAL_PREFIX, CROSS_ENCODER_PREFIX))
