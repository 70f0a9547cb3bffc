# SPDX-License-Identifier: GPL-2.0-or-later
"""Blockyard's commands as an invoke collection; their code is in ci/cli."""

from blockyard.ci.cli.namespace import namespace

__all__ = ["namespace"]
