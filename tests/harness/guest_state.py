# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test can leave behind in a guest: disks, directories, references, settings.

The guest's state is a set of lines, each of which names one thing and how it is. A test has to
leave the set as it found it.
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

    thorough: with all settings of all queues, which takes as long as three short commands do.
    """
    script = call(SCRIPTS, "guest_state", int(thorough), *driver.manifest.modules)
    return frozenset(driver.console.check(script).splitlines())


# kmemleak reports what is older (MSECS_MIN_AGE in mm/kmemleak.c), and in no scan before its second:
# the first takes what is new for something that has just changed (update_checksum()).
LEAK_AGE_S = 5.0
_LEAK_LINES = 40  # of a report: what leaked, and where it was allocated


def leaks(driver: Driver, *, patient: bool) -> str:
    """What kmemleak finds that nothing refers to any more; empty when it is nothing.

    patient: waits until what was allocated a moment ago is old enough to be reported. A report
    is given once. Takes seconds: only where the kernel has DEBUG_KMEMLEAK.
    """
    wait = [LEAK_AGE_S + 0.5] if patient else []
    script = call(SCRIPTS, "leaks", _LEAK_LINES, *wait)
    return driver.console.check(script, timeout_s=60).strip()


def short(state: frozenset[str]) -> frozenset[str]:
    """The part of a thorough state that is read after each test."""
    return frozenset(line for line in state if not line.startswith("queue "))


def differences(before: frozenset[str], after: frozenset[str]) -> list[str]:
    """In words: what is there that was not, and what is not there that was."""
    found = [("left", line) for line in sorted(after - before)]
    found += [("missing", line) for line in sorted(before - after)]
    return [f"{how}: {_words(line)}" for how, line in found]


def _words(line: str) -> str:
    kind, _, rest = line.partition(" ")
    return f"{WORDS.get(kind, kind)} {rest}"
