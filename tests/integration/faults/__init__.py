# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of guests, a module for each subject; `test_reliability.py` causes them all."""

from __future__ import annotations

from importlib import import_module

from blockyard.tests.integration.faults.fault import FAULTS, Fault

SUBJECTS = ("kernel", "qemu", "commands", "devices", "command_line")


def all_faults() -> list[Fault]:
    """All faults, in the order of the table in docs/reliability.md."""
    for subject in SUBJECTS:  # importing a module registers its faults
        import_module(f"{__name__}.{subject}")
    return FAULTS
