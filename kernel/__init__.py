# SPDX-License-Identifier: GPL-2.0-or-later
"""From a name such as ``7.3`` to a bootable kernel.

`catalog` says what a name means, `spec` which kernel is requested, `artifact` what a built kernel
consists of. `sources` gives a read-only tree, `config` a checked ``.config``, `build` a bzImage
with modules. `host` is the machine Blockyard runs on.
"""
