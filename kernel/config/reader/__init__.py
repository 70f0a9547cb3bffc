# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a tree's Kconfig with kconfiglib; runs inside the sandbox."""
