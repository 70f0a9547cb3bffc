# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest: QEMU's command line, its start, monitor and snapshots, and the diagnosis."""
