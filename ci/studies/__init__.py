# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions that take several runs: parity, survey, mutants, upstream blktests."""
