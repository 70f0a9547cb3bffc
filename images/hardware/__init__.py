# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's hardware: topologies, their rules, QEMU's devices."""
