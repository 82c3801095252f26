"""What the ledger keeps of the index: of which epoch and how many rows, from which plan, how hard it looks and what that found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmretrieve.gallery.index.faiss_index import FaissIndex
from mmretrieve.gallery.index.plan import FLAT, MAX_FLAT_NUMBERS, IndexPlan, SearchParams
from mmretrieve.gallery.store.records import StoreVersion
from mmretrieve.gallery.store.store import INDEX, Store
from mmretrieve.options import DEFAULT_RECALL

NEW = f"{INDEX}.new"  # written whole, but not stamped yet, or not renamed yet
MAX_DEAD_SHARE, MAX_GROWTH = 0.2, 2.0  # shares of dead rows, and of rows since training, from which something is advised
UNBUILT = IndexPlan(FLAT, "nothing was built yet, so every vector is scored as it is stored")


@dataclass(frozen=True)
class IndexManifest:
    """What the ledger keeps of the index. `trained` is how many rows there were when it was built, `recall` what was reached then."""

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

    @property
    def plan(self) -> IndexPlan:
        return IndexPlan(self.factory, self.reason)

    def to_dict(self) -> dict[str, Any]:
        """For the ledger, where the parameters of a search are called "effort"."""
        data = asdict(self)
        del data["params"]
        return data | {"effort": self.params.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IndexManifest:
        """From what `to_dict` returns."""
        return cls(
            **{name: value for name, value in data.items() if name != "effort"}, params=SearchParams.from_dict(data["effort"])
        )

    @classmethod
    def unwritten(cls, version: StoreVersion, index: FaissIndex) -> IndexManifest:
        """Of an index that was just built and not tuned."""
        plan, rows = index.plan, len(index)
        return cls(version.epoch, rows, "", plan.factory, plan.reason, index.params, rows)

    @classmethod
    def of(cls, store: Store, version: StoreVersion | None = None) -> IndexManifest | None:
        """The manifest there is; with a version, only one whose index can serve it."""
        data = store.ledger.meta().get("index")
        manifest = None if data is None else cls.from_dict(data)
        if manifest is None or version is None:
            return manifest
        return manifest if manifest.epoch == version.epoch and manifest.rows <= version.total else None


def describe_index(store: Store, version: StoreVersion) -> dict[str, Any]:
    """What `info` says of the index, and what is advised; None where all is well."""
    manifest = IndexManifest.of(store, version)
    if manifest is None:
        return {**asdict(UNBUILT), "advice": _advice_to_compact(store, version) or _advice_to_build(store, version)}
    known = {name: getattr(manifest, name) for name in ("factory", "reason", "rows", "recall")}
    return {
        **known,
        **manifest.params.given(),
        "uncovered": version.total - manifest.rows,
        "advice": _advice(store, version, manifest),
    }


def _advice(store: Store, version: StoreVersion, manifest: IndexManifest) -> str | None:
    if manifest.plan != UNBUILT and not any((store.folder / name).exists() for name in (INDEX, NEW)):
        return f"its file is missing: mmretrieve build {store.folder}"
    if (advice := _advice_to_compact(store, version)) is not None:
        return advice
    if version.total > MAX_GROWTH * manifest.trained and not manifest.plan.exact:
        return f"the gallery has grown {version.total / manifest.trained:.1f} times since it was trained: mmretrieve build {store.folder}"
    if manifest.plan == UNBUILT:
        return _advice_to_build(store, version)
    if manifest.recall < manifest.target:
        return f"it reached a recall of {manifest.recall:.3f}, not {manifest.target:g}: build another"
    return None


def _advice_to_compact(store: Store, version: StoreVersion) -> str | None:
    if len(version.dead) <= MAX_DEAD_SHARE * version.total:
        return None
    return f"{len(version.dead) / version.total:.0%} of the rows are deleted: mmretrieve compact {store.folder}"


def _advice_to_build(store: Store, version: StoreVersion) -> str | None:
    large = version.total * store.dim > MAX_FLAT_NUMBERS
    return f"searches are slow without one: mmretrieve build {store.folder}" if large else None
