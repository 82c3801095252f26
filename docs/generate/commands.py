"""The pages of the command line, from the parsers that also print `--help`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from docs.generate.markdown import UndocumentedError, anchor, sentence, table


def command_blocks(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All commands of a parser with all their arguments. UndocumentedError for one without a help text."""
    yield sentence(parser.description, parser.prog)
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    yield table(
        ("command", "what it does"),
        ((f"[`{name}`](#{anchor(of.prog)})", sentence(of.description, of.prog)) for name, of in commands.items()),
    )
    yield from _groups(parser, level=2)
    if parser.epilog:
        yield parser.epilog
    for command in commands.values():
        yield f"## `{command.prog}` {{ #{anchor(command.prog)} }}"
        yield sentence(command.description, command.prog)
        yield f"```text\n{_usage(command)}\n```"
        yield from _groups(command, level=3)


SHOWN_ELSEWHERE = (argparse._SubParsersAction, argparse._HelpAction)


def _groups(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """A table for each group of arguments that the parser has."""
    titles = {id(parser._positionals): "Arguments", id(parser._optionals): "Options"}
    for group in parser._action_groups:
        rows = [_row(parser, action) for action in group._group_actions if not isinstance(action, SHOWN_ELSEWHERE)]
        if rows:
            title = titles.get(id(group)) or sentence(group.title, parser.prog).rstrip(".").capitalize()
            yield f"{'#' * level} {title} {{ #{anchor(f'{parser.prog} {title}')} }}"
            yield table(("argument", "meaning"), rows)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    if not action.help:
        raise UndocumentedError(f"{parser.prog}: {_name(action)} has no help")
    return f"`{_name(action)}`", sentence(parser._get_formatter()._expand_help(action), parser.prog)


def _usage(parser: argparse.ArgumentParser) -> str:
    required = [action for action in parser._get_optional_actions() if action.required]
    return " ".join([parser.prog, *map(_name, [*parser._get_positional_actions(), *required]), "[options]"])


def _name(action: argparse.Action) -> str:
    """An argument as it is typed: `"--alpha-image A"`, `"ID…"`."""
    more = "…" if action.nargs == "+" else ""
    if not action.option_strings:
        return f"{_value(action)}{more}"
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {_value(action)}{more}")


def _value(action: argparse.Action) -> Any:
    if action.metavar:
        return action.metavar
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()
