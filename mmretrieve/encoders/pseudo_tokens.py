"""Pseudo tokens: vectors that stand in a sentence where a word would, as textual inversion needs them.

A sentence is given as pieces: between two pieces stands a pseudo token. So nothing a person writes, a "$" say, can be
taken for one. Token ids are built here, piece by piece, and the vectors are put in by position.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmretrieve.encoders.base import PromptCutWarning
from mmretrieve.encoders.text_tower import encode_tokens, text_module
from mmretrieve.errors import EncoderError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

Pieces = Sequence[str]
"""A sentence cut where pseudo tokens stand: `("a photo of", "that is red")` has one."""
PROBE = "a photo of 2 cats, running"  # words, a number and a comma: what ids of pieces must reproduce
_placed: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("placed", default=None)


class PseudoTokens:
    """Encodes sentences with pseudo tokens through one text tower. EncoderError where the tower or its tokenizer cannot."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._model, self._name = model, name
        self._frame = _frame(tokenizer, name)
        embedding = getattr(text_module(model), "token_embedding", None)
        if not isinstance(embedding, nn.Embedding):
            raise EncoderError(f"{name}: its text tower has no token embedding of open_clip's; pseudo tokens cannot be put in")
        embedding.register_forward_hook(_put_in)
        self._embedding = embedding

    @property
    def width(self) -> int:
        """Numbers in one pseudo token."""
        return int(self._embedding.embedding_dim)

    def of_text(self, text: str) -> Tensor:
        """The (tokens, width) embeddings of a text's own tokens."""
        return self._embedding.weight[self._frame.ids(text)].detach()

    def features(self, sentences: Sequence[Pieces], tokens: Tensor) -> Tensor:
        """n sentences and (n, width) pseudo tokens → (n, d) text features, not normalised; gradients reach the tokens.

        Where a sentence has several places, all hold its token. Too long a sentence is cut, with a PromptCutWarning.
        OptionError for a sentence without a place, or one whose first place is beyond what the tower reads.
        """
        if tokens.shape != (len(sentences), self.width):
            raise OptionError(f"expected pseudo tokens of shape ({len(sentences)}, {self.width}), got {tuple(tokens.shape)}")
        ids, places = zip(*map(self._frame.build, sentences), strict=True)
        device = self._embedding.weight.device
        with _putting(torch.tensor(places, device=device), tokens.to(device)):
            return encode_tokens(self._model, torch.tensor(ids, device=device))


@dataclass(frozen=True)
class _Frame:
    """How a tokenizer builds a sentence: ids of a text alone, what stands before and after, padding, and the length."""

    ids: Callable[[str], list[int]]
    before: list[int]
    after: list[int]
    pad: int
    context: int
    name: str

    def build(self, pieces: Pieces) -> tuple[list[int], list[bool]]:
        """(context) ids of a sentence, and where its pseudo tokens stand; each holds the id of an ordinary word meanwhile."""
        if isinstance(pieces, str) or len(pieces) < 2:
            raise OptionError(f"a sentence for a pseudo token is a list of the pieces around it, got {pieces!r}")
        body, holder = self.ids(pieces[0]), self.ids("a")[0]
        held = [False] * len(body)
        for piece in pieces[1:]:
            after = self.ids(piece)
            body, held = [*body, holder, *after], [*held, True, *[False] * len(after)]
        room = self.context - len(self.before) - len(self.after)
        if True not in held[:room]:
            raise OptionError(
                f"{pieces[0][:60]!r}… fills the {self.context} tokens that {self.name} reads: no place for the picture"
            )
        if len(body) > room:
            warnings.warn(
                f"a text was cut to the {self.context} tokens that {self.name} reads: {pieces[-1][:60]!r}…",
                PromptCutWarning,
                stacklevel=2,
            )
        ids = [*self.before, *body[:room], *self.after]
        places = [*[False] * len(self.before), *held[:room], *[False] * len(self.after)]
        rest = self.context - len(ids)
        return ids + [self.pad] * rest, places + [False] * rest


def _frame(tokenizer: Any, name: str) -> _Frame:
    """Learns the frame from the tokenizer, and refuses one whose sentences cannot be built from pieces."""
    try:
        frame = _openai_frame(tokenizer, name) if hasattr(tokenizer, "sot_token_id") else _huggingface_frame(tokenizer, name)
        body = frame.ids(PROBE)
        built = [*frame.before, *body, *frame.after]
        expected = tokenizer([PROBE])[0].tolist()
        split = frame.ids("a photo of") + frame.ids("2 cats, running")
    except Exception as error:
        raise EncoderError(f"{name}: no way to build its token ids piece by piece ({error})") from error
    if split != body or built + [frame.pad] * (frame.context - len(built)) != expected:
        raise EncoderError(f"{name}: its tokenizer does not build a sentence from its pieces; pseudo tokens cannot be put in")
    return frame


def _openai_frame(tokenizer: Any, name: str) -> _Frame:
    ends = [tokenizer.sot_token_id], [tokenizer.eot_token_id]
    return _Frame(tokenizer.encode, *ends, 0, tokenizer.context_length, name)


def _huggingface_frame(tokenizer: Any, name: str) -> _Frame:
    inner = tokenizer.tokenizer

    def ids(text: str) -> list[int]:
        return list(inner(tokenizer.clean_fn(text), add_special_tokens=False)["input_ids"]) if text else []

    whole, body = list(inner("a")["input_ids"]), ids("a")
    at = next(i for i in range(len(whole)) if whole[i : i + len(body)] == body)
    return _Frame(ids, whole[:at], whole[at + len(body) :], inner.pad_token_id, tokenizer.context_length, name)


@contextmanager
def _putting(places: Tensor, tokens: Tensor) -> Iterator[None]:
    """For this thread and the block: the embedding layer puts `tokens` at `places` of what it gives."""
    reset = _placed.set((places, tokens))
    try:
        yield
    finally:
        _placed.reset(reset)


def _put_in(_layer: nn.Module, _ids: tuple[Tensor, ...], embedded: Tensor) -> Tensor | None:
    if (placed := _placed.get()) is None:
        return None
    places, tokens = placed
    here = places[:, : embedded.shape[1], None]
    return torch.where(here, tokens[:, None, :].to(embedded.dtype), embedded)
