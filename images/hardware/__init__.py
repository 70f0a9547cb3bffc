# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's hardware: topologies, the rules they must follow, and QEMU's devices for them."""
