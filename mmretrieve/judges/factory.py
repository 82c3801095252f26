"""Makes judges with models of their own from the options of the shell: behind an endpoint, or on this machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from mmretrieve.errors import JudgeError
from mmretrieve.judges.base import Judge
from mmretrieve.language.options import CROSS_ENCODER_PREFIX, ENDPOINT_JUDGES, JUDGE, LOCAL_PREFIX, LanguageOptions
from mmretrieve.options import EndpointJudgeName
from mmretrieve.registry import JUDGES, RegistryEntry


def judge_from(options: LanguageOptions) -> Judge | None:
    """Makes the judge that options name.

    Parameters
    ----------
    options : LanguageOptions
        The judge, its endpoint, cache, device and seconds.

    Returns
    -------
    Judge or None
        The judge, with its model loaded. None for no judge, and for one of `JUDGES`, which a retriever builds.

    Raises
    ------
    OptionError, EndpointError, JudgeError
        The endpoint cannot be used, or the model cannot be loaded.

    Examples
    --------
    >>> from mmretrieve.language.options import LanguageOptions
    >>> judge_from(LanguageOptions(judge="endpoint", model="qwen", endpoint="http://127.0.0.1:8000/v1")).seconds
    20.0
    """
    if options.judge is None:
        return None
    name, seconds = str(options.backend(JUDGE)), options.judge_seconds
    if name in ENDPOINT_JUDGES:
        from mmretrieve.judges import endpoint

        makers: dict[EndpointJudgeName, Callable[..., Judge]] = {
            EndpointJudgeName.POINTWISE: endpoint.PointwiseJudge,
            EndpointJudgeName.LISTWISE: endpoint.ListwiseJudge,
            EndpointJudgeName.RERANK: endpoint.RerankJudge,
        }
        return makers[EndpointJudgeName(name)](options.chat_endpoint, seconds=seconds)
    if name.startswith(LOCAL_PREFIX):
        _require("transformers")
        from mmretrieve.judges.transformers import TransformersJudge

        return TransformersJudge(name.removeprefix(LOCAL_PREFIX), options.device, options.cache, seconds)
    if name.startswith(CROSS_ENCODER_PREFIX):
        _require("sentence_transformers")
        from mmretrieve.judges.cross_encoder import CrossEncoderJudge

        return CrossEncoderJudge(name.removeprefix(CROSS_ENCODER_PREFIX), options.device, options.cache, seconds)
    return None


def register_judge_of(options: LanguageOptions) -> None:
    """Makes the judge of the options available by its name to all requests of this process. A judge of `JUDGES` already is.

    Parameters
    ----------
    options : LanguageOptions
        As for `judge_from`.

    Raises
    ------
    OptionError, EndpointError, JudgeError
        As in `judge_from`; the model is loaded here, not by the first request.

    Examples
    --------
    >>> register_judge_of(LanguageOptions(judge="endpoint", model="qwen", endpoint="http://127.0.0.1:8000/v1"))
    >>> JUDGES.check("endpoint")
    'endpoint'
    """
    judge = judge_from(options)
    if judge is not None:
        JUDGES.register(str(options.judge), RegistryEntry(lambda _context: judge))


def _require(package: str) -> None:
    if find_spec(package) is None:
        name = package.replace("_", "-")
        raise JudgeError(
            f"a judge on this machine needs the package {name}; install it with: pip install 'mmretrieve[encoders]'"
        )
