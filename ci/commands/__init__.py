# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that neither run tests nor compare runs: doctor, shell, kernels, cache, explain."""
