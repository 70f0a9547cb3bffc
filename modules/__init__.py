# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers under test: a manifest each (`*.toml`), with its Kconfig fragment (`*.config`).

`manifest` reads what is known of a driver before a guest runs; `driver` and `disk` are the driver
and its disks in a running guest.
"""
