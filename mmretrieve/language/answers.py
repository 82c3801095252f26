"""Calls captioners, rewriters, paraphrasers, describers, editors and compilers, and checks their answers: any object can be one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmretrieve.composer_input import ComposerInput
from mmretrieve.errors import OptionError
from mmretrieve.images import ImageLike
from mmretrieve.language.base import Captioner, Describer, Description, Editor, Paraphraser, Rewriter, RoleCompiler, Roles


def caption_references(captioner: Captioner, inputs: Sequence[ComposerInput], count: int) -> list[list[str]]:
    """One or more captions of each reference. Raises OptionError for a wrong answer."""
    expected = f"a captioner must return a list of captions for each of {len(inputs)} queries"
    return _checked(captioner.captions(inputs, count), len(inputs), lambda one: _are_texts(one) and len(one) > 0, expected)


def rewrite_captions(rewriter: Rewriter, captions: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """One rewrite of each caption; an empty text if there is none. Raises OptionError for a wrong answer."""
    expected = f"a rewriter must return one text for each of {len(captions)} captions"
    return _checked(rewriter.rewrite(captions, prompts), len(captions), lambda one: isinstance(one, str), expected)


def paraphrases_of(paraphraser: Paraphraser, prompts: Sequence[str], count: int) -> list[list[str]]:
    """The paraphrases of each prompt. Raises OptionError for a wrong answer."""
    expected = f"a paraphraser must return a list of texts for each of {len(prompts)} prompts"
    return _checked(paraphraser.paraphrase(prompts, count), len(prompts), _are_texts, expected)


def describe_targets(describer: Describer, inputs: Sequence[ComposerInput]) -> list[Description]:
    """One description for each query. Raises OptionError for a wrong answer."""
    expected = f"a describer must return one Description for each of {len(inputs)} queries"
    return _checked(describer.describe(inputs), len(inputs), lambda one: isinstance(one, Description), expected)


def edit_references(editor: Editor, inputs: Sequence[ComposerInput]) -> list[ImageLike]:
    """One image for each query. Raises OptionError for a wrong answer."""
    expected = f"an editor must return one image for each of {len(inputs)} queries"
    return _checked(editor.edit(inputs), len(inputs), lambda one: one is not None, expected)


def compile_prompts(compiler: RoleCompiler, inputs: Sequence[ComposerInput]) -> list[Roles]:
    """The roles of each query's prompt. Raises OptionError for a wrong answer."""
    expected = f"a compiler must return one Roles for each of {len(inputs)} queries"
    return _checked(compiler.compile(inputs), len(inputs), lambda one: isinstance(one, Roles), expected)


def _checked(answers: Any, count: int, is_answer: Callable[[Any], bool], expected: str) -> list[Any]:
    several = list(answers) if isinstance(answers, Iterable) and not isinstance(answers, str) else None
    if several is None or len(several) != count or not all(map(is_answer, several)):
        raise OptionError(f"{expected}, got {answers!r:.80}")
    return several


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
