# SPDX-License-Identifier: GPL-2.0-or-later
"""What a configfs driver shows to user space: its attributes, what they answer, its queue.

Two drivers that promise the same have the same surface; `tests/suites/abi` compares them piece by
piece. A surface is hundreds of values; it is read once per process.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blockyard.images.console.script import call
from blockyard.modules import manifest
from blockyard.modules.disk import named_error
from blockyard.modules.driver import Driver

# What is written to each attribute: plain values, the forms that kstrtouint() and kstrtobool()
# know, and what they refuse.
VALUES = (
    "0",
    "1",
    "2",
    "3",
    "512",
    "513",
    "4096",
    "65536",
    "-1",
    "+1",
    "x",
    "1x",
    "y",
    "on",
    "0x200",
    "010",
    " 1",
    "4294967296",
    "18446744073709551616",
)
SCRIPTS = Path(__file__).with_name("abi.bash")
_DIRECTORY = "by-surface"


@dataclass(frozen=True)
class Surface:
    """What one driver shows."""

    modes: dict[str, str]  # attribute → its permissions, as ls shows them
    defaults: dict[str, str]  # attribute → its value in a new directory
    # attribute → value written → (the errno, 0 when it was taken; what is read afterwards)
    answers: dict[str, dict[str, tuple[int, str]]]
    queue: dict[str, str]  # attribute of the queue → value, of disks made alike
    files: frozenset[str]  # in the disk's folder in sysfs
    parameters: frozenset[str]  # of the module


def in_words(answer: tuple[int, str]) -> str:
    """An answer in words."""
    number, after = answer
    return errno.errorcode.get(number, str(number)) if number else f"takes it as {after!r}"


@contextmanager
def counterpart(driver: Driver) -> Iterator[Driver]:
    """The driver of the same promises in the other language, loaded beside this one.

    Raises LoadFailed when it cannot be.
    """
    other = manifest.load(driver.manifest.counterpart).on(driver.kernel)
    found = Driver(other, driver.kernel, driver.console)
    there = found.loaded()
    found.load()
    try:
        yield found
    finally:
        if not there and not other.built_in(driver.kernel):
            found.unload()


def read(driver: Driver) -> Surface:
    """The surface of a loaded driver that makes its disks in configfs."""
    modes, defaults = _attributes(driver)
    queue, files = _disk(driver)
    return Surface(
        modes=modes,
        defaults=defaults,
        answers=_answers(driver),
        queue=queue,
        files=files,
        parameters=frozenset(
            name.removeprefix("parameter:")
            for name in driver.capabilities
            if name.startswith("parameter:")
        ),
    )


def _in_directory(driver: Driver, function: str, *arguments: str) -> str:
    directory = f"{driver.configfs}/{_DIRECTORY}"
    script = call(SCRIPTS, "in_directory", directory, function, *arguments)
    return driver.console.check(script, timeout_s=60)


def _attributes(driver: Driver) -> tuple[dict[str, str], dict[str, str]]:
    in_words = _in_directory(driver, "attributes")
    lines = [(line.split(" ", 2) + [""])[:3] for line in in_words.splitlines()]
    return {name: mode for name, mode, _ in lines}, {name: value for name, _, value in lines}


def _answers(driver: Driver) -> dict[str, dict[str, tuple[int, str]]]:
    """What becomes of each of VALUES, written one after the other to an attribute.

    Each attribute has a directory of its own, so that only its own values count; but no program is
    started per value: there are hundreds.
    """
    in_words = _in_directory(driver, "answers", f"../{_DIRECTORY}-own", *VALUES)
    answers: dict[str, dict[str, tuple[int, str]]] = {}
    for line in in_words.splitlines():
        attribute, why, after = line.split("|")
        of_it = answers.setdefault(attribute, {})
        of_it[VALUES[len(of_it)]] = (named_error(f"x: {why}") if why else 0, after)
    return answers


def _disk(driver: Driver) -> tuple[dict[str, str], frozenset[str]]:
    """The queue's attributes and the files of a disk that is made of the same on every driver."""
    with driver.disk(size=64, blocksize=4096, irqmode=0) as disk:
        in_words = driver.console.check(call(SCRIPTS, "disk_files", disk.sysfs))
    queue, _, files = in_words.partition("\n\n")
    pairs = (line.partition(" ") for line in queue.splitlines())
    return {name: value for name, _, value in pairs}, frozenset(files.split())
