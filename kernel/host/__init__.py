# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine Blockyard runs on: settings, processes, sandbox, cache, progress, errors."""
