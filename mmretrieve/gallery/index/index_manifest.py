"""What the ledger keeps of the index: of which epoch and how many rows, from which plan, how hard it looks and what that found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.plan import FLAT, FLAT_NUMBERS, IndexPlan
from mmretrieve.gallery.store.records import StoreVersion
from mmretrieve.gallery.store.store import INDEX, Store
from mmretrieve.options import DEFAULT_RECALL

NEW = f"{INDEX}.new"  # written whole, but not stamped yet, or not renamed yet
DEAD, OUTGROWN = 0.2, 2.0  # shares of dead rows, and of rows since training, from which something is advised
UNBUILT = IndexPlan(FLAT, "nothing was built yet, so every vector is scored as it is stored")


@dataclass(frozen=True)
class IndexManifest:
    """What the ledger keeps of the index. `trained` is how many rows there were when it was built, `recall` what was reached then."""

    epoch: int
    rows: int
    digest: str
    factory: str
    reason: str
    effort: dict[str, Any]
    trained: int
    recall: float = 1.0
    target: float = DEFAULT_RECALL
    seconds: float = 0.0

    @property
    def plan(self) -> IndexPlan:
        return IndexPlan(self.factory, self.reason)

    @classmethod
    def unwritten(cls, version: StoreVersion, index: FaissIndex) -> IndexManifest:
        """Of an index that was just built and not tuned."""
        plan, rows = index.plan, len(index)
        return cls(version.epoch, rows, "", plan.factory, plan.reason, asdict(index.effort), rows)

    @classmethod
    def of(cls, store: Store, version: StoreVersion | None = None) -> IndexManifest | None:
        """The manifest there is; with a version, only one whose index can serve it."""
        said = store.ledger.meta().get("index")
        manifest = None if said is None else cls(**said)
        if manifest is None or version is None:
            return manifest
        return manifest if manifest.epoch == version.epoch and manifest.rows <= version.total else None


def state(store: Store, version: StoreVersion) -> dict[str, Any]:
    """What `info` says of the index, and what is advised; None where all is well."""
    manifest = IndexManifest.of(store, version)
    if manifest is None:
        return {**asdict(UNBUILT), "advice": _advice_to_compact(store, version) or _advice_to_build(store, version)}
    said = {name: getattr(manifest, name) for name in ("factory", "reason", "rows", "recall")}
    effort = {name: value for name, value in manifest.effort.items() if value is not None}
    return {**said, **effort, "uncovered": version.total - manifest.rows, "advice": _advice(store, version, manifest)}


def _advice(store: Store, version: StoreVersion, manifest: IndexManifest) -> str | None:
    if manifest.plan != UNBUILT and not any((store.folder / name).exists() for name in (INDEX, NEW)):
        return f"its file is missing: mmretrieve build {store.folder}"
    if (advice := _advice_to_compact(store, version)) is not None:
        return advice
    if version.total > OUTGROWN * manifest.trained and not manifest.plan.exact:
        return f"the gallery has grown {version.total / manifest.trained:.1f} times since it was trained: mmretrieve build {store.folder}"
    if manifest.plan == UNBUILT:
        return _advice_to_build(store, version)
    if manifest.recall < manifest.target:
        return f"it reached a recall of {manifest.recall:.3f}, not {manifest.target:g}: build another"
    return None


def _advice_to_compact(store: Store, version: StoreVersion) -> str | None:
    if len(version.dead) <= DEAD * version.total:
        return None
    return f"{len(version.dead) / version.total:.0%} of the rows are deleted: mmretrieve compact {store.folder}"


def _advice_to_build(store: Store, version: StoreVersion) -> str | None:
    large = version.total * store.dim > FLAT_NUMBERS
    return f"searches are slow without one: mmretrieve build {store.folder}" if large else None
