# SPDX-License-Identifier: GPL-2.0-or-later
"""Variants of a kernel: the fragments `kernel/fragments/variants/<name>.config`."""

from __future__ import annotations

from blockyard.kernel.config import kconfig
from blockyard.kernel.config.fragments import shipped_fragment
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host.settings import PROJECT

FOLDER = PROJECT / "kernel" / "fragments" / "variants"
PLAIN = "plain"


def names() -> tuple[str, ...]:
    """The names of all variants; `plain` comes first and adds nothing."""
    return (PLAIN, *sorted(path.stem for path in FOLDER.glob("*.config")))


def fragments(variant: str, *, rust: bool) -> list[Fragment]:
    """The fragments of a variant; with Rust, also those for kernels that have it."""
    if variant == PLAIN:
        return []
    parts = [shipped_fragment(f"variants/{variant}")]
    if rust and (FOLDER / "rust" / f"{variant}.config").is_file():
        parts.append(shipped_fragment(f"variants/rust/{variant}"))
    return parts


def with_symbol(symbol: str) -> list[str]:
    """The names of the variants that switch a symbol on."""
    return [
        name
        for name in names()
        if (request := kconfig.merge(fragments(name, rust=True)).requests.get(symbol))
        and request.value != "n"
    ]
