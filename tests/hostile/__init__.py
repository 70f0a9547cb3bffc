# SPDX-License-Identifier: GPL-2.0-or-later
"""Attacks on the build sandbox and on Blockyard itself; none may succeed."""
