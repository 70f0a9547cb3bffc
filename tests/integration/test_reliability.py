# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that can go wrong with a guest goes wrong here, and has to end as the table says.

Each fault ends within its deadline, with the right outcome, and leaves nothing behind.
`./inv check --faults` runs them alone and writes the table to docs/reliability.md.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blockyard.ci.run import boot_env
from blockyard.images.boot import boot
from blockyard.images.console.console import Console
from blockyard.images.errors import (
    CommandHung,
    CommandTimedOut,
    ConsoleLost,
    GuestHung,
    GuestPanicked,
    GuestShutdown,
    ImageDamaged,
    QemuDied,
)
from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import Controller, Topology
from blockyard.images.log import splats
from blockyard.images.machine import hotplug, qemu, snapshot
from blockyard.images.machine.diagnose import EVIDENCE
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.scratch import SCRATCH
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.integration.conftest import KERNEL, FaultTable
from blockyard.tests.integration.processes import descendants, left, named

TROUBLE = PROJECT / "tests" / "integration" / "trouble"
GOES_ON = "the command ends, the guest goes on"


class Place:
    """Where a fault happens: guests in a folder of the test's own."""

    def __init__(self, ready: BootEnv, folder: Path) -> None:
        self.ready = ready
        self.folder = folder

    def guest(self, name: str = "default", *, ssh: bool = False) -> AbstractContextManager[Machine]:
        """A guest of a topology."""
        return boot(
            self.ready.setup(self.folder / "guest", topology=topologies.load(name), ssh=ssh)
        )


Body = Callable[[Place], None]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    title: str
    outcome: str
    within_s: float  # on KVM; stretched by the accelerator's scale
    body: Body


FAULTS: list[Fault] = []


def fault(title: str, outcome: str, *, within_s: float = 30) -> Callable[[Body], Body]:
    """Registers a function as a fault; it raises when the outcome is another."""

    def register(body: Body) -> Body:
        FAULTS.append(Fault(title, outcome, within_s, body))
        return body

    return register


@pytest.fixture(scope="module")
def troubled() -> BootEnv:
    """The kernel under test, with a module that misbehaves when it is asked to."""
    return boot_env.ready(KernelSpec(KERNEL, modules=(TROUBLE,)))


def trouble(guest: Machine, what: str, timeout_s: float = 60, **options: int) -> int:
    words = " ".join(f"{name}={value}" for name, value in options.items())
    return guest.serial.run(f"modprobe trouble what={what} {words}", timeout_s).exit_code


def goes_on(console: Console) -> None:
    assert console.run("echo well; exit 3", 10).data == b"well\n"


def kinds(guest: Machine) -> set[str]:
    return {splat.kind for splat in splats.find(guest.log.text())}


def qemu_pid(guest: Machine) -> int:
    (pid,) = named(descendants(guest._qemu.process.pid), "qemu-system-x86_64")
    return pid


# The kernel


@fault("the kernel panics (`echo c > /proc/sysrq-trigger`)", "GuestPanicked")
def panic(place: Place) -> None:
    with place.guest() as guest:
        with pytest.raises(GuestPanicked) as caught:
            guest.serial.run("echo c > /proc/sysrq-trigger; sleep 600", 600)
        assert "sysrq triggered crash" in caught.value.kernel_log


@fault("the kernel panics while the other console waits", "GuestPanicked")
def panic_over_ssh(place: Place) -> None:
    with place.guest(ssh=True) as guest, pytest.raises(GuestPanicked):
        guest.console("ssh").run("echo c > /proc/sysrq-trigger; sleep 600", 600)


@fault("a module hits BUG()", f"{GOES_ON}; a splat is found")
def bug(place: Place) -> None:
    with place.guest() as guest:
        assert trouble(guest, "bug") != 0
        goes_on(guest.serial)
        assert "BUG" in kinds(guest)


@fault("a module hits WARN()", f"{GOES_ON}; a splat is found")
def warn(place: Place) -> None:
    with place.guest() as guest:
        assert trouble(guest, "warn") == 0
        goes_on(guest.serial)
        assert kinds(guest) == {"WARNING"}


@fault("a processor is held for seconds: soft lockup", f"{GOES_ON}; a splat is found", within_s=60)
def soft_lockup(place: Place) -> None:
    with place.guest() as guest:
        guest.serial.check("echo 2 > /proc/sys/kernel/watchdog_thresh")
        assert trouble(guest, "lockup", 120, seconds=10) == 0
        goes_on(guest.serial)
        assert "soft lockup" in kinds(guest)


@fault("a kernel thread spins", GOES_ON)
def spinning_thread(place: Place) -> None:
    with place.guest() as guest:
        assert trouble(guest, "spin") == 0
        for _ in range(20):
            goes_on(guest.serial)


HUNG = "CommandHung, the guest goes on"


@contextmanager
def busy_host() -> Iterator[None]:
    """More programs that compute than the host has processors."""
    programs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def hangs(guest: Machine, script: str, match: str) -> CommandHung:
    """The script hangs, and after 5 s of the guest's that is found, long before its deadline."""
    begun = time.monotonic()
    with pytest.raises(CommandHung, match=match) as caught:
        guest.serial.run(f"set -e\n{script}", 6000, blocked_s=5)
    assert 5 < time.monotonic() - begun < 45
    goes_on(guest.serial)
    return caught.value


@fault("a task is stuck in the kernel", f"{HUNG}; its stack and the lines before it")
def stuck_task(place: Place) -> None:
    with place.guest() as guest:
        guest.log.begin()
        script = "echo '<4>trouble: a line of mine' > /dev/kmsg; exec modprobe trouble what=stuck"
        error = hangs(guest, script, r"modprobe trouble what=stuck, pid \d+, hangs.*be killed")
        own, _, stack = error.kernel_log.partition("Show Blocked State")
        assert "trouble: a line of mine" in own
        assert "Linux version" not in own
        assert "do_init_module" in stack
        assert "RSP:" not in stack
        blocked = guest.log.text().partition("Show Blocked State")[2]
        assert "task:modprobe" in blocked
        assert "[trouble]" in blocked


@fault("the same, and the host is busy", f"{HUNG}, as soon")
def stuck_on_a_busy_host(place: Place) -> None:
    with busy_host(), place.guest() as guest:
        hangs(guest, "modprobe trouble what=stuck", "modprobe")


@fault("a command waits without end, in a way that a signal ends", HUNG)
def killable(place: Place) -> None:
    with place.guest() as guest:
        vfork = "perl -e 'if (syscall(58) == 0) { sleep 600 }'"
        assert "killed" not in hangs(guest, vfork, "perl").what
        # the number of perl's process is less than that of its session: the numbers wrap
        most = "/proc/sys/kernel/pid_max"
        guest.serial.check("for n in {1..400}; do (:); done", 60)
        goes_on(guest.serial)  # the next shell but one is started after these
        wrap = f"echo $((BASHPID + 20)) > {most}; for n in {{1..30}}; do (:); done"
        wrapped = "(exec perl -e '$$ < getppid or exit 9; syscall(58) or sleep 600')"
        hangs(guest, f"{wrap}\n{wrapped}", "perl")


@fault("a disk completes no request, and who waits for it polls", HUNG)
def lost_request(place: Place) -> None:
    limits = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    with place.guest() as guest:
        guest.serial.check("modprobe nvme; wait_until 10 [ -b /dev/nvme0n1 ]")
        (disk,) = [
            one["qdev"]
            for one in guest.qmp.execute("query-blockstats", {})
            if one.get("node-name") == "nvme0n1"
        ]
        guest.qmp.execute("block_set_io_throttle", {"id": disk, "bps": 1, **limits})
        fio = "fio --name=io --filename=/dev/nvme0n1 --rw=randread --direct=1 --size=1M"
        lost = r"fio --name=io .*\(a request to nvme0n1\), pid"
        hangs(guest, f"{fio} --ioengine=libaio --iodepth=4", lost)
        guest.kill_qemu()  # it would complete them first


@fault("commands sleep, compute and take a processor away while the host is busy", "no alarm")
def no_hang(place: Place) -> None:
    cpu = "/sys/devices/system/cpu/cpu1/online"
    scripts = (
        "sleep 8",
        "sleep 8 & wait",
        "timeout 8 sh -c 'while :; do :; done'",
        f"for n in 1 2 3 4; do echo 0 > {cpu}; sleep 1; echo 1 > {cpu}; done",
    )
    with busy_host(), place.guest() as guest:
        for script in scripts:
            assert guest.serial.run(script, 60, blocked_s=3).exit_code in (0, 124)


@fault(
    "all processors hang with interrupts off",
    "GuestHung; backtrace by NMI, registers",
    within_s=60,
)
def hang(place: Place) -> None:
    with place.guest() as guest:
        with pytest.raises(GuestHung, match="kernel hangs"):
            trouble(guest, "hang", 6000)
        assert "RIP" in (guest.directory / EVIDENCE / "registers").read_text()
        assert "NMI" in guest.log.text()
        with pytest.raises(GuestHung):
            guest.serial.run("true")


@fault("init crashes", "GuestPanicked")
def init_killed(place: Place) -> None:
    # no signal kills init; without its stack it dies of the next return
    script = """
        range=$(grep -F '[stack]' /proc/1/maps | cut -d' ' -f1)
        first=$((16#${range%-*} / 4096)) last=$((16#${range#*-} / 4096))
        dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$first count=$((last - first)) conv=notrunc"""
    with place.guest() as guest:
        with pytest.raises(GuestPanicked) as caught:
            guest.serial.run(f"{script}; sleep 20", 60)
        assert "Attempted to kill init" in caught.value.kernel_log


@fault("100,000 lines flood the kernel log", f"{GOES_ON}; each line is there or told to be dropped")
def log_flood(place: Place) -> None:
    with place.guest() as guest:
        assert trouble(guest, "flood", 600) == 0
        goes_on(guest.serial)
        end = guest.log.wait_for("line 100000 of", 0, 600, guest.watch)
        assert end is not None
        log = guest.log.text()
        dropped = sum(map(int, re.findall(r"\*\* (\d+) printk messages dropped", log)))
        assert log.count("trouble: line ") + dropped >= 100_000


# QEMU


@fault("QEMU is killed", "QemuDied")
def qemu_killed(place: Place) -> None:
    with place.guest() as guest:
        os.kill(qemu_pid(guest), signal.SIGKILL)
        with pytest.raises(QemuDied):
            guest.serial.run("sleep 600", 600)


@fault("QEMU is stopped for 15 seconds", "the command ends, the guest goes on")
def qemu_stopped_for_a_while(place: Place) -> None:
    with place.guest() as guest:
        pid = qemu_pid(guest)
        threading.Timer(1, os.kill, [pid, signal.SIGSTOP]).start()
        threading.Timer(16, os.kill, [pid, signal.SIGCONT]).start()
        assert guest.serial.run("sleep 18; exit 3", 20, blocked_s=10).exit_code == 3
        goes_on(guest.serial)


@fault("QEMU is stopped (SIGSTOP)", "GuestHung: QEMU itself hangs", within_s=60)
def qemu_stopped(place: Place) -> None:
    with place.guest() as guest:
        threading.Timer(1, os.kill, [qemu_pid(guest), signal.SIGSTOP]).start()
        with pytest.raises(GuestHung, match="QEMU itself hangs"):
            guest.serial.run("sleep 6000", 6000)


@fault("QEMU pauses the guest", "GuestHung: QEMU has paused the guest")
def qemu_paused(place: Place) -> None:
    with place.guest() as guest:
        guest.qmp.command("stop")
        with pytest.raises(GuestHung, match="paused"):
            guest.serial.run("sleep 6000", 6000)


@fault("the guest reboots", "GuestShutdown")
def reboot(place: Place) -> None:
    with place.guest() as guest, pytest.raises(GuestShutdown, match="rebooted"):
        guest.serial.run("echo b > /proc/sysrq-trigger; sleep 600", 600)


@fault("the guest powers off", "GuestShutdown")
def power_off(place: Place) -> None:
    with place.guest() as guest, pytest.raises(GuestShutdown, match="powered off"):
        guest.serial.run("echo o > /proc/sysrq-trigger; sleep 600", 600)


@fault("QEMU refuses its arguments", "QemuDied: QEMU's reason, in one line")
def qemu_refuses(place: Place) -> None:
    both = Controller("a", sriov_max_vfs=2), Controller("b")
    odd = Topology(controllers=both, name="odd")
    setup = place.ready.setup(place.folder / "guest", topology=odd)
    with pytest.raises(QemuDied) as caught, boot(setup):
        raise AssertionError("it came up")
    assert caught.value.what.startswith("QEMU cannot start this guest: -device")
    assert len(caught.value.what.splitlines()) == 1
    assert caught.value.hint == "topology odd"


# Files of the host's


@fault("the guest root's image is cut off", "ImageDamaged: the file, and to remove it")
def root_cut(place: Place) -> None:
    setup = place.ready.setup(place.folder / "guest")
    root = place.folder / "cut" / "root.erofs"
    root.parent.mkdir()
    with open(setup.files.root, "rb") as whole:
        root.write_bytes(whole.read(50 << 20))
    cut = replace(setup, files=replace(setup.files, root=root))
    with (
        pytest.raises(ImageDamaged, match="cannot read .*cut/root.erofs: ") as caught,
        boot(cut) as guest,
    ):
        guest.serial.run("fio --version; exit 127", 60)
    assert str(root.parent) in caught.value.hint


@fault("the saved guest is damaged", "it is dropped, with one line, and the guest boots")
def snapshot_damaged(place: Place) -> None:
    setup = place.ready.setup(place.folder / "guest", start="snapshot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "RECIPE", f"of this test {os.getpid()}")  # not the user's
        for name in (qemu.STATE, qemu.MEMORY, "times.json"):
            saved = snapshot.snapshot(setup, boot)
            os.truncate(saved.path / name, 0 if name == "times.json" else 1000)
            with boot(setup) as guest:
                goes_on(guest.serial)
                assert "Linux version" in guest.log.text()
            assert not saved.path.exists()


# Commands


@fault("a command prints 64 MiB", "complete", within_s=60)
def long_output(place: Place) -> None:
    with place.guest() as guest:
        assert guest.serial.run("head -c 67108864 /dev/zero", 600).data == bytes(64 << 20)


@fault("a command prints 65 MiB", "cut with a mark, whole in a file", within_s=60)
def longer_output(place: Place) -> None:
    with place.guest() as guest:
        result = guest.serial.run("head -c 68157440 /dev/zero", 600)
        assert result.file is not None
        assert result.file.stat().st_size == 65 << 20
        assert b"cut after" in result.data[-500:]


@fault("a command closes its output and goes on", "its exit code arrives")
def closed_output(place: Place) -> None:
    with place.guest() as guest:
        assert guest.serial.run("exec >&- 2>&-; sleep 0.5; exit 5").exit_code == 5


@fault("a command never ends", "CommandTimedOut, the guest goes on")
def endless_command(place: Place) -> None:
    times_out_on_both(place, "trap '' INT TERM HUP; while :; do sleep 1; done")


def times_out_on_both(place: Place, command: str) -> None:
    with place.guest(ssh=True) as guest:
        for name in ("serial", "ssh"):
            with pytest.raises(CommandTimedOut):
                guest.console(name).run(command, 0.5)
            goes_on(guest.console(name))


@fault("a command never ends, and writes into the kernel log", "CommandTimedOut, the guest goes on")
def endless_log(place: Place) -> None:
    with place.guest() as guest:
        with pytest.raises(CommandTimedOut):
            guest.serial.run("while :; do echo tick > /dev/kmsg; sleep 0.2; done", 0.5)
        goes_on(guest.serial)


@fault("a command never ends, and prints", "CommandTimedOut, the guest goes on")
def endless_output(place: Place) -> None:
    times_out_on_both(place, "yes")


@fault("a fork bomb", "CommandTimedOut, the guest goes on", within_s=60)
def fork_bomb(place: Place) -> None:
    with place.guest() as guest:
        with pytest.raises(CommandTimedOut):
            guest.serial.run("bomb() { bomb | bomb & }; bomb; sleep 600", 2)
        goes_on(guest.serial)


@fault("the guest runs out of memory", f"{GOES_ON}: its command was killed", within_s=60)
def out_of_memory(place: Place) -> None:
    with place.guest() as guest:
        assert guest.serial.run("tail /dev/zero", 300).exit_code == 137
        goes_on(guest.serial)
        assert "Out of memory: Killed process" in guest.log.text()


@fault("the guest's disk is full", f"{GOES_ON}: the command and a file transfer say so")
def disk_full(place: Place) -> None:
    with place.guest() as guest:
        result = guest.serial.run("cat /dev/zero > /var/tmp/full", 300)
        assert "No space left on device" in result.output
        with pytest.raises(Failure, match="No space left"):
            guest.serial.put(bytes(1 << 20), "/var/tmp/more")
        goes_on(guest.serial)


# Ports and the network


@fault("the guest closes the console's port", "ConsoleLost: its kernel is alive")
def port_closed(place: Place) -> None:
    script = "cd /sys/bus/virtio/drivers/virtio_console; echo virtio* > unbind; sleep 600"
    with place.guest() as guest, pytest.raises(ConsoleLost, match="kernel is alive"):
        guest.serial.run(script, 6000)


@fault("sshd is killed", "ConsoleLost over ssh; serial goes on")
def sshd_killed(place: Place) -> None:
    with place.guest(ssh=True) as guest:
        console = guest.console("ssh")
        goes_on(console)
        with pytest.raises(ConsoleLost, match="kernel is alive"):
            console.run("pkill -KILL sshd; sleep 600", 6000)
        goes_on(guest.serial)


@fault("the network device goes down", "ConsoleLost over ssh; serial goes on")
def network_down(place: Place) -> None:
    with place.guest(ssh=True) as guest:
        console = guest.console("ssh")
        with pytest.raises(ConsoleLost, match="kernel is alive"):
            console.run("ip link set eth0 down; sleep 600", 6000)
        goes_on(guest.serial)


# Disks

IO = "fio --name=io --filename=/dev/nvme0n1 --rw=randread --direct=1 --time_based --runtime=600"


@fault("the NVMe controller is removed while I/O runs", f"{GOES_ON}: its I/O fails")
def controller_removed(place: Place) -> None:
    remove = "sleep 2; echo 1 > /sys/class/nvme/nvme0/device/remove"
    with place.guest() as guest:
        guest.serial.check("modprobe nvme; wait_until 10 [ -b /dev/nvme0n1 ]")
        result = guest.serial.run(f"({remove}) & {IO}", 600)
        assert result.exit_code not in (0, 137)
        assert guest.serial.run("test -e /dev/nvme0n1").exit_code == 1
        assert kinds(guest) == set()


@fault("the NVMe controller is unplugged while I/O runs", f"{GOES_ON}: its I/O fails")
def controller_unplugged(place: Place) -> None:
    with place.guest("hotplug") as guest:
        guest.serial.check("modprobe nvme")
        hotplug.plug(guest, Controller("plugged"), 0)
        guest.serial.wait_until("[ -b /dev/nvme0n1 ]")
        threading.Timer(2, guest.qmp.command, ["device_del"], {"id": "port0-nvme"}).start()
        assert guest.serial.run(IO, 600).exit_code not in (0, 137)
        goes_on(guest.serial)
        assert kinds(guest) == set()


# Blockyard itself


def inv(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(PROJECT / "inv"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def alone() -> Iterator[None]:
    """Faults that look at the guests of all commands do so one after the other."""
    with open(store.directory("locks") / "faults", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@fault("20 guests are started and stopped at once", "all answer", within_s=120)
def twenty_guests(place: Place) -> None:
    with alone(), ExitStack() as stack:
        runs = [inv("boot", "--kernel", KERNEL, "--run", f"echo $(({n} * 7))") for n in range(20)]
        for run in runs:
            stack.callback(run.kill)
        answers = [run.communicate(timeout=1200) for run in runs]
    assert answers == [(f"{n * 7}\n", "") for n in range(20)]


def scratch_files() -> set[Path]:
    folder = store.directory("guests")
    return {path for pattern in SCRATCH for path in folder.glob(f"*/{pattern}")}


def interrupted(number: signal.Signals) -> None:
    before = scratch_files()
    for moment in [random.uniform(0.05, 4) for _ in range(10)]:
        run = inv("boot", "--kernel", KERNEL, "--run", "sleep 600")
        time.sleep(moment)
        mine = descendants(run.pid)
        run.send_signal(number)
        _, errors = run.communicate(timeout=300)
        assert run.returncode != 0
        assert "Traceback" not in errors
        assert left(mine) == set()
    # what the last one left is removed by the next
    finished = inv("boot", "--kernel", KERNEL, "--run", "echo well")
    assert finished.communicate(timeout=300)[0] == "well\n"
    assert scratch_files() <= before


@fault("Blockyard is interrupted at ten random moments", "no QEMU and no file is left")
def sigint(place: Place) -> None:
    with alone():
        interrupted(signal.SIGINT)


@fault(
    "Blockyard is killed at ten random moments",
    "no QEMU is left; the next start removes the files",
)
def sigkill(place: Place) -> None:
    with alone():
        interrupted(signal.SIGKILL)


@pytest.mark.parametrize("one", FAULTS, ids=lambda one: one.body.__name__)
def test_fault(one: Fault, troubled: BootEnv, tmp_path: Path, fault_table: FaultTable) -> None:
    before = descendants(os.getpid())
    begun = time.monotonic()
    one.body(Place(troubled, tmp_path))
    seconds = time.monotonic() - begun
    assert left(descendants(os.getpid()) - before) == set()
    assert [path for pattern in SCRATCH for path in tmp_path.rglob(pattern)] == []
    assert seconds < one.within_s * troubled.accelerator.scale
    fault_table.append((one.title, one.outcome))
