"""What each operation costs in galleries of growing size: adding, deleting, compacting, building, opening, searching and filtering.

    python -m benchmarks.growth [--sizes 10000 100000 1000000] [--dim 128] [--out results]

The vectors and the composed queries are those of `benchmarks.million`, with a number as the field of each item. Each step runs in a process of
its own, so that its memory can be measured. Milliseconds are given by the clock and, as other programs count less in them, by the processor.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mmretrieve as mm
from benchmarks.million import ROW_BATCH_SIZE, synthetic_vectors
from benchmarks.script import make_parser, peak_memory, run_in_process, write_result
from mmretrieve.gallery.index.tuning import composed_queries
from mmretrieve.gallery.search import MAX_EXACT_ITEMS
from mmretrieve.rules import make_rule

N_ADDED = 1_000  # items that are added, or deleted, at once
N_WRITES = 5  # of each kind
N_READS = 9
N_QUERIES = 200
UNCOVERED_SHARE = 0.04  # of the items, which the index does not cover: more than 5 % would be added to it
FILTERS = {"one item in ten": "n % 10 = 3", "one in a thousand": "n % 1000 = 3"}
COLUMNS = ("wall", "cpu")
PANELS = {  # of the picture
    "writes": ("add all items", "add 1,000", "delete one", "delete 1,000", "compact", "build"),
    "reads": (
        "open",
        "first search",
        "search",
        "search, one item in ten",
        "search, one in a thousand",
        "search, 4 % new",
        "scores of three terms",
        "search by the product rule",
    ),
}
STEPS_OF_MEMORY = ("fill", "compact", "build", "search")
Times = dict[str, float]


def main() -> None:
    parser = make_parser(__doc__, "growth")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="items of each gallery")
    parser.add_argument("--dim", type=int, default=128, help="dimensions of the vectors")
    parser.add_argument("--folder", type=Path, help="where the galleries are made (default: a temporary folder)")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "data": f"synthetic vectors of {options.dim} dimensions, one field; medians in milliseconds by the clock and by the processor",
        "sizes": {str(size): measure(size, options.dim, options.folder) for size in options.sizes},
    }
    write_result(result, options.out, "growth")
    if options.out:
        draw(result["sizes"], options.out / "growth.png")


def measure(size: int, dim: int, folder: Path | None = None) -> dict[str, Any]:
    """The cost of each operation in a gallery of that size: its times, the memory and the bytes of each step, and the index."""
    result: dict[str, Any] = {"times": {}, "memory, MB": {}}
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "g"
        for step in (fill, write, compact, build, search, outgrow):
            times, memory, facts = run_in_process(run_step, step, path, size, dim)
            result["times"] |= times
            result["memory, MB"][step.__name__] = memory
            result |= facts
    return result


def run_step(step: Callable[[Path, int, int], tuple[dict[str, Times], dict[str, Any]]], path: Path, size: int, dim: int) -> Any:
    """The times of a step, its memory and what else it found. `resident` counts mapped files, too."""
    with peak_memory() as memory:
        times, facts = step(path, size, dim)
    return times, memory | {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}, facts


def fill(path: Path, size: int, dim: int) -> tuple[dict[str, Times], dict[str, Any]]:
    gallery = mm.Gallery.for_vectors(path, mm.EncoderIdentity("synthetic", "synthetic", "none"), dim)
    batches = [timed(add, gallery, items) for items in new_items(0, size, dim)]
    total = {column: sum(batch[column] for batch in batches) for column in COLUMNS}
    return {"add all items": total}, {"bytes": gallery.info()["bytes"]}


def write(path: Path, size: int, dim: int) -> tuple[dict[str, Times], dict[str, Any]]:
    """Writes in turn to the gallery and to new ones, so that other programs slow both."""
    gallery, spent = mm.Gallery.open(path, device="cpu"), dict[str, list[Times]]()
    written: list[int] = []
    for i in range(N_WRITES):
        (items,) = new_items(size + i * N_ADDED, N_ADDED, dim)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            empty = mm.Gallery.for_vectors(Path(folder) / "empty", gallery.encoder_identity, dim)
            spent.setdefault("add 1,000 to an empty gallery", []).append(timed(add, empty, items))
        before = bytes_written()
        spent.setdefault("add 1,000", []).append(timed(add, gallery, items))
        written.append(bytes_written() - before)
        one, thousand = delete_ids(i, size)
        spent.setdefault("delete one", []).append(timed(gallery.delete, one))
        spent.setdefault("delete 1,000", []).append(timed(gallery.delete, thousand))
    return {name: median(times) for name, times in spent.items()}, {"bytes written by add 1,000": int(np.median(written))}


def compact(path: Path, _: int, __: int) -> tuple[dict[str, Times], dict[str, Any]]:
    return {"compact": timed(mm.Gallery.open(path, device="cpu").compact)}, {}


def build(path: Path, _: int, __: int) -> tuple[dict[str, Times], dict[str, Any]]:
    gallery = mm.Gallery.open(path, device="cpu")
    times = timed(gallery.build_index)
    return {"build": times}, {"index": gallery.info()["index"], "index bytes": gallery.info()["bytes"].get("index.faiss", 0)}


def search(path: Path, _: int, dim: int) -> tuple[dict[str, Times], dict[str, Any]]:
    times, gallery = {}, mm.Gallery.open(path, device="cpu")
    times["open"] = median([timed(mm.Gallery.open, path, device="cpu") for _ in range(N_READS)])
    queries = composed_queries(synthetic_vectors(0, ROW_BATCH_SIZE, dim), N_QUERIES, seed=3)
    single = [mm.Composition(("image",), query[None], (1.0,)) for query in queries]
    times["first search"] = timed(gallery.search, single[0], 10)
    times |= search_times(gallery, single, "search")
    for name, where in FILTERS.items():
        times[f"first search, {name}"] = timed(gallery.search, single[0], 10, where=where)
        times |= search_times(gallery, single[:50], f"search, {name}", where=where)
    three = [mm.Composition(("image", "prompt", "composed"), queries[i : i + 3], (1.0, 1.0, 1.0)) for i in range(N_READS)]
    times["scores of three terms"] = median([timed(gallery.approximate_term_scores, one) for one in three])
    product = [one.with_rule(make_rule("product")) for one in three]
    times["search by the product rule"] = median([timed(gallery.search, one, 10) for one in product])
    return times, {"product rule of all items": len(gallery) <= MAX_EXACT_ITEMS}


def outgrow(path: Path, size: int, dim: int) -> tuple[dict[str, Times], dict[str, Any]]:
    """Adds items that the index does not cover, and searches."""
    gallery = mm.Gallery.open(path, device="cpu")
    for items in new_items(2 * size, int(UNCOVERED_SHARE * size), dim):
        add(gallery, items)
    queries = composed_queries(synthetic_vectors(0, ROW_BATCH_SIZE, dim), N_QUERIES, seed=3)
    single = [mm.Composition(("image",), query[None], (1.0,)) for query in queries]
    first = timed(gallery.search, single[0], 10)
    return {"first search, 4 % new": first} | search_times(gallery, single[:50], "search, 4 % new"), {}


def new_items(first: int, count: int, dim: int) -> Iterator[tuple[list[str], Any, list[dict[str, int]]]]:
    """Yields ids, vectors and fields, a batch at a time."""
    for start in range(first, first + count, ROW_BATCH_SIZE):
        numbers = range(start, min(start + ROW_BATCH_SIZE, first + count))
        yield [f"{n:09}" for n in numbers], synthetic_vectors(start, len(numbers), dim), [{"n": n} for n in numbers]


def add(gallery: mm.Gallery, items: tuple[list[str], Any, list[dict[str, int]]]) -> None:
    ids, vectors, fields = items
    gallery.add_vectors(ids, vectors, fields=fields)


def delete_ids(turn: int, size: int) -> tuple[list[str], list[str]]:
    """The id of one item, and those of up to 1,000 others, evenly spaced; other ones in each turn."""
    step = size // (N_ADDED + 1)
    numbers = [(turn + i * step) % size for i in range(N_ADDED + 1)]
    return [f"{numbers[0]:09}"], [f"{n:09}" for n in numbers[1:]]


def search_times(gallery: mm.Gallery, queries: list[mm.Composition], name: str, **options: Any) -> dict[str, Times]:
    """The median and the 99th percentile of the searches of all queries."""
    spent = [timed(gallery.search, query, 10, **options) for query in queries]
    return {name: median(spent), f"{name}, p99": {c: float(np.percentile([one[c] for one in spent], 99)) for c in COLUMNS}}


def timed(call: Callable[..., object], *args: Any, **options: Any) -> Times:
    """Milliseconds of a call, by the clock and by the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    call(*args, **options)
    return {"wall": 1000 * (time.perf_counter() - wall), "cpu": 1000 * (time.process_time() - cpu)}


def median(times: list[Times]) -> Times:
    return {column: float(np.median([one[column] for one in times])) for column in COLUMNS}


def bytes_written() -> int:
    """Bytes that this process has written to files; Linux only."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def table(result: dict[str, Any]) -> str:
    """The table of docs/guides/gallery.md: milliseconds by the clock and by the processor, then bytes and memory."""
    sizes = result["sizes"]
    names = [name for name in next(iter(sizes.values()))["times"] if "p99" not in name]
    rows = {
        name: [" / ".join(_short(one["times"][name][column]) for column in COLUMNS) for one in sizes.values()] for name in names
    }
    rows |= {
        f"memory, MB: {step}": [_short(one["memory, MB"][step]["peak"]) for one in sizes.values()] for step in STEPS_OF_MEMORY
    }
    rows["bytes an item: ledger, vectors, index"] = [_bytes_of_items(int(size), one) for size, one in sizes.items()]
    rows["index"] = [f"`{one['index']['factory']}`" for one in sizes.values()]
    lines = [
        f"| milliseconds: clock / processor | {' | '.join(f'{int(size):,}' for size in sizes)} |",
        "| --- " * (len(sizes) + 1) + "|",
    ]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def _bytes_of_items(size: int, one: dict[str, Any]) -> str:
    return ", ".join(
        f"{count / size:.0f}" for count in (one["bytes"]["gallery.sqlite"], one["bytes"]["vectors.f16"], one["index bytes"])
    )


def _short(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"


def draw(sizes: dict[str, Any], file: Path) -> None:
    """Plots processor time against the number of items, with both axes logarithmic: what costs the same in every gallery is level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(PANELS), figsize=(10, 4.6), layout="constrained", sharey=True)
    counts = np.array([int(size) for size in sizes])
    for axes, (title, names) in zip(panels, PANELS.items(), strict=True):
        for name in names:
            times = [one["times"][name]["cpu"] for one in sizes.values()]
            axes.loglog(counts, times, marker="o", markersize=3, linewidth=1.2, label=name)
        axes.loglog(counts, 1e-3 * counts, color="grey", linestyle=":", linewidth=0.8, label="in proportion to the items")
        axes.set(xlabel="items", title=title)
        axes.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    panels[0].set_ylabel("ms of a processor")
    figure.savefig(file, dpi=80)
    plt.close(figure)


if __name__ == "__main__":
    main()
