"""A judge that runs on this machine: a CrossEncoder of sentence-transformers that reads images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
from PIL import Image

from mmretrieve.encoders.openclip import resolve_device
from mmretrieve.encoders.transformers import quiet_transformers
from mmretrieve.errors import JudgeError
from mmretrieve.hub import offline_if_unreachable
from mmretrieve.judges.model import ModelJudge, load_error
from mmretrieve.language.llm.cache import AnswerCache
from mmretrieve.options import AUTO, DEFAULT_JUDGE_SECONDS

PARTS = ("image", "text")


class CrossEncoderJudge(ModelJudge):
    """Scores each candidate with a cross-encoder. The score is its logit, without the sigmoid that it may have.

    The model is loaded at once, from the hub or from a folder with safetensors weights; no code of a model is executed. It must read
    images. If it reads no query of image and text together, it gets the text alone.

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
        The model cannot be loaded, does not read images, or gives more than one score.

    Examples
    --------
    >>> import mmretrieve as mm
    >>> try:
    ...     CrossEncoderJudge(str(mm.wardrobe.pictures_folder()))
    ... except mm.MMRetrieveError as error:
    ...     print("the judge could not be loaded" in str(error))
    True
    >>> judge = CrossEncoderJudge("Qwen/Qwen3-VL-Reranker-2B")  # doctest: +SKIP
    >>> retriever.search(image="dress.jpg", prompt="in red", judge=judge)  # doctest: +SKIP
    """

    task = "cross-encoder"

    def __init__(
        self, model: str, device: str = AUTO, cache: AnswerCache | None = None, seconds: float = DEFAULT_JUDGE_SECONDS
    ) -> None:
        super().__init__(model, cache, seconds)
        torch_device, is_local = resolve_device(device), Path(model).is_dir()
        try:
            with offline_if_unreachable(needed=not is_local), quiet_transformers():
                self._model = sentence_transformers.CrossEncoder(
                    model,
                    device=str(torch_device),
                    local_files_only=is_local,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True},
                )
        except Exception as error:  # the hub, the folder and the weights raise many kinds
            raise load_error(model, error, "the folder of a CrossEncoder with safetensors weights") from error
        if not self._model.supports("image"):
            raise JudgeError(
                f"{model}: this cross-encoder reads {', '.join(map(str, self._model.modalities))}, not images; use another"
            )
        if self._model.num_labels != 1:
            raise JudgeError(
                f"{model}: a judge gives one score, and this cross-encoder gives {self._model.num_labels}; use another"
            )
        self._reads_both = self._model.supports(PARTS)

    def _logit(self, query: Mapping[str, Any], candidate: Image.Image) -> float:
        parts = {name: query[name] for name in PARTS if name in query}
        if len(parts) > 1 and not self._reads_both:
            parts = {"text": query["text"]}
        with quiet_transformers():
            scores = self._model.predict(
                [(parts, {"image": candidate})], activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
        return float(scores[0])
