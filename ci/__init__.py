# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with guests and outcomes: commands, runs, records, reports, studies."""
