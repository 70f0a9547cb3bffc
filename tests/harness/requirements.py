# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests require, and whether a driver in a guest meets it.

    @needs("configfs", "attribute:size", program="fio", symbol="BLK_DEV_ZONED")

Capabilities are those of modules.driver. A program is looked up in the guest, a symbol in the
kernel's configuration. A missing requirement is the reason of a skip. A test that detects by itself
that something is missing calls `skip`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from blockyard.modules.driver import Driver
from blockyard.tests.harness.outcomes import Lacking, SkipReason

# What the fixtures of tests/harness/plugin.py need.
_OF_FIXTURES = {"disk": "disk", "data_disk": "persistent"}


def needs(*capabilities: str, program: str = "", symbol: str = "") -> pytest.MarkDecorator:
    """A mark with the requirements of a test, or of a test file as its `pytestmark`."""
    return pytest.mark.blockyard_needs(*capabilities, program=program, symbol=symbol)


def topology(*topologies: str) -> pytest.MarkDecorator:
    """A mark that runs a test (or the tests of a file) on topologies with these names.

    It has no effect for drivers that make their own disks: they run the test once.
    """
    return pytest.mark.blockyard_topology(*topologies)


def feature(*names: str) -> pytest.MarkDecorator:
    """A mark with the driver features that a test (or a file) covers, for the parity table."""
    return pytest.mark.blockyard_feature(*names)


def waits() -> pytest.MarkDecorator:
    """A mark for a test (or a file) whose commands wait until a timeout of the kernel.

    Such a command counts as hung after console.TIME_OUTS_S, others after BLOCKED_S.
    """
    return pytest.mark.usefixtures("patient_console")


def smoke(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a smoke test: `./inv test` runs only these unless --suite or -k says otherwise."""
    marked: Callable[..., None] = pytest.mark.blockyard_smoke(test)
    return marked


def features(item: pytest.Item) -> tuple[str, ...]:
    """The features that a test covers: those of its mark, else the attributes that it needs.

    Without either, the feature is the name of the test's file.
    """
    named = [name for marker in item.iter_markers("blockyard_feature") for name in marker.args]
    needed = [name for marker in item.iter_markers("blockyard_needs") for name in marker.args]
    attributes = [
        name.removeprefix("attribute:") for name in needed if name.startswith("attribute:")
    ]
    values = item.callspec.params if isinstance(item, pytest.Function) else {}
    attributes += [values["attribute"]] if "attribute" in values else []
    return tuple(dict.fromkeys(named or attributes)) or (item.path.stem.removeprefix("test_"),)


class Skipped(pytest.skip.Exception):  # type: ignore[misc,name-defined]  # a class in a variable
    """pytest's exception for a skipped test, with the reason as a value."""

    def __init__(self, reason: SkipReason, details: str = "") -> None:
        super().__init__(details or reason.text)
        self.reason = reason


def skip(lacking: Lacking, text: str, what: str = "") -> NoReturn:
    """Skips the running test; the arguments are the fields of `outcomes.SkipReason`."""
    raise Skipped(SkipReason(lacking=lacking, what=what, text=text))


def unmet(item: pytest.Item, driver: Driver) -> SkipReason | None:
    """The first requirement that the driver does not meet; None when it meets all."""
    for fixture, capability in _OF_FIXTURES.items():
        if fixture in getattr(item, "fixturenames", ()) and capability not in driver.capabilities:
            return missing_capability(driver, capability)
    # requirements of the file come before those of the test
    for marker in reversed(list(item.iter_markers("blockyard_needs"))):
        for capability in marker.args:
            if capability not in driver.capabilities:
                return missing_capability(driver, capability)
        symbol = marker.kwargs.get("symbol", "")
        if symbol and driver.kernel.config.get(symbol, "n") == "n":
            return without_symbol(driver, symbol)
        program = marker.kwargs.get("program", "")
        if program and not driver.has_program(program):
            return without_program(program)
    return None


def without_symbol(driver: Driver, symbol: str) -> SkipReason:
    """The reason to skip for a symbol that is off in the kernel's configuration."""
    text = f"kernel {driver.kernel.info.release} is built without CONFIG_{symbol}"
    return SkipReason(lacking="kernel", what=f"symbol:{symbol}", text=text)


def without_program(program: str) -> SkipReason:
    """The reason to skip for a program that is not installed in the guest."""
    text = f"the guest has no program {program}"
    return SkipReason(lacking="guest", what=f"program:{program}", text=text)


def missing_capability(driver: Driver, capability: str) -> SkipReason:
    """The reason to skip for a capability that the driver, or its build in this kernel, lacks."""
    kind, _, name = capability.partition(":")
    if kind in ("attribute", "parameter"):
        text = f"{driver.name} has no {kind} {name}"
        return SkipReason(lacking="driver", what=capability, text=text)
    if capability == "module" and driver.manifest.built_in(driver.kernel):
        text = f"{driver.name} is built into this kernel"
        return SkipReason(lacking="kernel", what=capability, text=text)
    lacks = {
        "module": "cannot be unloaded",
        "parameters": "has no parameter size_mib",
        "holds_module_ref": "does not promise that an open disk keeps its module",
        "disk": "makes no disks",
        "bind": "names no devices to bind to in its manifest",
        "counterpart": "is not a Rust driver with a counterpart in C",
        "configfs": "has no configfs directory: its disks cannot be configured",
        "features": "has no features file",
        "nvme": "is not an NVMe driver",
        "persistent": "has no disks that keep their data in this kernel",
    }
    text = f"{driver.name} {lacks[capability]}"
    return SkipReason(lacking="driver", what=capability, text=text)
