# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin that runs tests in guests."""
