# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways out of the build sandbox, tried from inside by a makefile. Standard library only.

usage: attacks.py REPORT TARGETS

TARGETS is a JSON file of what to reach on the host: a file, a process, a TCP port, sockets. REPORT
gets a line of JSON for each attack: its name, what it tried, whether it succeeded, its outcome. A
successful attack does no harm: it writes values back unchanged and sends signal 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import resource
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
Attack = Callable[[dict[str, Any]], object]
attacks: dict[str, tuple[str, Attack]] = {}

MS_RDONLY, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 32, 4096, 2
NEW_USER, NEW_NS = 0x10000000, 0x00020000
TIOCSTI = 0x5412
LAST = ("mount_new", "unmount", "pivot_root")  # after their success others cannot be tried
PTRACE_SEIZE = 0x4206  # unlike PTRACE_ATTACH it does not stop the process


def attack(description: str) -> Callable[[Attack], Attack]:
    def add(function: Attack) -> Attack:
        attacks[function.__name__] = (description, function)
        return function

    return add


def call(function: str, *arguments: object) -> int:
    """Call a function of libc; raises OSError if it returns an error."""
    result: int = getattr(libc, function)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def system_call(number: int, *arguments: object) -> int:
    return call("syscall", ctypes.c_long(number), *arguments)


def proc_files(pattern: str) -> list[str]:
    """Paths below /proc that match a pattern."""
    return [str(path) for path in Path("/proc").glob(pattern)]


def write_back(path: str) -> None:
    """Write the current value of a file of /proc to it."""
    value = Path(path).read_bytes()
    with open(path, "wb", buffering=0) as file:
        file.write(value)


@attack("write the host's /proc/sys/kernel/core_pattern")
def sysctl(_: dict[str, Any]) -> None:
    write_back("/proc/sys/kernel/core_pattern")


@attack("write any sysctl of the host")
def any_sysctl(_: dict[str, Any]) -> str:
    writable = [path for path in proc_files("sys/*/*") if _opens(path)]
    if not writable:
        raise PermissionError("none can be opened for writing")
    return writable[0]


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True


@attack("write /proc/sysrq-trigger, /proc/irq, /proc/bus/pci, /proc/mtrr")
def steering(_: dict[str, Any]) -> str:
    names = ["/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/mtrr"]
    names += proc_files("bus/pci/*/*") + proc_files("irq/*/smp_affinity")
    writable = [name for name in names if Path(name).exists() and _opens(name)]
    if not writable:
        raise PermissionError("none can be opened for writing")
    return writable[0]


@attack("read /proc/kcore, /proc/kmsg, /dev/mem, /dev/kmsg")
def kernel_memory(_: dict[str, Any]) -> str:
    for name in ("/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg"):
        with contextlib.suppress(OSError):
            os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
            return name
    raise PermissionError("none can be opened")


def _read_only_mount() -> str:
    return next(
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4].startswith("/mnt/")  # read-only mounts are bound first
    )


@attack("remount the root writable")
def remount_root(_: dict[str, Any]) -> None:
    call("mount", None, b"/", None, ctypes.c_ulong(MS_REMOUNT | MS_BIND), None)


@attack("remount a read-only folder below /mnt writable")
def remount_bound(_: dict[str, Any]) -> None:
    flags = ctypes.c_ulong(MS_REMOUNT | MS_BIND)
    call("mount", None, _read_only_mount().encode(), None, flags, None)


@attack("remount that folder writable by mount_setattr(2)")
def mount_setattr(_: dict[str, Any]) -> None:
    clear_read_only = struct.pack("=QQQQ", 0, 1, 0, 0)
    system_call(442, -100, _read_only_mount().encode(), 0, clear_read_only, 32)


@attack("unmount the mount that covers the host's files")
def unmount(_: dict[str, Any]) -> None:
    call("umount2", _read_only_mount().encode(), MNT_DETACH)


@attack("mount a file system")
def mount_new(_: dict[str, Any]) -> None:
    call("mount", b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(0), None)


@attack("open a file system by fsopen(2)")
def new_mount_calls(_: dict[str, Any]) -> None:
    os.close(system_call(430, b"tmpfs", 0))


@attack("swap the root by pivot_root(2)")
def pivot_root(_: dict[str, Any]) -> None:
    system_call(155, b"/tmp", b"/tmp")


@attack("leave by chroot(2) and fchdir(2)")
def change_root(_: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        top = os.open("/", os.O_RDONLY)
        os.chroot(folder)
        os.fchdir(top)
        return str(list(Path("..").iterdir()))


@attack("make a device node")
def make_device(_: dict[str, Any]) -> None:
    os.mknod("/tmp/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))


@attack("read a file of the host by its path, through /proc/*/root and /proc/*/cwd")
def host_file(target: dict[str, Any]) -> str:
    secret = target["file"]
    roots = ["", *proc_files("[0-9]*/root"), *proc_files("[0-9]*/cwd/../../../..")]
    for root in roots:
        with contextlib.suppress(OSError):
            return f"{root}: {Path(root + secret).read_text()}"
    raise PermissionError("the file is not visible")


@attack("climb out through an inherited file descriptor")
def descriptors(target: dict[str, Any]) -> str:
    for name in (path.name for path in Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            inside = os.open("../" * 40 + target["file"][1:], os.O_RDONLY, dir_fd=int(name))
            return os.read(inside, 100).decode()
    raise PermissionError("no descriptor leads to the file")


@attack("open a file by its handle")
def file_handle(_: dict[str, Any]) -> None:
    handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, 1, 2), 16)
    top = os.open("/", os.O_RDONLY)
    os.close(system_call(304, top, handle, os.O_RDONLY))


@attack("signal a process of the host")
def signal_host(target: dict[str, Any]) -> None:
    os.kill(target["process"], 0)


@attack("trace another process")
def trace(_: dict[str, Any]) -> None:
    if not (child := os.fork()):
        os._exit(0 if libc.ptrace(PTRACE_SEIZE, os.getppid(), 0, 0) == 0 else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError("PTRACE_SEIZE was refused")


@attack("read the memory of process 1")
def other_memory(_: dict[str, Any]) -> None:
    mapping = next(
        line for line in Path("/proc/1/maps").read_text().splitlines() if " r--p " in line
    )
    into = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(into), 8)
    remote = (ctypes.c_void_p * 2)(int(mapping.partition("-")[0], 16), 8)
    system_call(310, 1, local, 1, remote, 1, ctypes.c_ulong(0))


@attack("leave a setuid file in the output, by chmod, creat and mkdir")
def setuid_file(target: dict[str, Any]) -> str:
    path = Path(target["output"], "program")
    path.write_bytes(b"x")
    ways: dict[str, Callable[[], object]] = {
        "chmod": lambda: path.chmod(0o6755),
        "fchmod": lambda: os.fchmod(os.open(path, os.O_RDWR), 0o4755),
        "open": lambda: os.close(os.open(f"{path}2", os.O_CREAT | os.O_WRONLY, 0o4755)),
        "openat": lambda: os.close(system_call(257, -100, f"{path}3".encode(), 0o101, 0o4755)),
        "creat": lambda: os.close(call("creat", f"{path}4".encode(), 0o4755)),
        "mknod": lambda: os.mknod(f"{path}5", stat.S_IFREG | 0o4755),
        "fchmodat2": lambda: system_call(452, -100, f"{path}".encode(), 0o4755, 0),
        "openat2": lambda: system_call(
            437, -100, f"{path}6".encode(), struct.pack("=QQQ", 0o101, 0o4755, 0), 24
        ),
    }
    for way in ways.values():
        with contextlib.suppress(OSError):
            way()
    marked = [name for name in path.parent.iterdir() if name.lstat().st_mode & 0o6000]
    if not marked:
        raise PermissionError("no file has the setuid bit")
    return str(marked)


@attack("put a key into the host's key ring")
def keys(_: dict[str, Any]) -> None:
    system_call(248, b"user", b"blockyard-test", b"x", 1, -3)


@attack("read the list of key rings by keyctl(2)")
def key_rings(_: dict[str, Any]) -> None:
    system_call(250, 0, -3, 0)


@attack("type into a terminal by TIOCSTI")
def terminal(_: dict[str, Any]) -> None:
    end = os.openpty()[1]
    fcntl.ioctl(end, TIOCSTI, b"x")


@attack("open the user's terminal")
def controlling_terminal(_: dict[str, Any]) -> None:
    os.close(os.open("/dev/tty", os.O_RDWR))


@attack("connect to a port of the host's loopback address")
def network(target: dict[str, Any]) -> None:
    socket.create_connection(("127.0.0.1", target["port"]), timeout=5).close()


@attack("connect to an abstract socket of the host")
def abstract_socket(target: dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect("\0" + target["abstract"])


@attack("connect to a socket of the host by its path")
def path_socket(target: dict[str, Any]) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(target["socket"])


@attack("open sockets of other families: vsock, packet, kernel crypto")
def other_families(_: dict[str, Any]) -> str:
    for family, kind in ((40, 1), (17, 3), (38, 5), (31, 3)):
        with contextlib.suppress(OSError):
            socket.socket(family, kind).close()
            return str(family)
    raise PermissionError("none can be opened")


@attack("make a user namespace by unshare(2)")
def user_namespace(_: dict[str, Any]) -> None:
    call("unshare", NEW_USER)


@attack("make a user namespace by clone(2)")
def cloned_namespace(_: dict[str, Any]) -> None:
    if system_call(56, NEW_USER | 17, None, None, None, None) == 0:
        os._exit(0)


@attack("make a user namespace by clone3(2)")
def cloned_namespace_3(_: dict[str, Any]) -> None:
    arguments = struct.pack("=11Q", NEW_USER, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    if system_call(435, arguments, 88) == 0:
        os._exit(0)


@attack("make a mount namespace")
def mount_namespace(_: dict[str, Any]) -> None:
    call("unshare", NEW_NS)


@attack("join the namespace of process 1")
def join_namespace(_: dict[str, Any]) -> None:
    call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)


@attack("load a kernel module, or a kernel by kexec")
def load_module(_: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        system_call(175, b"", 0, b"")
        return
    system_call(246, 0, 0, None, 0)


@attack("load a BPF program")
def bpf(_: dict[str, Any]) -> None:
    code = struct.pack("=QQ", 0xB7, 0x95)
    memory = ctypes.create_string_buffer(code)
    licence = ctypes.create_string_buffer(b"GPL")
    program = struct.pack("=IIQQ", 1, 2, ctypes.addressof(memory), ctypes.addressof(licence))
    system_call(321, 5, program + bytes(96), 120)


@attack("open userfaultfd, a performance counter, io_uring")
def kernel_surface(_: dict[str, Any]) -> str:
    counter = struct.pack("=IIQ", 1, 112, 0) + bytes(96)
    calls: dict[str, tuple[Any, ...]] = {
        "userfaultfd": (323, 1),
        "perf_event_open": (298, counter, 0, -1, -1, 0),
        "io_uring_setup": (425, 8, ctypes.create_string_buffer(120)),
    }
    for name, arguments in calls.items():
        with contextlib.suppress(OSError):
            system_call(*arguments)
            return name
    raise PermissionError("none can be opened")


@attack("bypass the system call filter by 32-bit system calls")
def other_convention(_: dict[str, Any]) -> str:
    # mov eax, 20 (getpid); int 0x80; ret
    code = bytes.fromhex("b814000000cd80c3")
    area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(start)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return str(result)


@attack("bypass the system call filter by x32 system calls")
def x32(_: dict[str, Any]) -> None:
    system_call(0x40000000 | 39)


@attack("become another user, or gain rights by a setuid program")
def other_user(_: dict[str, Any]) -> str:
    for user in (1, 1000, 65534):
        with contextlib.suppress(OSError):
            os.setresuid(user, user, user)
            return str(user)
    text = Path("/proc/self/status").read_text()
    if "NoNewPrivs:\t1" not in text:
        return "NoNewPrivs is off"
    raise PermissionError("no such user here, and NoNewPrivs is on")


@attack("have a capability")
def capability(_: dict[str, Any]) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    held = [line for line in lines if line.startswith("Cap") and int(line.split()[1], 16)]
    if not held:
        raise PermissionError("all sets are empty")
    return held[0]


@attack("escape limits: raise a limit or its own priority, lower its own OOM score")
def own_limits(_: dict[str, Any]) -> str:
    with contextlib.suppress(OSError):
        os.nice(-5)
        return "nice"
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900")
        return "oom_score_adj"
    with contextlib.suppress(OSError, ValueError):
        now = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if now == resource.RLIM_INFINITY:
            return "no limit"
        resource.setrlimit(resource.RLIMIT_FSIZE, (now * 2, now * 2))
        return "file size"
    raise PermissionError("all attempts were refused")


@attack("rename the host")
def host_name(_: dict[str, Any]) -> None:
    socket.sethostname("mine")


@attack("set the clock")
def clock(_: dict[str, Any]) -> None:
    call("settimeofday", struct.pack("=qq", 10**10, 10**10), None)


@attack("find a secret of the caller in environments and arguments of processes")
def secrets(target: dict[str, Any]) -> str:
    paths = ["/proc/self/environ", *proc_files("[0-9]*/environ")]
    paths += proc_files("[0-9]*/cmdline")
    for path in paths:
        with contextlib.suppress(OSError):
            # the target has the secret reversed, so that our own data does not match
            if target["secret"].encode()[::-1] in Path(path).read_bytes():
                return path
    raise PermissionError("no process has the secret")


@attack("write outside of the output: to the root, /mnt, /dev, bound folders")
def elsewhere(_: dict[str, Any]) -> str:
    for name in ("/", "/usr/bin", "/etc", "/dev", _read_only_mount()):
        with contextlib.suppress(OSError):
            path = Path(name, "blockyard-hostile")
            path.touch()
            path.unlink()
            return name
    raise PermissionError("none of them is writable")


def run(name: str, target: dict[str, Any]) -> dict[str, object]:
    """Run one attack in its own process, because it may lock itself in; return its report."""
    description, function = attacks[name]
    reading, writing = os.pipe()
    if not (child := os.fork()):
        with os.fdopen(writing, "w") as file:
            try:
                answer: dict[str, object] = {"succeeded": True, "outcome": str(function(target))}
            except Exception as error:
                answer = {"succeeded": False, "outcome": f"{type(error).__name__}: {error}"}
            json.dump(answer, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answer = json.loads(text) if text else {"succeeded": False, "outcome": f"killed: {status}"}
    return {"attack": name, "tried": description, **answer}


def main() -> None:
    report, target = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    with open(report, "w") as file:
        for name in sorted(attacks, key=LAST.__contains__):
            file.write(json.dumps(run(name, target)) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
