# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands print in one way."""

from __future__ import annotations

import msgspec


def as_json(value: object) -> str:
    """JSON for scripts and for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
