# SPDX-License-Identifier: GPL-2.0-or-later
"""The rest of the command line."""
