# SPDX-License-Identifier: GPL-2.0-or-later
"""Values in the form of QEMU's QAPI: for its command line and its machine protocol (QMP)."""

from __future__ import annotations

Options = dict[str, object]  # of an object, a block device or a device: QEMU's names, JSON values
Command = tuple[str, Options]  # of QMP: its name, its arguments
