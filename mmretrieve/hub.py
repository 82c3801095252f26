"""Whether the Hugging Face Hub can be reached: without it, its clients would retry for a minute."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

HUB_TIMEOUT = 5.0  # seconds


@contextmanager
def offline_if_unreachable(*, needed: bool) -> Iterator[None]:
    """Silences loaders of models and datasets within the block, and switches them to offline mode if the hub is `needed` but unreachable.

    In online mode they would retry for a minute.
    """
    was_offline, log_level = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    if needed and not was_offline:
        constants.HF_HUB_OFFLINE = not _is_hub_reachable()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        logging.disable(log_level)


def _is_hub_reachable() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception:  # of httpx or requests, depending on the version of huggingface_hub
        return False
    return True
