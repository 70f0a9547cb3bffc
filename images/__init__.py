# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that a kernel is booted in, and the ways to talk to it.

`boot` starts a guest from `files` (kernel, initramfs, guest root). `hardware` says what devices it
has, `machine` runs and watches QEMU, `console` runs commands in it, `log` reads the kernel log.
`guest/` is the program in it.
"""
