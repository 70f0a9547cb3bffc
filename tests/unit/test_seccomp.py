# SPDX-License-Identifier: GPL-2.0-or-later
"""The seccomp filter, run by a small BPF interpreter."""

from __future__ import annotations

import errno
import struct

import pytest

from blockyard.kernel.host import seccomp

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
OPENAT, CHMOD, EXIT = 257, 90, 60


def verdict(program: bytes, call: int, *arguments: int, arch: int = seccomp.X86_64) -> int:
    """Return 0 if the call is allowed, else its errno."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", call, arch, 0, *(value & (1 << 64) - 1 for value in values))
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    loaded, at = 0, 0
    while True:
        code, then, other, value = steps[at]
        at += 1
        if code == 0x20:
            loaded = struct.unpack_from("=I", data, value)[0]
        elif code == 0x06:
            return 0 if value == ALLOW else value & ~ERRNO
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}
            at += then if holds[code] else other


PLAIN = seccomp.filter_program()
NESTED = seccomp.filter_program(nested=True)
URING = seccomp.filter_program(io_uring=True)


@pytest.mark.parametrize("program", [PLAIN, NESTED, URING])
def test_program_is_short_and_jumps_forwards_only(program: bytes) -> None:
    steps = len(program) // 8
    assert steps < 4096  # BPF_MAXINSNS
    for at in range(steps):
        code, then, other, _ = struct.unpack_from("=HBBI", program, 8 * at)
        assert at + 1 + max(then, other) < steps or code == 0x06


@pytest.mark.parametrize(
    ("call", "arguments", "error"),
    [
        (EXIT, (), 0),
        (165, (), errno.EPERM),  # mount
        (435, (), errno.ENOSYS),  # clone3
        (425, (), errno.ENOSYS),  # io_uring_setup
        (seccomp.X32 | 39, (), errno.ENOSYS),
        (56, (0x1200011,), 0),  # clone by fork()
        (56, (0x003D0F00,), 0),  # clone of a thread
        (56, (0x10000011,), errno.EPERM),  # in a user namespace
        (272, (0x400,), 0),  # unshare: CLONE_FILES
        (272, (0x20000,), errno.EPERM),  # CLONE_NEWNS
        (16, (0, 0x5401), 0),  # ioctl: TCGETS
        (16, (0, 0x5412), errno.EPERM),  # TIOCSTI
        (16, (0, 0xDEAD00005412), errno.EPERM),  # the kernel uses only the low half
        (41, (1,), 0),
        (41, (10,), 0),
        (41, (40,), errno.EAFNOSUPPORT),  # vsock
        (CHMOD, (0, 0o755), 0),
        (CHMOD, (0, 0o4755), errno.EPERM),
        (OPENAT, (0, 0, 0o101, 0o644), 0),
        (OPENAT, (0, 0, 0o101, 0o6755), errno.EPERM),
        (OPENAT, (0, 0, 0, 0o6755), 0),  # without O_CREAT the mode is ignored
    ],
)
def test_verdict_of_each_call(call: int, arguments: tuple[int, ...], error: int) -> None:
    assert verdict(PLAIN, call, *arguments) == error


def test_calls_of_other_architectures_are_refused() -> None:
    assert verdict(PLAIN, EXIT, arch=0x40000003) == errno.ENOSYS


def test_options_allow_namespaces_and_io_uring() -> None:
    assert [verdict(NESTED, 165), verdict(NESTED, 272, 0x10000000), verdict(NESTED, 321)] == [
        0,
        0,
        errno.EPERM,
    ]
    assert [verdict(URING, 425), verdict(URING, 165)] == [0, errno.EPERM]
