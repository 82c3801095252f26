"""One HTML page from many records: which method and setting to use, why, and how certain that is."""

from __future__ import annotations

from eval.report.cases import ImageLoader
from eval.report.page import build_report

__all__ = ["ImageLoader", "build_report"]
