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
    def unwritten(cls, moment: StoreVersion, index: FaissIndex) -> IndexManifest:
        """Of an index that was just built and not tuned."""
        plan, rows = index.plan, len(index)
        return cls(moment.epoch, rows, "", plan.factory, plan.reason, asdict(index.effort), rows)

    @classmethod
    def of(cls, store: Store, moment: StoreVersion | None = None) -> IndexManifest | None:
        """The stamp there is; with a moment, only one whose index can serve it."""
        said = store.ledger.meta().get("index")
        stamp = None if said is None else cls(**said)
        if stamp is None or moment is None:
            return stamp
        return stamp if stamp.epoch == moment.epoch and stamp.rows <= moment.total else None


def state(store: Store, moment: StoreVersion) -> dict[str, Any]:
    """What `info` says of the index, and what is advised; None where all is well."""
    stamp = IndexManifest.of(store, moment)
    if stamp is None:
        return {**asdict(UNBUILT), "advice": _advice_to_build(store, moment)}
    said = {name: getattr(stamp, name) for name in ("factory", "reason", "rows", "recall")}
    effort = {name: value for name, value in stamp.effort.items() if value is not None}
    return {**said, **effort, "uncovered": moment.total - stamp.rows, "advice": _advice(store, moment, stamp)}


def _advice(store: Store, moment: StoreVersion, stamp: IndexManifest) -> str | None:
    if stamp.plan != UNBUILT and not any((store.folder / name).exists() for name in (INDEX, NEW)):
        return f"its file is missing: mmretrieve build {store.folder}"
    if len(moment.dead) > DEAD * moment.total:
        return f"{len(moment.dead) / moment.total:.0%} of the rows are deleted: mmretrieve compact {store.folder}"
    if moment.total > OUTGROWN * stamp.trained and not stamp.plan.exact:
        return f"the gallery has grown {moment.total / stamp.trained:.1f} times since it was trained: mmretrieve build {store.folder}"
    if stamp.plan == UNBUILT:
        return _advice_to_build(store, moment)
    if stamp.recall < stamp.target:
        return f"it reached a recall of {stamp.recall:.3f}, not {stamp.target:g}: build another"
    return None


def _advice_to_build(store: Store, moment: StoreVersion) -> str | None:
    large = moment.total * store.dim > FLAT_NUMBERS
    return f"searches are slow without one: mmretrieve build {store.folder}" if large else None
