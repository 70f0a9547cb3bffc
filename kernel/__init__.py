# SPDX-License-Identifier: GPL-2.0-or-later
"""From a name such as ``7.3`` to a bootable kernel.

The way of the data: `catalog` (what a name means) → `sources` (a read-only tree) → `config`
(fragments, proved) → `build` (a `Kernel`: bzImage, modules, symbols). `prebuilt` makes the same
`Kernel` from a distribution's package. `host` holds what all of Blockyard stands on.
"""
