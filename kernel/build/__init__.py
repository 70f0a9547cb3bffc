# SPDX-License-Identifier: GPL-2.0-or-later
"""From a tree and a ``.config`` to a kernel: toolchains, make, prebuilt packages."""
