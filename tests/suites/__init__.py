# SPDX-License-Identifier: GPL-2.0-or-later
"""The suites: each test runs on every driver and console that meets its requirements.

A test takes the fixtures of tests/harness/plugin.py (`driver`, `disk`, `data_disk`, `guest`) and
declares its other requirements with `needs`. It restores what it changes in the guest.
"""
