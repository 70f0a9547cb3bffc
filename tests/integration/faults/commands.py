# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that never end, print too much or use up the guest."""

from __future__ import annotations

import pytest

from blockyard.images.errors import CommandTimedOut
from blockyard.kernel.host.errors import Failure
from blockyard.tests.integration.faults.fault import GOES_ON, Guests, answers, fault


@fault("a command prints 64 MiB", "complete", within_s=60)
def long_output(guests: Guests) -> None:
    with guests.boot() as guest:
        assert guest.serial.run("head -c 67108864 /dev/zero", 600).data == bytes(64 << 20)


@fault("a command prints 65 MiB", "cut with a mark, whole in a file", within_s=60)
def longer_output(guests: Guests) -> None:
    with guests.boot() as guest:
        result = guest.serial.run("head -c 68157440 /dev/zero", 600)
        assert result.file is not None
        assert result.file.stat().st_size == 65 << 20
        assert b"cut after" in result.data[-500:]


@fault("a command closes its output and goes on", "its exit code arrives")
def closed_output(guests: Guests) -> None:
    with guests.boot() as guest:
        assert guest.serial.run("exec >&- 2>&-; sleep 0.5; exit 5").exit_code == 5


@fault("a command never ends", "CommandTimedOut, the guest goes on")
def endless_command(guests: Guests) -> None:
    times_out_on_both(guests, "trap '' INT TERM HUP; while :; do sleep 1; done")


def times_out_on_both(guests: Guests, command: str) -> None:
    with guests.boot(ssh=True) as guest:
        for name in ("serial", "ssh"):
            with pytest.raises(CommandTimedOut):
                guest.console(name).run(command, 0.5)
            answers(guest.console(name))


@fault("a command never ends, and writes into the kernel log", "CommandTimedOut, the guest goes on")
def endless_log(guests: Guests) -> None:
    with guests.boot() as guest:
        with pytest.raises(CommandTimedOut):
            guest.serial.run("while :; do echo tick > /dev/kmsg; sleep 0.2; done", 0.5)
        answers(guest.serial)


@fault("a command never ends, and prints", "CommandTimedOut, the guest goes on")
def endless_output(guests: Guests) -> None:
    times_out_on_both(guests, "yes")


@fault("a fork bomb", "CommandTimedOut, the guest goes on", within_s=60)
def fork_bomb(guests: Guests) -> None:
    with guests.boot() as guest:
        with pytest.raises(CommandTimedOut):
            guest.serial.run("bomb() { bomb | bomb & }; bomb; sleep 600", 2)
        answers(guest.serial)


@fault("the guest runs out of memory", f"{GOES_ON}: its command was killed", within_s=60)
def out_of_memory(guests: Guests) -> None:
    with guests.boot() as guest:
        assert guest.serial.run("tail /dev/zero", 300).exit_code == 137
        answers(guest.serial)
        assert "Out of memory: Killed process" in guest.log.text()


@fault("the guest's disk is full", f"{GOES_ON}: the command and a file transfer say so")
def disk_full(guests: Guests) -> None:
    with guests.boot() as guest:
        result = guest.serial.run("cat /dev/zero > /var/tmp/full", 300)
        assert "No space left on device" in result.output
        with pytest.raises(Failure, match="No space left"):
            guest.serial.put(bytes(1 << 20), "/var/tmp/more")
        answers(guest.serial)
