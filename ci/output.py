# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands print in one way."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kernel.host import store
from kernel.host.progress import note


def as_json(value: object) -> str:
    """JSON for scripts and for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def write_page(path: Path, text: str) -> None:
    """Writes a page of docs/ that a command makes, and says so."""
    store.write(path, text.encode())
    note(f"written to {path}")
