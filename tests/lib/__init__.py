# SPDX-License-Identifier: GPL-2.0-or-later
"""Helpers of the suites: fio, nvme-cli, zones, null_blk, the drivers' ABI."""
