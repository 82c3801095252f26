"""The Hugging Face Hub: whether it can be reached, without which its clients would retry for a minute, and repositories of files."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from threading import RLock

from huggingface_hub import HfApi, constants, get_session, snapshot_download
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from mmretrieve.errors import MMRetrieveError

HUB_TIMEOUT = 5.0  # seconds
CARD = "README.md"
_ONE_AT_A_TIME = RLock()


@contextmanager
def offline_if_unreachable(*, needed: bool) -> Iterator[None]:
    """Silences loaders of models and datasets within the block, and switches them to offline mode if the hub is `needed` but unreachable.

    In online mode they would retry for a minute.
    """
    with _ONE_AT_A_TIME:  # what is switched belongs to the whole process
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


def upload(folder: Path, name: str, kind: str, *, private: bool | None) -> str:
    """Uploads the files of a folder in one commit and deletes all others, except for the card of a repository that has one.

    `kind` is "dataset" or "model". Returns the address. Raises MMRetrieveError if the Hub is unreachable or refuses.
    """
    with _translate_errors(f"{name}: could not be uploaded"):
        api = HfApi()
        address = str(api.create_repo(name, repo_type=kind, private=private, exist_ok=True))
        kept = [CARD] if api.file_exists(name, CARD, repo_type=kind) else []  # its owner may have edited it
        api.upload_folder(
            folder_path=folder,
            repo_id=name,
            repo_type=kind,
            commit_message="Upload with mmretrieve",
            ignore_patterns=kept,
            delete_patterns=[f"{path.name}/*" for path in folder.iterdir() if path.is_dir()],
        )
    return address


def download(name: str, kind: str, patterns: Sequence[str], revision: str | None) -> Path:
    """The folder with the files of a repository that match a pattern, from the cache if the Hub is unreachable.

    Raises MMRetrieveError if they are neither in the cache nor can be downloaded.
    """
    with _translate_errors(f"{name}: could not be downloaded"):
        return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=list(patterns)))


def write_card(folder: Path, summary: str, facts: Mapping[str, object], code: str, tags: Sequence[str]) -> None:
    """Writes the card of a repository, whose license its owner fills in. Facts are JSON in a block of code, so that none is markup."""
    license_ = "license: other  # choose one: https://hf.co/docs/hub/repositories-licenses"
    header = "\n".join(("---", license_, "tags:", *(f"- {tag}" for tag in tags), "---"))
    blocks = [indent(block, "    ") for block in (json.dumps(facts, indent=1, ensure_ascii=False), code)]
    license_note = "## License\n\nTo be chosen by the owner."
    (folder / CARD).write_text(
        "\n\n".join((header, summary, blocks[0], "## Use", blocks[1], license_note)) + "\n", encoding="utf-8"
    )


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """Converts the errors of the Hub's client to MMRetrieveError in one line."""
    with offline_if_unreachable(needed=True), quiet_hub():
        is_offline = constants.HF_HUB_OFFLINE
        try:
            yield
        except Exception as error:  # of the network, the Hub or the file system
            reason = "the Hub cannot be reached, or HF_HUB_OFFLINE is set" if is_offline else " ".join(str(error).split())[:300]
            raise MMRetrieveError(f"{what} ({reason})") from error


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Suppresses the progress bars of huggingface_hub within the block."""
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()
