"""Adds the pages and figures outside docs/ to the site, and points the links of all pages at their places in it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELIABILITY.md")
FIGURES = ("results/*.json", "results/*.png")
LINK = re.compile(r"(\]\()([^)#:\s]+)([^)\s]*\))")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds PAGES at the root of the site and FIGURES below it, at their paths in the repository."""
    outside = [*PAGES, *(path.relative_to(ROOT).as_posix() for pattern in FIGURES for path in sorted(ROOT.glob(pattern)))]
    for path in outside:
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Rewrites relative links, which are those of the repository, as links of the site."""
    uri = page.file.src_uri
    folder = posixpath.dirname(uri if uri in PAGES else f"docs/{uri}")

    def in_site(path: str) -> str:
        target = posixpath.normpath(posixpath.join(folder, path)).removeprefix("docs/")
        return posixpath.relpath("index.md" if target == "README.md" else target, posixpath.dirname(uri) or ".")

    return LINK.sub(lambda match: f"{match[1]}{in_site(match[2])}{match[3]}", markdown)
