"""Image sources: folders, tar archives, tables of paths and Parquet files, each read in a fixed order.

`read_source` detects the kind of source from its path and returns a `Source`.
"""

from __future__ import annotations

from mmretrieve.sources.base import Columns, Source
from mmretrieve.sources.detect import read_source

__all__ = ["Columns", "Source", "read_source"]
