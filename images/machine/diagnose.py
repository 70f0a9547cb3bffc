# SPDX-License-Identifier: GPL-2.0-or-later
"""Diagnoses a silent guest: finds out what hangs, and saves evidence.

The steps, from mild to rough:

1. QMP: the state of QEMU and the registers of the CPUs;
2. SysRq w, l and t through the kernel log's port: blocked tasks, backtraces of all CPUs, all tasks.
   If the kernel prints them, it is alive and only the console is dead: stop here;
3. an NMI, which makes a kernel that ignores SysRq panic with a backtrace;
4. kill QEMU.
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

# At scale 1:
SYSRQ_S = 2.0  # until a live kernel begins to answer a SysRq
SETTLE_S = 0.3  # without new output, the answer is complete
SETTLED_S = 2.0  # at most until the answer is complete, with all tasks of a guest
NMI_S = 2.0  # until the panic after an NMI is in the log
EVIDENCE = "evidence"  # folder in the guest's folder
STACK_LINES = 60  # for all blocked tasks together, in an error message
# "[    1.234567]  ? name+0x1/0x2", "[    1.234567] RAX: 0000..."
_NOISE = re.compile(r"\]  (?:\? |[A-Z0-9]{3}: )|\] R[A-Z0-9]{2}: |</?TASK>")
_RIP = re.compile(r"^(?:CPU#(\d+)|.*RIP=([0-9a-f]{16}))", re.MULTILINE)


def examine(machine: Machine, console: Console, why: str) -> GuestError:
    """The error of a guest whose console does not answer; evidence goes into its folder.

    Raises what `Machine.watch` raises meanwhile, such as GuestPanicked.
    """
    problem = f"{console.name} console: {why}"
    folder = machine.setup.directory / EVIDENCE
    folder.mkdir(exist_ok=True)
    (folder / "console-last-bytes").write_bytes(console.last_bytes)
    try:
        status, functions = _ask_qemu(machine, folder)
    except QmpTimeout as timeout:
        machine.watch()
        machine.kill_qemu()
        return _error(GuestHung, machine, f"{problem}: QEMU itself hangs ({timeout.what})")
    if not status.get("running", True):
        state = status.get("status")
        return _error(GuestHung, machine, f"{problem}: QEMU has paused the guest ({state})")
    if dump_tasks(machine):
        return _error(
            ConsoleLost, machine, f"{problem}; its kernel is alive (see SysRq in the log)"
        )
    _nmi(machine)
    machine.kill_qemu()
    where = f" ({'; '.join(functions)})" if functions else ""
    return _error(GuestHung, machine, f"{problem}: the guest's kernel hangs{where}")


def dump_tasks(machine: Machine, keys: str = "wlt") -> bool:
    """Sends SysRq keys; returns whether the kernel answered."""
    answered = False
    for key in keys:
        try:
            answered = _sysrq(machine, key) or answered
        except (QmpTimeout, QmpError):
            break
        if not answered:
            break  # it would not answer the others either
    return answered


def dump_blocked_tasks(machine: Machine) -> str:
    """Makes the kernel log uninterruptible tasks, or all tasks if there are none (takes seconds).

    Returns the log since the test began, for an error message; with the stacks of uninterruptible
    tasks, but without those of all tasks.
    """
    before, lines = machine.log.size, machine.log.since_begin()
    if dump_tasks(machine, "w"):
        stacks = machine.log.text(before)
        if " pid:" in stacks:
            return f"{lines}\n{_shortened(stacks)}"
        dump_tasks(machine, "t")
    return lines


def _shortened(stacks: str) -> str:
    """The output of SysRq w without registers and unreliable frames ("?")."""
    lines = [line for line in stacks.splitlines() if not _NOISE.search(line)]
    rest = [f"... {len(lines) - STACK_LINES} more lines"] if len(lines) > STACK_LINES else []
    return "\n".join([*lines[:STACK_LINES], *rest])


def _sysrq(machine: Machine, key: str) -> bool:
    """Sends one SysRq key through the kernel log's port; returns whether the kernel answered."""
    before = machine.log.size
    machine.send_sysrq(key)
    deadline = machine.time() + SYSRQ_S * machine.scale
    while "sysrq: " not in machine.log.text(before):
        if machine.time() > deadline:
            return False
        machine.watch()
        time.sleep(0.02)
    size = 0
    deadline = machine.time() + SETTLED_S * machine.scale  # other messages may never stop
    while size != (size := machine.log.size) and machine.time() < deadline:
        machine.watch()
        time.sleep(SETTLE_S * machine.scale)
    machine.log.mark_requested(before, size)
    return True


def _ask_qemu(machine: Machine, folder: Path) -> tuple[dict[str, object], list[str]]:
    """QEMU's answer to query-status, and the function that each CPU is in."""
    status = machine.qmp.query("query-status", dict[str, object])
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
    """The function that each CPU is in, such as ``CPU 0: pv_native_safe_halt+0xf``."""
    lines = []
    cpu = "?"
    for match in _RIP.finditer(registers):
        if match[1] is not None:
            cpu = match[1]
        else:
            lines.append(f"CPU {cpu}: {symbols.name(int(match[2], 16))}")
    return lines


def _nmi(machine: Machine) -> None:
    """Sends an NMI. The kernel has unknown_nmi_panic: it prints a backtrace and panics."""
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
