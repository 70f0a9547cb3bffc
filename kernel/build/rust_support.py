# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembers why a configuration dropped Rust although the tools' versions are new enough.

A tree's check of the tools also fails for other reasons: rust-src or libclang is missing, or an
option excludes Rust. The reason is kept for a day: the next run plans the kernel without Rust at
once, and a repaired toolchain is still noticed.
"""

from __future__ import annotations

import time
from pathlib import Path

from blockyard.kernel.build.configure import SHIPPED, SymbolsDropped
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.host import store

HOLDS_S = 86_400


def known(job: BuildSpec) -> str:
    """Why this build, planned with Rust, cannot have it; empty if no reason is recorded."""
    file = _file(job)
    try:
        return file.read_text() if time.time() - file.stat().st_mtime < HOLDS_S else ""
    except FileNotFoundError:
        return ""


def record(job: BuildSpec, lost: SymbolsDropped) -> bool:
    """Record why a build lost Rust; False if it did not, or if a user's fragment sets it."""
    request = job.merged.requests.get("RUST")
    if "RUST" not in lost.reasons or not request or not request.fragment.startswith(SHIPPED):
        return False
    reason = f"the configuration drops CONFIG_RUST: {lost.reasons['RUST']}"
    store.write(_file(job), reason.encode())
    return True


def _file(job: BuildSpec) -> Path:
    return store.path_of("rustless") / job.key
