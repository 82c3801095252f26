"""`python -m docs.generate` writes docs/reference/{cli,eval,api,mcp}.md; with --check it only compares them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from docs.generate.commands import command_blocks
from docs.generate.markdown import page
from docs.generate.schemas import api_blocks, served, tool_blocks

FOLDER = Path(__file__).parents[1] / "reference"


def main(words: Sequence[str] | None = None) -> int:
    """Writes the generated pages of the reference. Exit status 0 done, 1 where --check finds a page that is out of date."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name the pages that are out of date")
    options = parser.parse_args(words)
    changed = {name: text for name, text in pages().items() if not _is_current(FOLDER / name, text)}
    for name, text in changed.items():
        if options.check:
            print(f"docs/reference/{name} is out of date; run: python -m docs.generate", file=sys.stderr)
        else:
            (FOLDER / name).write_text(text, encoding="utf-8")
    return int(bool(changed and options.check))


def pages() -> dict[str, str]:
    """The text of each generated page by its file name. UndocumentedError for anything in it without a description."""
    os.environ.pop("MMRETRIEVE_DATA", None)  # else it is a default of eval's options
    from eval.cli.main import make_parser as make_eval_parser
    from mmretrieve.cli.main import make_parser

    openapi, tools = served()
    return {
        "cli.md": page("Command line", command_blocks(make_parser())),
        "eval.md": page("Evaluation commands", command_blocks(make_eval_parser())),
        "api.md": page("HTTP API", api_blocks(openapi)),
        "mcp.md": page("MCP tools", tool_blocks(tools)),
    }


def _is_current(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
