# SPDX-License-Identifier: GPL-2.0-or-later
"""Run records and tables, for people and for other programs."""
