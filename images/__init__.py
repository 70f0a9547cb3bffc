# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that a kernel is booted in, and the ways to talk to it.

`guest_root`, `guest_program`, `initramfs` and `module_image` make the files; `topology` and `qemu`
say what hardware there is; `machine` starts and ends it; `console` runs commands in it over
`serial` or `ssh`; `kernel_log` and `splats` read what the kernel says meanwhile.
"""
