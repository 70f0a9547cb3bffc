# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers under test: `drivers/` has a manifest (`*.toml`) and a Kconfig fragment for each.

`manifest` reads the manifests, `external` builds modules outside the kernel tree, `plan` builds a
kernel with its drivers. `driver` and `disk` are a driver and its disks in a running guest.
"""
