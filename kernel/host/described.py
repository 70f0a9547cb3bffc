# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptions of the fields of the run record, for its page and its JSON Schema."""

from __future__ import annotations

import msgspec


def about(text: str) -> msgspec.Meta:
    """The description of a field, with its unit, as the second argument of Annotated."""
    return msgspec.Meta(description=text)
