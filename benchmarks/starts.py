"""Time to the first answer of shell and server, and to load encoders: `python -m benchmarks.starts [--runs 5] [--out results]`.

Every measurement is a new process. `--models` names architectures, whose weights are written at random first; the ordinary load of
open_clip is measured beside that of this library. CPU seconds count all threads; those of a server include its end.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import mmretrieve as mm
from benchmarks.script import make_parser, time_call, write_result
from benchmarks.server import start_server

PYTHON = [sys.executable, "-c"]
SHELL = [sys.executable, "-m", "mmretrieve.cli.main"]
MODELS = ("ViT-B-32", "ViT-L-14")
WRITE = """
import sys, open_clip
from safetensors.torch import save_file
state = open_clip.create_model(sys.argv[1]).state_dict()
save_file({name: value.contiguous() for name, value in state.items()}, sys.argv[2])
"""
LOAD = {
    "import mmretrieve": "import mmretrieve",
    "import open_clip": "import open_clip",
    "load_encoder of the wardrobe": "import mmretrieve as mm; mm.load_encoder('wardrobe', dtype='float32')",
}
OPEN_CLIP = "import sys, open_clip; open_clip.create_model(sys.argv[1], sys.argv[2])"
OURS = "import sys, mmretrieve as mm; mm.load_encoder('/'.join(sys.argv[1:]), dtype='float32')"


def main() -> None:
    parser = make_parser(__doc__, "starts")
    parser.add_argument("--runs", type=int, default=5, help="processes of each measurement (default: %(default)s)")
    parser.add_argument("--models", nargs="*", default=MODELS, help="architectures of open_clip (default: ViT-B-32 ViT-L-14)")
    options = parser.parse_args()
    write_result(measure(options.runs, options.models), options.out, "starts")


def measure(runs: int, models: list[str]) -> dict[str, Any]:
    """The medians of CPU and wall seconds of each start."""
    item = mm.open_gallery(mm.wardrobe.gallery_folder()).ids[0]
    search = [*SHELL, "search", "wardrobe", "--reference-id", item]
    starts = {
        "mmretrieve --help": [*SHELL, "--help"],
        "mmretrieve info": [*SHELL, "info", "wardrobe"],
        "mmretrieve search, an item": search,
        "mmretrieve search, an item and a prompt": [*search, "--prompt", "in red"],
    } | {name: [*PYTHON, program] for name, program in LOAD.items()}
    seconds = {name: median_of(runs, run, command) for name, command in starts.items()}
    seconds["server, an item and a prompt"] = median_of(runs, first_answer_of_server, item)
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            weights = str(Path(folder) / f"{model}.safetensors")
            run([*PYTHON, WRITE, model, weights])
            seconds[f"{model}, open_clip.create_model"] = median_of(runs, run, [*PYTHON, OPEN_CLIP, model, weights])
            seconds[f"{model}, load_encoder"] = median_of(runs, run, [*PYTHON, OURS, model, weights])
            os.unlink(weights)
    return {
        "seconds": seconds,
        "runs": runs,
    }


def median_of(runs: int, function: Callable[..., float], *args: Any) -> dict[str, float]:
    """The medians of the CPU seconds of the child processes of a call, and of the wall seconds that it returns."""
    cpu, wall = [], []
    for _ in range(runs):
        before = os.times()
        wall.append(function(*args))
        after = os.times()
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return {"CPU": round(statistics.median(cpu), 2), "wall": round(statistics.median(wall), 2)}


def run(command: list[str]) -> float:
    """The seconds that a command takes."""
    return time_call(subprocess.run, command, check=True, capture_output=True)[0]


def first_answer_of_server(item: str) -> float:
    """The seconds from the start of a server to the answer of its first search."""
    body, started = json.dumps({"reference_id": item, "prompt": "in red"}).encode(), time.perf_counter()
    with start_server() as (_, address):
        with urlopen(Request(f"{address}/api/search", body, {"Content-Type": "application/json"})) as response:
            response.read()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
