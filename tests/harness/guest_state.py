# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a guest that a test must not change: disks, directories, references, settings.

The state is a set of lines, each with a kind, a name and a value. It is read before and after a
test, and the two sets have to be equal.
"""

from __future__ import annotations

from pathlib import Path

from blockyard.images.console.script import call
from blockyard.modules.driver import Driver

WORDS = {
    "disk": "a disk",
    "partition": "a partition",
    "queue": "a queue's setting",
    "scheduler": "a scheduler",
    "directory": "a configfs directory",
    "module": "a module's references",
    "cpus": "the CPUs that are online",
    "mount": "a mounted file system",
    "swap": "swap space",
}
SCRIPTS = Path(__file__).with_name("guest_state.bash")


def read(driver: Driver, *, thorough: bool = True) -> frozenset[str]:
    """The guest's state, as lines such as ``module null_blk 0``.

    thorough: with all queue settings, which takes as long as three short commands.
    """
    script = call(SCRIPTS, "guest_state", int(thorough), *driver.manifest.modules)
    return frozenset(driver.console.check(script).splitlines())


# kmemleak reports only older objects (MSECS_MIN_AGE in mm/kmemleak.c), and not in their first scan,
# which takes new objects for objects that have just changed (update_checksum()).
LEAK_AGE_S = 5.0
_LEAK_LINES = 40  # of a report that are kept: the object and where it was allocated


def leaks(driver: Driver, *, patient: bool) -> str:
    """New reports of kmemleak; empty when there are none. Needs CONFIG_DEBUG_KMEMLEAK.

    patient: waits until the newest objects are old enough to be reported. Takes seconds.
    """
    wait = [LEAK_AGE_S + 0.5] if patient else []
    script = call(SCRIPTS, "leaks", _LEAK_LINES, *wait)
    return driver.console.check(script, timeout_s=60).strip()


def short(state: frozenset[str]) -> frozenset[str]:
    """The part of a thorough state that is read after each test."""
    return frozenset(line for line in state if not line.startswith("queue "))


def differences(before: frozenset[str], after: frozenset[str]) -> list[str]:
    """A line for people for each addition to the state and each loss from it."""
    lines = [f"left: {_words(line)}" for line in sorted(after - before)]
    return lines + [f"missing: {_words(line)}" for line in sorted(before - after)]


def _words(line: str) -> str:
    kind, _, rest = line.partition(" ")
    return f"{WORDS.get(kind, kind)} {rest}"
