# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's kernel log: reading, splats, symbols."""
