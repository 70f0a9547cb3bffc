# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a driver's repository says what to test: `blockyard.toml` or `[tool.blockyard]`.

Looked at are the current folder and, inside of a git repository, those above it up to its top.
ci/project.py reads the file. This is apart since pytest asks in each repository where our plugin is
installed: it imports nothing and never fails.
"""

from __future__ import annotations

import re
from pathlib import Path

OWN = "blockyard.toml"
SHARED = "pyproject.toml"
TABLE = "tool.blockyard"
_HEAD = re.compile(rb"\s*\[\s*tool\s*\.\s*blockyard\s*[].]")


def find(start: Path) -> Path | None:
    """The nearest file with such a table; blockyard.toml goes before pyproject.toml."""
    for folder in _folders(start):
        if (folder / OWN).is_file():
            return folder / OWN
        if _has_table(folder / SHARED):
            return folder / SHARED
    return None


def _folders(start: Path) -> list[Path]:
    above = [start, *start.parents]
    for count, folder in enumerate(above, 1):
        if (folder / ".git").exists():
            return above[:count]
    return [start]


def _has_table(path: Path) -> bool:
    """Whether a file may have our table. One that has none need not even be valid."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return False
    return any(_HEAD.match(line) for line in lines)
