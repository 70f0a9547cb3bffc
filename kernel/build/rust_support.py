# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds whose configuration lost Rust although versions speak for it, and why.

A tree's own check of the tools says no for more than versions: no rust-src, no libclang, an option
that excludes Rust. Found at configuring, it is kept for a day, so that the next run plans
the kernel without Rust at once and a repaired toolchain is still noticed.
"""

from __future__ import annotations

import time
from pathlib import Path

from blockyard.kernel.build.configure import OWN, SymbolsDropped
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.host import store

HOLDS_S = 86_400


def known(job: BuildSpec) -> str:
    """Why this build, planned with Rust, has to do without; empty when nothing is known."""
    file = _file(job)
    try:
        return file.read_text() if time.time() - file.stat().st_mtime < HOLDS_S else ""
    except FileNotFoundError:
        return ""


def record(job: BuildSpec, lost: SymbolsDropped) -> bool:
    """Records that a build lost Rust; false when it did not, or a user's fragment asks for it."""
    asked = job.merged.requests.get("RUST")
    if "RUST" not in lost.reasons or not asked or not asked.fragment.startswith(OWN):
        return False
    reason = f"the configuration loses CONFIG_RUST: {lost.reasons['RUST']}"
    store.write(_file(job), reason.encode())
    return True


def _file(job: BuildSpec) -> Path:
    return store.place("rustless") / job.key
