# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that was made: read from its record, or from its journal when it was killed."""

from __future__ import annotations

from pathlib import Path

from blockyard.ci.run import journal as run_journal
from blockyard.ci.run import record
from blockyard.ci.run.record import Run


def read(path: Path) -> Run:
    """A run from its folder or its run.json; of an interrupted one, from its journal.

    Raises UsageError for a file of another schema or shape.
    """
    file = path / "run.json" if path.is_dir() else path
    journal = file.with_name(run_journal.FILE)
    if not file.exists() and journal.exists():
        return run_journal.read(journal).record()
    return record.read(file)
