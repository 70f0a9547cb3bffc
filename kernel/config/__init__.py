# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration: merge fragments, check the ``.config``, explain symbols, compare kernels."""
