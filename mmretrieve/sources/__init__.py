"""Where pictures come from: whatever people keep them in becomes a `Source`, in a fixed order."""

from __future__ import annotations

from mmretrieve.sources.base import Columns, Source
from mmretrieve.sources.files import read_source

__all__ = ["Columns", "Source", "read_source"]
