"""Pseudo tokens: vectors in the place of words in a sentence, for textual inversion.

A sentence is given as pieces with a pseudo token between two pieces, so no character of a text can be mistaken for one.
Token ids are built piece by piece, and the vectors are inserted by position.
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
from mmretrieve.vectors import Float32, unit

if TYPE_CHECKING:
    from collections.abc import Iterator

Pieces = Sequence[str]
"""A sentence split at its pseudo tokens: `("a photo of", "that is red")` has one."""
BATCH_SIZE = 256  # sentences
PROBE = "a photo of 2 cats, running"  # words, a number and a comma: the ids of its pieces must reproduce its ids
_insertion: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("insertion", default=None)


class PseudoTokens:
    """Encodes sentences with pseudo tokens. Raises EncoderError if the text tower or its tokenizer does not support them."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._model = model
        self._frame = _frame(tokenizer, name)
        embedding = getattr(text_module(model), "token_embedding", None)
        if not isinstance(embedding, nn.Embedding):
            raise EncoderError(f"{name}: its text tower has no token embedding layer, so it does not support pseudo tokens")
        embedding.register_forward_hook(_insert_tokens)
        self._embedding = embedding

    @property
    def width(self) -> int:
        """The number of columns of a pseudo token."""
        return int(self._embedding.embedding_dim)

    def of_text(self, text: str) -> Tensor:
        """The (tokens, width) embeddings of the tokens of a text."""
        return self._embedding.weight[self._frame.ids(text)].detach()

    def features(self, sentences: Sequence[Pieces], tokens: Tensor) -> Tensor:
        """The text features of sentences with pseudo tokens. Gradients reach the tokens.

        Parameters
        ----------
        sentences : sequence of n sentences
            Each as pieces; all pseudo tokens of a sentence have the same vector. A sentence that is too long is cut, with a
            PromptCutWarning.
        tokens : Tensor of shape (n, width)

        Returns
        -------
        Tensor of shape (n, d)
            Not normalized.

        Raises
        ------
        OptionError
            A sentence has no pseudo token, or the first one is beyond the context length.
        """
        if tokens.shape != (len(sentences), self.width):
            raise OptionError(f"expected pseudo tokens of shape ({len(sentences)}, {self.width}), got {tuple(tokens.shape)}")
        ids, masks = zip(*map(self._frame.build, sentences), strict=True)
        device = self._embedding.weight.device
        with _activate_insertion(torch.tensor(masks, device=device), tokens.to(device)):
            return encode_tokens(self._model, torch.tensor(ids, device=device))

    def encode(self, sentences: Sequence[Sequence[Pieces]], tokens: Tensor) -> Float32:
        """(n, s, d) float32 unit vectors for (n, width) pseudo tokens and s sentences with each of them."""
        flat = [sentence for several in sentences for sentence in several]
        repeated = tokens.repeat_interleave(torch.tensor([len(several) for several in sentences]), dim=0)
        batches = [slice(start, start + BATCH_SIZE) for start in range(0, len(flat), BATCH_SIZE)]
        with torch.inference_mode():
            rows = [self.features(flat[batch], repeated[batch]) for batch in batches]
        vectors = unit(torch.cat(rows).float().cpu().numpy(), "text features")
        return vectors.reshape(len(tokens), -1, vectors.shape[1])


@dataclass(frozen=True)
class _Frame:
    """How a tokenizer builds a sentence: the ids of a text, the ids before and after it, the padding, and the length."""

    ids: Callable[[str], list[int]]
    before: list[int]
    after: list[int]
    pad: int
    context: int
    name: str

    def build(self, pieces: Pieces) -> tuple[list[int], list[bool]]:
        """The (context,) ids of a sentence and the mask of its pseudo tokens, whose ids are those of a placeholder word."""
        if isinstance(pieces, str) or len(pieces) < 2:
            raise OptionError(f"expected a sentence as a list of the pieces around its pseudo tokens, got {pieces!r}")
        body, placeholder = self.ids(pieces[0]), self.ids("a")[0]
        mask = [False] * len(body)
        for piece in pieces[1:]:
            after = self.ids(piece)
            body, mask = [*body, placeholder, *after], [*mask, True, *[False] * len(after)]
        room = self.context - len(self.before) - len(self.after)
        if True not in mask[:room]:
            raise OptionError(
                f"{pieces[0][:60]!r}… fills the {self.context} tokens that {self.name} reads; there is no room for the pseudo token"
            )
        if len(body) > room:
            warnings.warn(
                f"a text was cut to the {self.context} tokens that {self.name} reads: {pieces[-1][:60]!r}…",
                PromptCutWarning,
                stacklevel=2,
            )
        ids = [*self.before, *body[:room], *self.after]
        whole_mask = [*[False] * len(self.before), *mask[:room], *[False] * len(self.after)]
        rest = self.context - len(ids)
        return ids + [self.pad] * rest, whole_mask + [False] * rest


def _frame(tokenizer: Any, name: str) -> _Frame:
    """Derives the frame from the tokenizer. Raises EncoderError if sentences cannot be built from pieces."""
    try:
        frame = _openai_frame(tokenizer, name) if hasattr(tokenizer, "sot_token_id") else _huggingface_frame(tokenizer, name)
        body = frame.ids(PROBE)
        built = [*frame.before, *body, *frame.after]
        expected = tokenizer([PROBE])[0].tolist()
        split = frame.ids("a photo of") + frame.ids("2 cats, running")
    except Exception as error:
        raise EncoderError(f"{name}: cannot build its token ids piece by piece ({error})") from error
    if split != body or built + [frame.pad] * (frame.context - len(built)) != expected:
        raise EncoderError(
            f"{name}: its tokenizer does not build a sentence from its pieces, so it does not support pseudo tokens"
        )
    return frame


def _openai_frame(tokenizer: Any, name: str) -> _Frame:
    ends = [tokenizer.sot_token_id], [tokenizer.eot_token_id]
    return _Frame(tokenizer.encode, *ends, 0, tokenizer.context_length, name)


def _huggingface_frame(tokenizer: Any, name: str) -> _Frame:
    inner = tokenizer.tokenizer

    def ids(text: str) -> list[int]:
        return list(inner(tokenizer.clean_fn(text), add_special_tokens=False)["input_ids"]) if text else []

    sentence, body = list(inner("a")["input_ids"]), ids("a")
    start = next(i for i in range(len(sentence)) if sentence[i : i + len(body)] == body)
    return _Frame(ids, sentence[:start], sentence[start + len(body) :], inner.pad_token_id, tokenizer.context_length, name)


@contextmanager
def _activate_insertion(mask: Tensor, tokens: Tensor) -> Iterator[None]:
    """Within the block, for this thread: the embedding layer outputs `tokens` where `mask` is True."""
    reset = _insertion.set((mask, tokens))
    try:
        yield
    finally:
        _insertion.reset(reset)


def _insert_tokens(_layer: nn.Module, _ids: tuple[Tensor, ...], embedded: Tensor) -> Tensor | None:
    if (insertion := _insertion.get()) is None:
        return None
    mask, tokens = insertion
    positions = mask[:, : embedded.shape[1], None]
    return torch.where(positions, tokens[:, None, :].to(embedded.dtype), embedded)
