# SPDX-License-Identifier: GPL-2.0-or-later
"""Rendering of run records and tables: terminal, Markdown, JSON Schema."""
