# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds a kernel from a tree and fragments with a toolchain, or unpacks a prebuilt one."""
