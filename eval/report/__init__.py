"""One page from many records: which method and setting to use, why, and how sure that is. `build_report(folder)` is its HTML."""

from __future__ import annotations

from eval.report.page import build_report
from eval.report.pictures import Pictures

__all__ = ["Pictures", "build_report"]
