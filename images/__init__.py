# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that a kernel is booted in, and the ways to talk to it.

`files` makes what it boots from; `topology`, `devices` and `qemu` say what hardware there is,
`accelerator` what runs it; `boot` starts one and ends it; `console` runs commands in it over
`serial` or `ssh`; `kernel_log` and `splats` read what the kernel says meanwhile. `guest/` is the
program in it.
"""
