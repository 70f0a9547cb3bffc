# SPDX-License-Identifier: GPL-2.0-or-later
"""From a name such as ``7.3`` to a bootable kernel.

`catalog` resolves the name, `spec` describes the requested kernel, `artifact` a built one.
`sources` gives a read-only tree, `config` a checked ``.config``, `build` a bzImage with modules.
`host` is the machine that Blockyard runs on.
"""
