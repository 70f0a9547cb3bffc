# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test can leave behind in a guest: disks, directories, references, settings.

The guest's state is a set of lines, each of which names one thing and how it is. A test has to
leave the set as it found it.
"""

from __future__ import annotations

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
# Shell lines for one disk. What a queue does not have a value for cannot be read.
QUEUE = """
            for file in $disk/queue/*; do
                { read -r line < $file; } 2> /dev/null && echo queue ${file#/sys/block/} $line
            done"""


def read(driver: Driver, *, thorough: bool = True) -> frozenset[str]:
    """The guest's state, as lines such as ``module null_blk 0``.

    thorough: with all settings of all queues, which takes as long as three short commands do. The
    script starts no program: under emulation each one costs more than all the rest. But where a
    module is in use it waits a moment, since a partition scan holds a reference when a disk is new.
    """
    modules = " ".join(driver.manifest.modules)
    script = f"""
        shopt -s nullglob
        for disk in /sys/block/*; do
            echo disk ${{disk##*/}}
            [ -e $disk/queue/scheduler ] && read -r line < $disk/queue/scheduler &&
                [[ $line =~ \\[.*\\] ]] && echo scheduler ${{disk##*/}} ${{BASH_REMATCH[0]}}
            {QUEUE if thorough else ""}
            for part in $disk/*/partition; do part=${{part%/*}}; echo partition ${{part##*/}}; done
        done
        for directory in /sys/kernel/config/*/*/; do echo directory $directory; done
        for module in {modules}; do
            [ -e /sys/module/$module/refcnt ] || {{ echo module $module not loaded; continue; }}
            for try in {{1..10}}; do
                read -r count < /sys/module/$module/refcnt
                [ $count = 0 ] && break
                sleep 0.05
            done
            echo module $module $count
        done
        read -r cpus < /sys/devices/system/cpu/online && echo cpus $cpus
        while read -r source place rest; do echo mount $place; done < /proc/self/mounts
        if [ -e /proc/swaps ]; then
            while read -r file rest; do echo swap $file; done < /proc/swaps
        fi
        true"""
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
    wait = f"echo scan > $file; sleep {LEAK_AGE_S + 0.5}" if patient else ""
    script = f"""
        file=/sys/kernel/debug/kmemleak
        {wait}
        echo scan > $file
        head -n {_LEAK_LINES} $file
        echo clear > $file"""
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
