# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the project file of a driver's repository: `blockyard.toml` or `[tool.blockyard]`.

The search covers the current folder and, in a git repository, the folders above it up to its top.
ci/project.py reads the file. The search is separate because our pytest plugin runs it in every
project: it imports little and raises no errors.
"""

from __future__ import annotations

import re
from pathlib import Path

OWN = "blockyard.toml"
SHARED = "pyproject.toml"
TABLE = "tool.blockyard"
_HEAD = re.compile(rb"\s*\[\s*tool\s*\.\s*blockyard\s*[].]")


def find(start: Path) -> Path | None:
    """The nearest file with our table, blockyard.toml before pyproject.toml; None without one."""
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
    """Whether a file seems to have our table. It need not be valid TOML."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return False
    return any(_HEAD.match(line) for line in lines)
