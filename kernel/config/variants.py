# SPDX-License-Identifier: GPL-2.0-or-later
"""Variants of a kernel: what `kernel/fragments/variants/<name>.config` adds to the plain one."""

from __future__ import annotations

from blockyard.kernel.config import kconfig
from blockyard.kernel.config.fragments import own_fragment
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host.settings import PROJECT

FOLDER = PROJECT / "kernel" / "fragments" / "variants"
PLAIN = "plain"


def names() -> tuple[str, ...]:
    """The variants there are; `plain` adds nothing."""
    return (PLAIN, *sorted(path.stem for path in FOLDER.glob("*.config")))


def fragments(variant: str, *, rust: bool) -> list[Fragment]:
    """What a variant asks for, and what it asks of a kernel with Rust besides."""
    if variant == PLAIN:
        return []
    parts = [own_fragment(f"variants/{variant}")]
    if rust and (FOLDER / "rust" / f"{variant}.config").is_file():
        parts.append(own_fragment(f"variants/rust/{variant}"))
    return parts


def asking_for(symbol: str) -> list[str]:
    """The variants that switch a symbol on."""
    return [
        name
        for name in names()
        if (request := kconfig.merge(fragments(name, rust=True)).requests.get(symbol))
        and request.value != "n"
    ]
