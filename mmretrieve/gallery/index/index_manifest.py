"""The description of the index in the ledger: its rows, its plan, its search parameters and the recall it reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmretrieve.errors import GalleryError
from mmretrieve.gallery.index.kinds import MAX_FLAT_NUMBERS
from mmretrieve.gallery.index.plan import FLAT, IndexPlan, SearchParams
from mmretrieve.gallery.store.files import INDEX
from mmretrieve.gallery.store.records import RESTORE, StoreVersion
from mmretrieve.gallery.store.store import Store
from mmretrieve.options import DEFAULT_RECALL, format_bytes, is_number

NEW = f"{INDEX}.new"  # complete, but not in the ledger yet, or not renamed yet
MAX_DEAD_SHARE, MAX_GROWTH = 0.2, 2.0  # share of deleted rows, growth since training: above them, `info` gives advice
UNBUILT = IndexPlan(FLAT, "nothing was built yet, so every vector is scored as it is stored")


@dataclass(frozen=True)
class IndexManifest:
    """The description of an index. `trained` is the number of rows when it was built, `recall` what it reached then.

    `memory` is the limit of its size in bytes, if one was given.
    """

    epoch: int
    rows: int
    digest: str
    factory: str
    reason: str
    params: SearchParams
    trained: int
    recall: float = 1.0
    target: float = DEFAULT_RECALL
    seconds: float = 0.0
    memory: int | None = None

    @property
    def plan(self) -> IndexPlan:
        """The plan of the index."""
        return IndexPlan(self.factory, self.reason)

    def to_dict(self) -> dict[str, Any]:
        """For the ledger, where the parameters of a search are called "effort", and which has no memory that was not given."""
        data = asdict(self) | {"effort": self.params.to_dict()}
        return {name: value for name, value in data.items() if name != "params" and (name, value) != ("memory", None)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IndexManifest:
        """From what `to_dict` returns. Raises TypeError, ValueError, KeyError or AttributeError for anything else."""
        return cls(
            **{name: value for name, value in data.items() if name != "effort"}, params=SearchParams.from_dict(data["effort"])
        )

    def __post_init__(self) -> None:
        for name, type_ in {"epoch": int, "rows": int, "trained": int, "digest": str, "factory": str, "reason": str}.items():
            if type(getattr(self, name)) is not type_:
                raise TypeError(f"{name} of the index is {getattr(self, name)!r:.60}")
        limits = () if self.memory is None else ("memory",)
        for name in ("epoch", "rows", "trained", "recall", "target", "seconds", *limits):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} of the index is {getattr(self, name)!r:.60}")

    @classmethod
    def of(cls, store: Store, version: StoreVersion | None = None) -> IndexManifest | None:
        """Reads the manifest; None if there is none. With a version, only one whose index can serve it."""
        data = store.ledger.meta().get("index")
        try:
            manifest = None if data is None else cls.from_dict(data)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise GalleryError(f"{store.ledger.path}: {error}; the gallery is damaged; {RESTORE}") from error
        if manifest is None or version is None:
            return manifest
        return manifest if manifest.epoch == version.epoch and manifest.rows <= version.total else None


def sizes(store: Store) -> dict[str, int]:
    """Returns the size in bytes of each file of the index."""
    return {name: path.stat().st_size for name in (INDEX, NEW) if (path := store.folder / name).exists()}


def describe_index(store: Store, version: StoreVersion) -> dict[str, Any]:
    """Returns what `info` says about the index. `advice` is None if nothing needs to be done."""
    manifest = IndexManifest.of(store, version)
    if manifest is None:
        return {**asdict(UNBUILT), "advice": _advice_to_compact(store, version) or _advice_to_build(store, version)}
    description = {name: getattr(manifest, name) for name in ("factory", "reason", "rows", "recall")}
    return {
        **description,
        **manifest.params.given(),
        "uncovered": version.total - manifest.rows,
        "advice": _advice(store, version, manifest),
    }


def _advice(store: Store, version: StoreVersion, manifest: IndexManifest) -> str | None:
    if manifest.plan != UNBUILT and not sizes(store):
        return f"its file is missing: mmretrieve build {store.folder}"
    if (advice := _advice_to_compact(store, version)) is not None:
        return advice
    if manifest.memory is not None and (size := max(sizes(store).values(), default=0)) > manifest.memory:
        return (
            f"it has grown to {format_bytes(size)}, beyond the memory of {format_bytes(manifest.memory)}: "
            f"mmretrieve build {store.folder} --memory SIZE"
        )
    if version.total > MAX_GROWTH * manifest.trained > 0 and not manifest.plan.exact:
        return f"the gallery has grown {version.total / manifest.trained:.1f} times since it was trained: mmretrieve build {store.folder}"
    if manifest.plan == UNBUILT:
        return _advice_to_build(store, version)
    if manifest.recall < manifest.target:
        another = "build another" if manifest.memory is None else "build one with more memory"
        return f"it reached a recall of {manifest.recall:.3f}, not {manifest.target:g}: {another}"
    return None


def _advice_to_compact(store: Store, version: StoreVersion) -> str | None:
    if len(version.dead) <= MAX_DEAD_SHARE * version.total:
        return None
    return f"{len(version.dead) / version.total:.0%} of the rows are deleted: mmretrieve compact {store.folder}"


def _advice_to_build(store: Store, version: StoreVersion) -> str | None:
    large = version.total * store.dim > MAX_FLAT_NUMBERS
    return f"searches are slow without one: mmretrieve build {store.folder}" if large else None
