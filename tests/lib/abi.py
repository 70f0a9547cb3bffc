# SPDX-License-Identifier: GPL-2.0-or-later
"""The surface of a configfs driver for user space: attributes, errors, queue, files, parameters.

`tests/suites/abi` compares the surfaces of a driver and its counterpart. A surface has hundreds of
values and is read once per process.
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

# Values written to each attribute: plain ones, other forms that kstrtouint() and kstrtobool() take,
# and forms that they refuse.
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
    """What one driver shows to user space."""

    modes: dict[str, str]  # attribute → permissions, as ls shows them
    defaults: dict[str, str]  # attribute → its value in a new directory
    # attribute → value written → (errno, 0 if accepted; value read afterwards)
    answers: dict[str, dict[str, tuple[int, str]]]
    queue: dict[
        str, str
    ]  # queue attribute → value, for a disk with the same settings on every driver
    files: frozenset[str]  # in the disk's folder in sysfs
    parameters: frozenset[str]  # of the module


def describe(answer: tuple[int, str]) -> str:
    """The name of the errno, or the value read back."""
    number, after = answer
    return errno.errorcode.get(number, str(number)) if number else f"accepts it as {after!r}"


@contextmanager
def counterpart(driver: Driver) -> Iterator[Driver]:
    """Load the counterpart of the driver, such as null_blk for rnull, for the time of the block.

    Raises LoadFailed.
    """
    definition = manifest.load(driver.manifest.counterpart).on(driver.kernel)
    other = Driver(definition, driver.kernel, driver.console)
    was_loaded = other.loaded()
    other.load()
    try:
        yield other
    finally:
        if not was_loaded and not definition.built_in(driver.kernel):
            other.unload()


def read(driver: Driver) -> Surface:
    """Read the surface of a loaded driver with configfs disks; takes seconds."""
    modes, defaults = _attributes(driver)
    queue, files = _disk(driver)
    return Surface(
        modes=modes,
        defaults=defaults,
        answers=_answers(driver),
        queue=queue,
        files=files,
        parameters=driver.parameters,
    )


def _in_directory(driver: Driver, function: str, *arguments: str) -> str:
    directory = f"{driver.configfs}/{_DIRECTORY}"
    script = call(SCRIPTS, "in_directory", directory, function, *arguments)
    return driver.console.check(script, timeout_s=60)


def _attributes(driver: Driver) -> tuple[dict[str, str], dict[str, str]]:
    output = _in_directory(driver, "attributes")
    lines = [(line.split(" ", 2) + [""])[:3] for line in output.splitlines()]
    return {name: mode for name, mode, _ in lines}, {name: value for name, _, value in lines}


def _answers(driver: Driver) -> dict[str, dict[str, tuple[int, str]]]:
    """Write VALUES one after the other to each attribute; see Surface.answers."""
    output = _in_directory(driver, "answers", f"../{_DIRECTORY}-values", *VALUES)
    answers: dict[str, dict[str, tuple[int, str]]] = {}
    for line in output.splitlines():
        attribute, why, after = line.split("|")
        by_value = answers.setdefault(attribute, {})
        by_value[VALUES[len(by_value)]] = (named_error(f"x: {why}") if why else 0, after)
    return answers


def _disk(driver: Driver) -> tuple[dict[str, str], frozenset[str]]:
    """Queue attributes and files of a disk with the same settings on every driver."""
    with driver.disk(size=64, blocksize=4096, irqmode=0) as disk:
        output = driver.console.check(call(SCRIPTS, "disk_files", disk.sysfs))
    queue, _, files = output.partition("\n\n")
    pairs = (line.partition(" ") for line in queue.splitlines())
    return {name: value for name, _, value in pairs}, frozenset(files.split())
