# SPDX-License-Identifier: GPL-2.0-or-later
"""Blockyard's commands for invoke; `./inv --list` names them, ci/cli has their code."""

from blockyard.ci.cli.namespace import namespace

__all__ = ["namespace"]
