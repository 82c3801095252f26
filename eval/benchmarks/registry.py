"""Every benchmark by name, and the built-in wardrobe.

A new benchmark is a module with NAME, `load`, SPLITS and ROOT_CONTENTS, a member of BenchmarkName and a row of FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eval.benchmarks import catalogue, circo, cirr, fashioniq, genecis, icir, lasco
from eval.benchmarks.base import Benchmark, BenchmarkQuery, Protocol
from eval.files import digest
from mmretrieve import wardrobe
from mmretrieve.errors import OptionError, unknown
from mmretrieve.options import OptionEnum

WARDROBE_SPLITS = ("test",)


class BenchmarkName(OptionEnum):
    """Benchmark families. A family with parts is measured on each part, and reported as their unweighted mean."""

    CIRR = cirr.NAME
    FASHIONIQ = fashioniq.NAME
    CIRCO = circo.NAME
    GENECIS = genecis.NAME
    ICIR = icir.NAME
    LASCO = lasco.NAME
    WARDROBE = "wardrobe"
    CATALOGUE = catalogue.NAME


@dataclass(frozen=True)
class Family:
    """One row of the registry.

    Parameters
    ----------
    title : how reports name it.
    load : (folder, split, part) → Benchmark; the part is "" for a family without parts.
    splits : the first one is the default.
    root_contents : what its folder contains, for the error if none is given; None for one that is built in.
    parts : their names, if it has several.
    find_parts : folder → the parts whose files exist; by default all.
    local_encoder_caution : what a report says about an encoder from a local folder; "" for nothing.
    """

    title: str
    load: Callable[[Path, str, str], Benchmark]
    splits: tuple[str, ...]
    root_contents: str | None
    parts: tuple[str, ...] = ()
    find_parts: Callable[[Path], tuple[str, ...]] | None = None
    local_encoder_caution: str = ""


def load_wardrobe() -> Benchmark:
    """The benchmark over the drawings that ship with the package: 500 queries, 2,000 drawings. The reference is not ranked."""
    queries = tuple(BenchmarkQuery(q.id, q.reference, (q.prompt,), q.targets, tags=q.changed) for q in wardrobe.queries())
    aspects = tuple(sorted({tag for query in queries for tag in query.tags}))
    return Benchmark(
        BenchmarkName.WARDROBE.value,
        WARDROBE_SPLITS[0],
        tuple(drawing.id for drawing in wardrobe.drawings()),
        queries,
        lambda id_: wardrobe.pictures_folder() / id_,
        Protocol(headline="map@10", recalls=(1, 5, 10), precisions=(10,), aspects=aspects),
        checksum=digest(repr(query).encode() for query in queries),
        fields={drawing.id: wardrobe.fields_of(drawing) for drawing in wardrobe.drawings()},
    )


FAMILIES: dict[BenchmarkName, Family] = {
    BenchmarkName.CIRR: Family("CIRR", lambda root, split, _: cirr.load(root, split), cirr.SPLITS, cirr.ROOT_CONTENTS),
    BenchmarkName.FASHIONIQ: Family(
        "FashionIQ", fashioniq.load, fashioniq.SPLITS, fashioniq.ROOT_CONTENTS, fashioniq.CATEGORIES
    ),
    BenchmarkName.CIRCO: Family("CIRCO", lambda root, split, _: circo.load(root, split), circo.SPLITS, circo.ROOT_CONTENTS),
    BenchmarkName.GENECIS: Family(
        "GeneCIS", genecis.load, genecis.SPLITS, genecis.ROOT_CONTENTS, genecis.TASKS, genecis.list_tasks
    ),
    BenchmarkName.ICIR: Family("i-CIR", lambda root, *_: icir.load(root), icir.SPLITS, icir.ROOT_CONTENTS),
    BenchmarkName.LASCO: Family("LaSCo", lambda root, *_: lasco.load(root), lasco.SPLITS, lasco.ROOT_CONTENTS),
    BenchmarkName.WARDROBE: Family("Wardrobe", lambda *_: load_wardrobe(), WARDROBE_SPLITS, None),
    BenchmarkName.CATALOGUE: Family(
        "Catalogue",
        lambda root, *_: catalogue.load(root),
        catalogue.SPLITS,
        catalogue.ROOT_CONTENTS,
        local_encoder_caution=catalogue.LOCAL_ENCODER,
    ),
}


def load_benchmark(name: str, root: str | Path | None = None, split: str | None = None) -> Benchmark:
    """Loads one benchmark from its annotation files. Images are read later, and only when they are encoded or shown.

    Parameters
    ----------
    name : a `BenchmarkName`, with the part for a family that has several, such as "fashioniq:dress".
    root : the benchmark's folder, in any of its usual layouts. The wardrobe is built in and has none.
    split : by default "val" where there is one, otherwise the only split with public targets.

    Raises
    ------
    OptionError : the name, part or split is unknown, or `root` is missing.
    MMRetrieveError : an annotation file is missing or damaged; the message names the file and the record.

    >>> len(load_benchmark("wardrobe").queries)
    500
    """
    family_name, part = _parse_name(name)
    family = FAMILIES[family_name]
    if part is None and family.parts:
        raise OptionError(
            f"{family_name.value} has parts: choose from {', '.join(f'{family_name.value}:{part}' for part in family.parts)}"
        )
    split = family.splits[0] if split is None else split
    if split not in family.splits:
        raise unknown(f"split of {family_name.value}", split, family.splits)
    return family.load(_check_root(family_name, root), split, part or "")


def load_suite(name: str, root: str | Path | None = None, split: str | None = None) -> tuple[Benchmark, ...]:
    """Every part of a family ("fashioniq": dress, shirt and toptee); one benchmark for a family without parts, or for one part.

    Of GeneCIS, the tasks whose files exist. Raises what `load_benchmark` raises.
    """
    family_name, part = _parse_name(name)
    family = FAMILIES[family_name]
    if part is not None or not family.parts:
        return (load_benchmark(name, root, split),)
    parts = family.parts if family.find_parts is None else family.find_parts(_check_root(family_name, root))
    return tuple(load_benchmark(f"{family_name.value}:{part}", root, split) for part in parts)


def _parse_name(name: str) -> tuple[BenchmarkName, str | None]:
    head, colon, part = str(name).partition(":")
    family_name = BenchmarkName(head)
    parts = FAMILIES[family_name].parts
    if colon and not parts:
        raise OptionError(f"{family_name.value} has no parts: write {family_name.value}")
    if colon and part not in parts:
        raise unknown(f"part of {family_name.value}", part, parts)
    return family_name, part or None


def _check_root(name: BenchmarkName, root: str | Path | None) -> Path:
    """The folder of a benchmark; any path for one that is built in, which does not read it."""
    contents = FAMILIES[name].root_contents
    if root is None and contents is not None:
        raise OptionError(f"{name.value} needs its folder: give --root FOLDER with {contents}")
    return Path(root or ".")
