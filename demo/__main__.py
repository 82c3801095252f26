"""`python -m demo [GALLERY]` serves the page, by default to this machine only, and prints its address."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmretrieve.cli import arguments, runtime
from mmretrieve.options import BUILT_IN

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mmretrieve.server.context import AppContext


def main(words: Sequence[str] | None = None) -> int:
    """Serves until interrupted. Returns the exit status of the shell: 0 done, 1 failed, 2 wrong use."""
    parser = arguments.OneLineParser(prog="python -m demo", description="Serve a gallery as a web page, with its API.")
    parser.add_argument(
        "gallery", nargs="?", default=BUILT_IN, metavar="G", help="the folder of a gallery (default: the built-in gallery)"
    )
    arguments.add_serving(parser)
    arguments.add_opening(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=serve, json=False)
    return runtime.run_command(parser, words)


def serve(options: argparse.Namespace) -> int:
    if options.gallery == BUILT_IN and not os.path.isdir(BUILT_IN):
        print("The built-in gallery is drawn on first use. This takes about half a minute.", flush=True)
    return runtime.serve(options, page)


def page(app: FastAPI, context: AppContext) -> FastAPI:
    """The server with the page at its root. Gradio is imported when the server is made, after its settings."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo import app as page_app

    return page_app.page(app, context)


if __name__ == "__main__":
    sys.exit(main())
