# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a run from its record, or from its journal if the run was killed."""

from __future__ import annotations

from pathlib import Path

from blockyard.ci.run import journal as run_journal
from blockyard.ci.run import record
from blockyard.ci.run.record import Run


def read(path: Path) -> Run:
    """The run in a folder or a run.json; without a record, the run in the journal beside it.

    Raises UsageError for a file of an unknown schema or with invalid content.
    """
    file = path / "run.json" if path.is_dir() else path
    journal = file.with_name(run_journal.FILE)
    if not file.exists() and journal.exists():
        return run_journal.read(journal).record()
    return record.read(file)
