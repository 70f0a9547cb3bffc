# SPDX-License-Identifier: GPL-2.0-or-later
"""From a name such as ``7.3`` to a bootable kernel.

The way of the data: `catalog` (what a name means) → `sources` (a read-only tree) → `job` (a tree,
fragments and tools) → `configure` (a ``.config``, proved by `kconfig`) → `build` → `artifact` (a
`Kernel`: bzImage, modules, symbols). `prebuilt` makes the same `Kernel` from a distribution's
packages. `kconfig_reader` and `explain` say why a symbol was lost. `host` holds what all of
Blockyard stands on.
"""
