"""`python -m demo [GALLERY]`: serves the page on this machine only, and prints its address."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from mmretrieve import MMRetrieveError, Retriever, wardrobe
from mmretrieve.options import BUILT_IN

LOOPBACK, FIRST_PORT, PORTS_TRIED = "127.0.0.1", 7860, 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Serves a gallery as a page on 127.0.0.1.")
    parser.add_argument("gallery", nargs="?", default=BUILT_IN, help="folder of a gallery (default: the built-in one)")
    parser.add_argument("--port", type=int, help=f"port to listen on (default: the first free one from {FIRST_PORT})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    options = parser.parse_args(arguments)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported, below
    import uvicorn

    from demo.app import build
    from demo.handlers import Shop

    try:
        built_in = options.gallery == BUILT_IN and not os.path.isdir(BUILT_IN)
        if built_in:
            print("Opening the built-in gallery; on first use it is drawn, which takes about half a minute …", flush=True)
        retriever = Retriever.open(wardrobe.gallery_folder() if built_in else options.gallery, device=options.device)
        title = "the wardrobe, drawn clothes" if built_in else Path(str(retriever.gallery.path)).stem
        prompts = (
            ("in red", "striped", "with long sleeves", "in navy with dots")
            if built_in
            else ("in red", "in black", "for children")
        )
        server = build(Shop(retriever), title=title, prompts=prompts)
        port = options.port or _free_port()
    except MMRetrieveError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"mmretrieve is open at http://{LOOPBACK}:{port}  (Ctrl-C closes it)", flush=True)
    uvicorn.run(server, host=LOOPBACK, port=port, log_level="warning")
    return 0


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)):
                return port
    raise MMRetrieveError(f"ports {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} are all taken; name one with --port")


if __name__ == "__main__":
    sys.exit(main())
