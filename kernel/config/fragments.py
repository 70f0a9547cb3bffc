# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads configuration fragments: Blockyard's in `kernel/fragments`, and those of users."""

from __future__ import annotations

from pathlib import Path

from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT


def shipped_fragment(name: str) -> Fragment:
    """Return a fragment of kernel/fragments, such as ``base``, which every test kernel needs."""
    return read_fragment(PROJECT / "kernel" / "fragments" / f"{name}.config")


def read_fragment(path: Path) -> Fragment:
    """Return the fragment in a file, with the path as its name.

    Raises UsageError for a file that cannot be read or is not UTF-8.
    """
    if path.is_relative_to(PROJECT):
        name = str(path.relative_to(PROJECT))
    else:  # a relative path must not look like the name of a shipped fragment
        name = str(path) if path.is_absolute() else f"./{path}"
    what = "the configuration fragment"
    data = untrusted.read_input(path, what, untrusted.CONFIG_BYTES)
    try:
        # editors on Windows write a byte order mark
        return Fragment(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {what} {path}: it is not UTF-8 text") from None
