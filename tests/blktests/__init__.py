# SPDX-License-Identifier: GPL-2.0-or-later
"""Upstream blktests, run in guests by its own `check` and reported like our suites."""
