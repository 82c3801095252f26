"""`python -m eval reproduce`: a published row with one command, through the commands `run` and `submit`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval.files import read_json
from eval.reproductions import ENCODERS, SERVER_SPLITS, Reproduction, find_reproduction, reproductions
from mmretrieve import MMRetrieveError
from mmretrieve.cli.arguments import given_fields
from mmretrieve.language.options import LanguageOptions


def reproduce(options: argparse.Namespace, run: Callable[[list[str]], Any]) -> None:
    """Runs a published row and prints the gap; without a name, lists the rows. run: runs the words of another command."""
    if options.name is None:
        print(*(f"{one.name:<28} {one.row}, {one.backbone}: {_numbers(one.published)}" for one in reproductions()), sep="\n")
        return
    one, given = find_reproduction(options.name), given_fields(options, LanguageOptions)
    if options.phi is not None:
        given["phi"] = options.phi
    if missing := one.missing(options.root, given):
        encoder = ENCODERS[one.backbone][1]
        raise MMRetrieveError(
            f"{one.name} ({one.row}, {one.backbone}, weights {encoder}, which open_clip downloads) needs {'; '.join(missing)}"
        )
    words = one.words(str(options.root), given, encoder=options.encoder, split=options.split)
    name = f"{one.name}_{'own-encoder' if options.encoder else 'released'}"
    words += ["--out", str(options.out), "--name", name]
    print(f"python -m eval {shlex.join(words)}")
    run(words)
    record = _record(Path(options.out, f"{name}.json"))
    hidden = (
        f"only the server of {one.benchmark} knows the targets; upload the files, and compare with {_numbers(one.published)}"
    )
    lines = [hidden] if words[0] == "submit" else _gaps(one, record)
    print(*lines, *(f"not comparable: {reason}" for reason in _differences(one, options, record)), sep="\n")


def _record(path: Path) -> Mapping[str, Any]:
    record = read_json(path)
    assert isinstance(record, Mapping)  # as `run` has just written it
    return record


def _gaps(one: Reproduction, record: Mapping[str, Any]) -> list[str]:
    """A line for each published metric."""
    return [
        f"{metric:<12} {record['metrics'][metric]:6.2f} here, {value:6.2f} published, {record['metrics'][metric] - value:+6.2f}"
        for metric, value in one.published.items()
        if metric in record["metrics"]
    ]


def _differences(one: Reproduction, options: argparse.Namespace, record: Mapping[str, Any]) -> list[str]:
    """What keeps the numbers from being comparable."""
    reasons = [
        "another encoder" if options.encoder else None,
        "another split" if options.split and one.benchmark in SERVER_SPLITS else None,
        *(part.get("remark") for part in record["parts"].values()),
    ]
    return list(dict.fromkeys(filter(None, reasons)))


def _numbers(published: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {value}" for metric, value in published.items())
