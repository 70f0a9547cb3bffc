# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in a guest, over a serial port or ssh."""

CONSOLES = ("serial", "ssh")  # names of the consoles that a test can use
