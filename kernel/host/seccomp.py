# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that a program in the sandbox may not make, as a filter for bwrap's --seccomp.

The sandbox has no capabilities and few files, so most of these calls would fail anyway. The filter
also blocks the kernel code behind them, where security bugs were found again and again, and what no
namespace separates (keys, the terminal's input). A denied call fails with EPERM. Calls that
programs try first and can replace (clone3, io_uring, openat2) fail with ENOSYS.

The program is classic BPF for x86-64, see seccomp(2) and linux/filter.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64; other calling conventions number the calls differently
X32 = 0x40000000  # set in the numbers of the x32 convention

# From arch/x86/entry/syscalls/syscall_64.tbl.
DENIED = {
    "ptrace": 101, "syslog": 103, "ustat": 136, "_sysctl": 156, "acct": 163, "settimeofday": 164,
    "swapon": 167, "swapoff": 168, "reboot": 169,
    "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "perf_event_open": 298, "fanotify_init": 300, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "clock_adjtime": 305, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321,
    "userfaultfd": 323, "pidfd_getfd": 438, "process_madvise": 440, "quotactl_fd": 443,
}  # fmt: skip
# Calls that bwrap itself needs: allowed if sandboxes are made inside.
NAMESPACES = {
    "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "sethostname": 170,
    "setdomainname": 171, "setns": 308,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "mount_setattr": 442,
}  # fmt: skip
IO_URING = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427}
ABSENT = {"clone3": 435, "openat2": 437}  # their flags are in memory, which no filter can read
# Call → the argument that holds a file's mode.
MODES = {
    "chmod": (90, 1), "fchmod": (91, 1), "fchmodat": (268, 2), "fchmodat2": (452, 2),
    "creat": (85, 1), "mknod": (133, 1), "mknodat": (259, 2), "mkdir": (83, 1), "mkdirat": (258, 2),
}  # fmt: skip
OPENS = {"open": (2, 1, 2), "openat": (257, 2, 3)}  # call → number, argument of flags, of mode
CREATE = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE: without them the kernel ignores the mode
SETID = 0o6000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
NEW_NAMESPACES = 0x7E020000
NEW_TIME = 0x80  # CLONE_NEWTIME: only for unshare; clone has the exit signal in these bits
CLONE, UNSHARE, IOCTL, SOCKET, SOCKETPAIR = 56, 272, 16, 41, 53
TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: insert input into the user's terminal
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK

_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


@dataclass(frozen=True)
class _Step:
    """A BPF instruction; `then` and `other` are jump offsets: instructions to skip."""

    code: int
    value: int
    then: int = 0
    other: int = 0

    def packed(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.then, self.other, self.value)


@cache
def filter_program(*, nested: bool = False, io_uring: bool = False) -> bytes:
    """The filter program for bwrap. nested: allow sandboxes inside. io_uring: for QEMU's disks."""
    return b"".join(step.packed() for step in _program(nested, io_uring))


def _program(nested: bool, io_uring: bool) -> Iterator[_Step]:
    absent, refused = errno.ENOSYS, errno.EPERM
    yield _Step(_LOAD, 4)
    yield _Step(_JEQ, X86_64, 1)
    yield _fail(absent)
    yield _Step(_LOAD, 0)
    yield _Step(_JGE, X32, 0, 1)
    yield _fail(absent)
    yield from _all(DENIED if nested else DENIED | NAMESPACES, refused)
    yield from _all(ABSENT if io_uring else ABSENT | IO_URING, absent)
    for number, argument in MODES.values():
        yield from _when(number, _any_bit(argument, SETID), refused)
    for number, flags, mode in OPENS.values():
        yield from _when(number, [*_any_bit(flags, CREATE), *_any_bit(mode, SETID)], refused)
    if not nested:
        yield from _when(CLONE, _any_bit(0, NEW_NAMESPACES), refused)
        yield from _when(UNSHARE, _any_bit(0, NEW_NAMESPACES | NEW_TIME), refused)
    for command in TERMINAL:
        yield from _when(IOCTL, [(_argument(1), _Step(_JEQ, command))], refused)
    for number in (SOCKET, SOCKETPAIR):
        yield from _other_families(number)
    yield _Step(_RETURN, _ALLOW)


def _fail(number: int) -> _Step:
    return _Step(_RETURN, _ERRNO | number)


def _argument(index: int) -> _Step:
    """Loads the low half of an argument: all values that are tested here have 32 bits."""
    return _Step(_LOAD, 16 + 8 * index)


def _all(calls: Mapping[str, int], number: int) -> Iterator[_Step]:
    for call in calls.values():
        yield _Step(_JEQ, call, 0, 1)
        yield _fail(number)


def _any_bit(argument: int, bits: int) -> list[tuple[_Step, _Step]]:
    return [(_argument(argument), _Step(_JSET, bits))]


def _when(call: int, tests: list[tuple[_Step, _Step]], number: int) -> Iterator[_Step]:
    """Denies a call if all tests hold; afterwards the call's number is loaded again."""
    length = 2 * len(tests) + 2  # instructions after the first jump
    yield _Step(_JEQ, call, 0, length)
    for at, (load, test) in enumerate(tests):
        yield load
        yield _Step(test.code, test.value, 0, length - 2 * at - 3)
    yield _fail(number)
    yield _Step(_LOAD, 0)


def _other_families(call: int) -> Iterator[_Step]:
    """Denies sockets of all families except `FAMILIES`."""
    yield _Step(_JEQ, call, 0, len(FAMILIES) + 3)
    yield _argument(0)
    for at, family in enumerate(FAMILIES):
        yield _Step(_JEQ, family, len(FAMILIES) - at)
    yield _fail(errno.EAFNOSUPPORT)
    yield _Step(_LOAD, 0)
