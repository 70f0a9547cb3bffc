# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration fragments as files: ours in `kernel/fragments`, and those of users."""

from __future__ import annotations

from pathlib import Path

from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT


def own_fragment(name: str) -> Fragment:
    """One of kernel/fragments: ``base`` is what every test kernel needs to boot and be tested."""
    return read_fragment(PROJECT / "kernel" / "fragments" / f"{name}.config")


def read_fragment(path: Path) -> Fragment:
    """A configuration fragment from a file, named as a user would find it."""
    if path.is_relative_to(PROJECT):
        name = str(path.relative_to(PROJECT))
    else:  # not to be taken for one of ours, in a folder of the same name
        name = str(path) if path.is_absolute() else f"./{path}"
    what = "the configuration fragment"
    data = untrusted.read_input(path, what, untrusted.CONFIG_BYTES)
    try:
        # with the mark that editors of Windows put at the beginning
        return Fragment(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {what} {path}: it is not UTF-8 text") from None
