"""Every benchmark by name."""

from __future__ import annotations

from pathlib import Path

from eval.benchmarks import catalogue, circo, cirr, fashioniq, genecis, wardrobe
from eval.benchmarks.base import Benchmark
from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import Choice


class BenchmarkName(Choice):
    """Families of benchmarks; one with parts is measured on each of them, and by their unweighted mean."""

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
"""Of each family; the first is the one that is measured when none is named."""
HOLDS: dict[BenchmarkName, str] = {
    BenchmarkName.CIRR: cirr.HOLDS,
    BenchmarkName.FASHIONIQ: fashioniq.HOLDS,
    BenchmarkName.CIRCO: circo.HOLDS,
    BenchmarkName.GENECIS: genecis.HOLDS,
    BenchmarkName.CATALOGUE: catalogue.HOLDS,
}


def load_benchmark(name: str, root: str | Path | None = None, split: str | None = None) -> Benchmark:
    """One benchmark, from its annotation files alone: pictures are asked for only when something must be encoded.

    name: "cirr", "fashioniq:dress|shirt|toptee", "circo", "genecis:<task>", "wardrobe" or "catalogue". root: its own folder,
    in any layout in use (the wardrobe has none: it is built in). split: "val" where there is one, unless another is named.
    Raises OptionError for an unknown name, part or split, MMRetrieveError naming the file where annotations do not fit.
    """
    family, part = _family(name)
    if part is None and family in PARTS:
        raise OptionError(f"{family.value} has parts: choose from {', '.join(f'{family.value}:{p}' for p in PARTS[family])}")
    split = SPLITS[family][0] if split is None else split
    if split not in SPLITS[family]:
        raise unknown(f"split of {family.value}", split, SPLITS[family])
    if family is BenchmarkName.WARDROBE:
        return wardrobe.load()
    folder = _root(family, root)
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
    """Every part of a family ("fashioniq": dress, shirt and toptee); a benchmark without parts, or one part, alone.

    Of GeneCIS those tasks whose files are there. Raises what `load_benchmark` raises.
    """
    family, part = _family(name)
    if part is not None or family not in PARTS:
        return (load_benchmark(name, root, split),)
    parts = PARTS[family]
    if family is BenchmarkName.GENECIS:
        parts = genecis.present(_root(family, root))
    return tuple(load_benchmark(f"{family.value}:{part}", root, split) for part in parts)


def _family(name: str) -> tuple[BenchmarkName, str | None]:
    head, colon, part = str(name).partition(":")
    family = BenchmarkName(head)
    if colon and part not in PARTS.get(family, ()):
        raise unknown(f"part of {family.value}", part, PARTS.get(family, ("none: it has no parts",)))
    return family, part or None


def _root(family: BenchmarkName, root: str | Path | None) -> Path:
    if root is None:
        raise OptionError(f"{family.value} needs root: the folder with {HOLDS[family]}")
    return Path(root)
