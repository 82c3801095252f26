"""Every benchmark by name. A new benchmark is a module with `load`, SPLITS and ROOT_CONTENTS, and one entry in each table here."""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks import catalogue, circo, cirr, fashioniq, genecis, wardrobe
from eval.benchmarks.base import Benchmark
from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import Choice


class BenchmarkName(Choice):
    """Benchmark families. A family with parts is measured on each part, and reported as their unweighted mean."""

    CIRR = "cirr"
    FASHIONIQ = "fashioniq"
    CIRCO = "circo"
    GENECIS = "genecis"
    WARDROBE = "wardrobe"
    CATALOGUE = "catalogue"


PARTS: dict[BenchmarkName, tuple[str, ...]] = {
    BenchmarkName.FASHIONIQ: fashioniq.CATEGORIES,
    BenchmarkName.GENECIS: genecis.TASKS,
}
SPLITS: dict[BenchmarkName, tuple[str, ...]] = {
    BenchmarkName.CIRR: cirr.SPLITS,
    BenchmarkName.FASHIONIQ: fashioniq.SPLITS,
    BenchmarkName.CIRCO: circo.SPLITS,
    BenchmarkName.GENECIS: genecis.SPLITS,
    BenchmarkName.WARDROBE: wardrobe.SPLITS,
    BenchmarkName.CATALOGUE: catalogue.SPLITS,
}
"""The splits of each family; the first one is the default."""
ROOT_CONTENTS: dict[BenchmarkName, str] = {
    BenchmarkName.CIRR: cirr.ROOT_CONTENTS,
    BenchmarkName.FASHIONIQ: fashioniq.ROOT_CONTENTS,
    BenchmarkName.CIRCO: circo.ROOT_CONTENTS,
    BenchmarkName.GENECIS: genecis.ROOT_CONTENTS,
    BenchmarkName.CATALOGUE: catalogue.ROOT_CONTENTS,
}


def load_benchmark(name: str, root: str | Path | None = None, split: str | None = None) -> Benchmark:
    """Loads one benchmark from its annotation files. Images are read later, and only when they are encoded or shown.

    Parameters
    ----------
    name : "cirr", "fashioniq:dress|shirt|toptee", "circo", "genecis:<task>", "wardrobe" or "catalogue".
    root : the benchmark's folder, in any of its usual layouts. The wardrobe is built in and has none.
    split : by default "val" where there is one, otherwise the only split with public targets.

    Raises
    ------
    OptionError : the name, part or split is unknown, or `root` is missing.
    MMRetrieveError : an annotation file is missing or damaged; the message names the file and the record.

    >>> len(load_benchmark("wardrobe").queries)
    500
    """
    family, part = _parse_name(name)
    if part is None and family in PARTS:
        raise OptionError(f"{family.value} has parts: choose from {', '.join(f'{family.value}:{p}' for p in PARTS[family])}")
    split = SPLITS[family][0] if split is None else split
    if split not in SPLITS[family]:
        raise unknown(f"split of {family.value}", split, SPLITS[family])
    if family is BenchmarkName.WARDROBE:
        return wardrobe.load()
    folder = _check_root(family, root)
    match family:
        case BenchmarkName.CIRR:
            return cirr.load(folder, split)
        case BenchmarkName.FASHIONIQ:
            return fashioniq.load(folder, split, str(part))
        case BenchmarkName.CIRCO:
            return circo.load(folder, split)
        case BenchmarkName.GENECIS:
            return genecis.load(folder, split, str(part))
        case _:
            return catalogue.load(folder)


def load_suite(name: str, root: str | Path | None = None, split: str | None = None) -> tuple[Benchmark, ...]:
    """Every part of a family ("fashioniq": dress, shirt and toptee); one benchmark for a family without parts, or for one part.

    Of GeneCIS, the tasks whose files exist. Raises what `load_benchmark` raises.
    """
    family, part = _parse_name(name)
    if part is not None or family not in PARTS:
        return (load_benchmark(name, root, split),)
    parts = PARTS[family]
    if family is BenchmarkName.GENECIS:
        parts = genecis.list_tasks(_check_root(family, root))
    return tuple(load_benchmark(f"{family.value}:{part}", root, split) for part in parts)


def _parse_name(name: str) -> tuple[BenchmarkName, str | None]:
    head, colon, part = str(name).partition(":")
    family = BenchmarkName(head)
    if colon and part not in PARTS.get(family, ()):
        raise unknown(f"part of {family.value}", part, PARTS.get(family, ("none: it has no parts",)))
    return family, part or None


def _check_root(family: BenchmarkName, root: str | Path | None) -> Path:
    if root is None:
        raise OptionError(f"{family.value} needs root: the folder with {ROOT_CONTENTS[family]}")
    return Path(root)
