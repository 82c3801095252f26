"""`python -m docs.licenses` writes docs/reference/licenses.md: the licenses of the packages in .ci/requirements.txt, as they name them."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, PAGE = ROOT / ".ci" / "requirements.txt", ROOT / "docs" / "reference" / "licenses.md"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
CLASSIFIER = "License :: OSI Approved :: "
HEAD = """# Licenses of dependencies

mmretrieve is under Apache-2.0. It contains no code of other packages; these are the packages that CI installs, with everything that
only tests and documentation need, and the license that each names in its metadata. `make licenses` writes this page.

| package | version | license |
|---|---|---|
"""


def locked() -> dict[str, str]:
    """Name → version of every package of the lock."""
    return dict(PINNED.findall(LOCK.read_text(encoding="utf-8")))


def license_of(name: str) -> str:
    """The license that an installed package names, in a few words; "not installed" for another platform's.

    >>> license_of("numpy") != "unknown"
    True
    """
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return "not installed"
    classifiers = [line.removeprefix(CLASSIFIER) for line in about.get_all("Classifier") or () if line.startswith(CLASSIFIER)]
    expression, text = (str((about.get_all(key) or [""])[0]) for key in ("License-Expression", "License"))
    return (expression or ", ".join(classifiers) or text.strip().split("\n")[0])[:80] or "unknown"


def page() -> str:
    """The text of the page."""
    return HEAD + "".join(f"| {name} | {version} | {license_of(name)} |\n" for name, version in locked().items())


def main() -> int:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
