"""`python -m demo [GALLERY]`: serves the page on this machine only, and prints its address."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mmretrieve.cli import arguments, runtime
from mmretrieve.options import BUILT_IN


def main(words: Sequence[str] | None = None) -> int:
    """Serves until interrupted. Exit status as the shell's: 0 done, 1 failed, 2 wrong use."""
    parser = arguments.OneLineParser(prog="python -m demo", description="Serves a gallery as a page, with its API beside it.")
    parser.add_argument(
        "gallery", nargs="?", default=BUILT_IN, metavar="G", help="folder of a gallery (default: the built-in one)"
    )
    arguments.add_serving(parser)
    arguments.add_opening(parser)
    parser.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    parser.set_defaults(run=serve, json=False)
    return runtime.run_command(parser, words)


def serve(options: argparse.Namespace) -> int:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, next
    from demo.app import page

    if options.gallery == BUILT_IN and not os.path.isdir(BUILT_IN):
        print("Opening the built-in gallery; on first use it is drawn, which takes about half a minute …", flush=True)
    return runtime.serve(options, page)


if __name__ == "__main__":
    sys.exit(main())
