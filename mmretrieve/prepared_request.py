"""A question as composers get it: what each prompt asks for, what it forbids, and one `ComposerInput` for each reference and prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmretrieve.combining import combine
from mmretrieve.composer_input import ComposerInput
from mmretrieve.composition import Composition
from mmretrieve.language.role_compiler import RuleCompiler
from mmretrieve.options import WITHOUT_CAPTIONS, ComposerName
from mmretrieve.request import ParsedRequest
from mmretrieve.rules import make_rule


@dataclass(frozen=True)
class PreparedRequest:
    """A question with its prompts read. `desired` is what remains of each prompt, `forbidden` what they all take away."""

    ask: ParsedRequest
    desired: tuple[str | None, ...]
    forbidden: tuple[str, ...]

    @classmethod
    def of(cls, ask: ParsedRequest, compiler: RuleCompiler, *, takes_away: bool) -> PreparedRequest:
        """takes_away: whether what prompts forbid becomes terms to avoid; else prompts are taken word for word."""
        takes_away &= ask.rule is None or make_rule(ask.rule).uses_weights
        wished = [
            prompt if strength > 0 and takes_away else "" for prompt, strength in zip(ask.prompts, ask.strengths, strict=True)
        ]
        forbidden = [compiler.roles(prompt).forbidden if prompt.strip() else () for prompt in wished]
        desired = [compiler.remaining(prompt) if phrases else None for prompt, phrases in zip(wished, forbidden, strict=True)]
        said = dict.fromkeys(phrase for phrases in forbidden for phrase in phrases)
        return cls(ask, tuple(desired), tuple(phrase for phrase in said if phrase not in ask.avoid))

    @property
    def avoid(self) -> list[str]:
        """What should not show: what the question names, then what its prompts forbid."""
        return [*dict.fromkeys(self.ask.avoid), *self.forbidden]

    @property
    def avoid_weights(self) -> tuple[float, ...]:
        """The base weight of each phrase to avoid: what a prompt forbids counts only where weights are chosen."""
        return (*(-1.0 for _ in dict.fromkeys(self.ask.avoid)), *(0.0 for _ in self.forbidden))

    @property
    def asked(self) -> list[int]:
        """The prompts that get a query: by captions all of them, by other composers those that ask for something to be there."""
        captions = self.ask.composer not in WITHOUT_CAPTIONS
        return [i for i, desired in enumerate(self.desired) if captions or desired != ""]

    @property
    def composer(self) -> ComposerName:
        """The question's composer, or "image" where that one needs a prompt and none is left."""
        bare = not self.asked and self.ask.composer in WITHOUT_CAPTIONS and self.ask.references > 0
        return ComposerName.IMAGE if bare else self.ask.composer

    def queries(self, references: Sequence[Mapping[str, Any]]) -> list[ComposerInput]:
        """One query for each reference and prompt, prompts of the first reference first; none for a question without either."""
        prompts: list[tuple[str | None, str | None]] = [(self.ask.prompts[i], self.desired[i]) for i in self.asked]
        if not references and not prompts:
            return []
        avoid = tuple(self.ask.avoid)
        return [
            ComposerInput(prompt=prompt, desired=desired, avoid=avoid, **reference)
            for reference in references or [{}]
            for prompt, desired in prompts or [(None, None)]
        ]

    def combined(self, parts: Sequence[Composition]) -> Composition:
        """The compositions of its queries as one."""
        ask, prompts = self.ask, max(1, len(self.asked))
        rows = [parts[start : start + prompts] for start in range(0, len(parts), prompts)]
        whole = combine(rows, ask.image_weights or [1.0], [ask.strengths[i] for i in self.asked] or [1.0])
        if ask.references > 1 and len(ask.prompts) > 1:
            return whole.with_remarks(
                f"one query: {ask.references} references and {len(ask.prompts)} prompts were combined (search_many ranks each by itself)"
            )
        return whole
