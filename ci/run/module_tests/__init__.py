# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's own test files, run in a sandbox."""
