# SPDX-License-Identifier: GPL-2.0-or-later
"""The suites: each test runs on every driver and console that has what it needs.

A test takes the fixtures of tests/harness/plugin.py (`driver`, `disk`, `data_disk`, `guest`) and
declares the rest with `needs`. It leaves the guest as it found it.
"""
