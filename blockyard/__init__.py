# SPDX-License-Identifier: GPL-2.0-or-later
"""Blockyard: build kernels with block drivers, boot them in QEMU, test the drivers."""

__version__ = "0.1.0"
