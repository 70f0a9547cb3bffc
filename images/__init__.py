# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual machine that a kernel is booted in, and the ways to talk to it.

`boot` starts a guest from `files` (kernel, initramfs, guest root). `hardware` describes its
devices, `machine` runs and watches QEMU, `console` runs commands in the guest, `log` reads its
kernel log. `guest/` holds the sources of the guest program: PID 1 and the consoles' other end.
"""
