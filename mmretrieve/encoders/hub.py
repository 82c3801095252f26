"""The hub that public weights come from, when it does not answer: what is cached is used, what is not fails at once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

ANSWER_SECONDS = 5.0


@contextmanager
def offline_if_unreachable(*, needed: bool) -> Iterator[None]:
    """While it lasts, loaders are quiet, and offline where `needed` and the hub is out of reach: left alone they retry for a minute."""
    offline, silent = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    if needed and not offline:
        constants.HF_HUB_OFFLINE = not _answers()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.disable(silent)


def _answers() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except Exception:  # httpx's or requests', by the version of huggingface_hub; all mean the same here
        return False
    return True
