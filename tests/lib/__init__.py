# SPDX-License-Identifier: GPL-2.0-or-later
"""What the suites share: fio, nvme-cli, zones, null_blk, the drivers' ABI."""
