"""A judge that runs on this machine: a generative vision-language model of transformers, asked for yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image

from mmretrieve.encoders.openclip import resolve_device
from mmretrieve.encoders.transformers import quiet_transformers
from mmretrieve.errors import JudgeError
from mmretrieve.hub import offline_if_unreachable
from mmretrieve.judges.model import ModelJudge, load_error
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.options import AUTO, DEFAULT_JUDGE_SECONDS

SPELLINGS = ("{}", " {}")  # with the space that many tokenizers put before a word


class TransformersJudge(ModelJudge):
    """Asks a vision-language model of each candidate whether it matches. The score is the logit of "yes" against "no".

    The model is loaded at once, from the hub or from a folder with safetensors weights; no code of a model is executed. It gets the
    instructions of `PointwiseJudge`, in the chat template of its processor, and generates nothing: the logits after the question count.

    Parameters
    ----------
    model : str
        Its name on the hub, or a folder.
    device : str, default="auto"
        "auto", or a torch device.
    cache : AnswerCache, optional
        Where logits are stored and looked up. Default: nothing is stored.
    seconds : float, default=20
        How long all answers together may take; candidates that are not reached have no score.

    Raises
    ------
    JudgeError
        The model cannot be loaded, has no chat template, or no tokens for yes and no.

    Source
    ------
    WISER (CVPR 2026): logits of yes and no at the position of the answer.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> try:
    ...     TransformersJudge(str(mm.wardrobe.pictures_folder()))
    ... except mm.MMRetrieveError as error:
    ...     print("the judge could not be loaded" in str(error))
    True
    >>> judge = TransformersJudge("Qwen/Qwen3-VL-2B-Instruct")  # doctest: +SKIP
    >>> retriever.search(image="dress.jpg", prompt="in red", judge=judge)  # doctest: +SKIP
    """

    task = "judge-logit"

    def __init__(
        self, model: str, device: str = AUTO, cache: AnswerCache | None = None, seconds: float = DEFAULT_JUDGE_SECONDS
    ) -> None:
        super().__init__(model, cache, seconds)
        torch_device = resolve_device(device)
        try:
            with offline_if_unreachable(needed=not Path(model).is_dir()), quiet_transformers():
                self._processor = transformers.AutoProcessor.from_pretrained(model, trust_remote_code=False)
                loaded = transformers.AutoModelForImageTextToText.from_pretrained(
                    model, trust_remote_code=False, use_safetensors=True, dtype="auto"
                )
        except Exception as error:  # the hub, the folder and the weights raise many kinds
            raise load_error(model, error, "the folder of a vision-language model with safetensors weights") from error
        if getattr(self._processor, "chat_template", None) is None:
            raise JudgeError(f"{model}: its processor has no chat template; use a model that is tuned for instructions")
        self._model = loaded.to(torch_device).eval().requires_grad_(False)
        self._yes, self._no = self._tokens_of("yes"), self._tokens_of("no")

    def _logit(self, query: Mapping[str, Any], candidate: Image.Image) -> float:
        pictures = [query["image"], candidate] if "image" in query else [candidate]
        question = (
            f"Prompt: {query['text']}" if "text" in query else "There is no prompt: the candidate must be like the reference."
        )
        content = [
            *({"type": "image", "image": picture} for picture in pictures),
            {"type": "text", "text": f"{self._instructions.text}\n\n{question}"},
        ]
        with torch.inference_mode(), quiet_transformers():
            inputs = self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(self._model.device, self._model.dtype)
            logits = self._model(**inputs).logits[0, -1].float()
        return float(torch.logsumexp(logits[self._yes], 0) - torch.logsumexp(logits[self._no], 0))

    def _tokens_of(self, word: str) -> list[int]:
        """The tokens that are a word, in every usual spelling."""
        tokenizer = self._processor.tokenizer
        texts = (spelling.format(case) for spelling in SPELLINGS for case in (word, word.capitalize(), word.upper()))
        encoded = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
        tokens = {tokens[0] for tokens in encoded if len(tokens) == 1} - {tokenizer.unk_token_id}
        if not tokens:
            raise JudgeError(f"{self.model}: its tokenizer has no token for {word!r}; use another model")
        return sorted(tokens)
