# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done when a guest is silent: find out what hangs, and keep what tells why.

The steps go from mild to rough, and each one's answer says how deep the trouble is:

1. the console was interrupted and asked again (images.console.console), without an answer;
2. QEMU is asked over QMP for its state and the processors' registers;
3. SysRq w, l and t, sent through the port of the kernel log: blocked tasks, what the processors
   do, all tasks. A kernel that writes them is alive, and only the console is dead;
4. an NMI, at which a kernel that took no SysRq panics with a backtrace;
5. QEMU is ended.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.images.errors import ConsoleLost, GuestError, GuestHung, GuestPanicked, QemuDied
from blockyard.images.log.symbols import Symbols
from blockyard.images.machine.qmp import QmpError, QmpTimeout

if TYPE_CHECKING:
    from blockyard.images.console.console import Console
    from blockyard.images.machine.machine import Machine

SYSRQ_S = 2.0  # a live kernel begins to answer a SysRq within this, at scale 1
SETTLE_S = 0.3  # and has written it when nothing came for so long, at scale 1
SETTLED_S = 2.0  # all tasks of a guest are written within this, at scale 1
NMI_S = 2.0  # a kernel that panics at an NMI has said so within this, at scale 1
EVIDENCE = "evidence"  # folder, in the guest's
STACK_LINES = 60  # of all blocked tasks, in an error
# "[    1.234567]  ? name+0x1/0x2", "[    1.234567] RAX: 0000..."
_NOISE = re.compile(r"\]  (?:\? |[A-Z0-9]{3}: )|\] R[A-Z0-9]{2}: |</?TASK>")
_RIP = re.compile(r"^(?:CPU#(\d+)|.*RIP=([0-9a-f]{16}))", re.MULTILINE)


def examine(machine: Machine, console: Console, why: str) -> GuestError:
    """What is wrong with a guest whose console does not answer; evidence is in its folder.

    Raises what the watch finds meanwhile, such as a panic.
    """
    told = f"{console.name} console: {why}"
    folder = machine.setup.directory / EVIDENCE
    folder.mkdir(exist_ok=True)
    (folder / "console-last-bytes").write_bytes(console.last_bytes)
    try:
        status, functions = _ask_qemu(machine, folder)
    except QmpTimeout as silent:
        machine.watch()
        machine.kill_qemu()
        return _error(GuestHung, machine, f"{told}: QEMU itself hangs ({silent.what})")
    if not status.get("running", True):
        return _error(GuestHung, machine, f"{told}: QEMU has paused it ({status.get('status')})")
    if dump_tasks(machine):
        return _error(ConsoleLost, machine, f"{told}; its kernel is alive (see SysRq in the log)")
    _nmi(machine)
    machine.kill_qemu()
    where = f" ({'; '.join(functions)})" if functions else ""
    return _error(GuestHung, machine, f"{told}: the guest's kernel hangs{where}")


def dump_tasks(machine: Machine, keys: str = "wlt") -> bool:
    """Sends SysRq keys; whether the kernel answered."""
    answered = False
    for key in keys:
        try:
            answered = _sysrq(machine, key) or answered
        except (QmpTimeout, QmpError):
            break
        if not answered:
            break  # the others would wait in vain
    return answered


def dump_blocked_tasks(machine: Machine) -> str:
    """Has the kernel tell of tasks that nothing interrupts, or else of all, which takes seconds.

    The lines of its log since the test began, for an error: with the stacks of the former, without
    those of the latter.
    """
    before, lines = machine.log.size, machine.log.since_begin()
    if dump_tasks(machine, "w"):
        stacks = machine.log.text(before)
        if " pid:" in stacks:
            return f"{lines}\n{_shortened(stacks)}"
        dump_tasks(machine, "t")
    return lines


def _shortened(stacks: str) -> str:
    """What SysRq w printed without registers and frames that may be old ones."""
    lines = [line for line in stacks.splitlines() if not _NOISE.search(line)]
    rest = [f"... {len(lines) - STACK_LINES} lines more"] if len(lines) > STACK_LINES else []
    return "\n".join([*lines[:STACK_LINES], *rest])


def _sysrq(machine: Machine, key: str) -> bool:
    """One SysRq key through the kernel log's port; whether anything came of it."""
    before = machine.log.size
    machine.send_sysrq(key)
    deadline = machine.time() + SYSRQ_S * machine.scale
    while "sysrq: " not in machine.log.text(before):
        if machine.time() > deadline:
            return False
        machine.watch()
        time.sleep(0.02)
    size = 0
    deadline = machine.time() + SETTLED_S * machine.scale  # others may write without an end
    while size != (size := machine.log.size) and machine.time() < deadline:
        machine.watch()
        time.sleep(SETTLE_S * machine.scale)
    machine.log.asked_for(before, size)
    return True


def _ask_qemu(machine: Machine, folder: Path) -> tuple[dict[str, object], list[str]]:
    """QEMU's answer to query-status, and which function each processor is in."""
    status: dict[str, object] = machine.qmp.command("query-status")
    registers = machine.qmp.human("info registers -a")
    functions = _functions(registers, Symbols.of(machine.setup.kernel))
    (folder / "registers").write_text("\n".join([*functions, "", registers]))
    state = {
        "status": status,
        "cpus": machine.qmp.command("query-cpus-fast"),
        "block": machine.qmp.command("query-block"),
        "events": machine.events.seen,
    }
    (folder / "qemu.json").write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2))
    return status, functions


def _functions(registers: str, symbols: Symbols) -> list[str]:
    """Which function each processor is in, in words."""
    lines = []
    cpu = "?"
    for match in _RIP.finditer(registers):
        if match[1] is not None:
            cpu = match[1]
        else:
            lines.append(f"CPU {cpu}: {symbols.name(int(match[2], 16))}")
    return lines


def _nmi(machine: Machine) -> None:
    """The kernel was started with unknown_nmi_panic: it prints a backtrace and ends."""
    with contextlib.suppress(QmpTimeout, QmpError):
        machine.qmp.command("inject-nmi")
    deadline = machine.time() + NMI_S * machine.scale
    with contextlib.suppress(GuestPanicked, QemuDied):
        while machine.time() < deadline:
            machine.watch()
            time.sleep(0.05)


def _error(kind: type[GuestError], machine: Machine, what: str) -> GuestError:
    error = kind(what, kernel_log=machine.log.tail(), log=machine.log.path)
    if kind is GuestHung:
        machine.verdict = error
    return error
