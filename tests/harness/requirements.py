# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test needs and whether a driver in a guest has it.

    @needs("configfs", "attribute:size", program="fio", symbol="BLK_DEV_ZONED")

Capabilities are those of modules.driver; a program is looked up in the guest, a symbol in the
kernel's configuration. What is missing becomes the reason of a skip. A test that finds out
by itself that something is missing calls `skip`.
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
    """Marks a test (or a module, as `pytestmark`) with what it needs."""
    return pytest.mark.blockyard_needs(*capabilities, program=program, symbol=symbol)


def topology(*topologies: str) -> pytest.MarkDecorator:
    """Marks a test (or a module) to be run on these topologies, each by its name.

    It holds for drivers of hardware; others make their disks themselves, and run it once.
    """
    return pytest.mark.blockyard_topology(*topologies)


def feature(*names: str) -> pytest.MarkDecorator:
    """Says which features of a driver a test (or a module) is about, for the parity table."""
    return pytest.mark.blockyard_feature(*names)


def waits() -> pytest.MarkDecorator:
    """Marks a test (or a module) whose commands may wait for what the kernel ends by itself.

    That is no hang before console.TIME_OUTS_S, where others have hung after BLOCKED_S.
    """
    return pytest.mark.usefixtures("patient_console")


def smoke(test: Callable[..., None]) -> Callable[..., None]:
    """Marks one of the tests that show first whether a driver works: `./inv test` has no others."""
    marked: Callable[..., None] = pytest.mark.blockyard_smoke(test)
    return marked


def features(item: pytest.Item) -> tuple[str, ...]:
    """The features that a test is about: those it names, else the attributes that it needs.

    A test that names neither is about what its file is about.
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
    """pytest's own exception of a skipped test, with the reason as a value."""

    def __init__(self, reason: SkipReason, details: str = "") -> None:
        super().__init__(details or reason.text)
        self.reason = reason


def skip(lacking: Lacking, text: str, what: str = "") -> NoReturn:
    """Skips the test that runs; the arguments are the fields of `outcomes.SkipReason`."""
    raise Skipped(SkipReason(lacking=lacking, what=what, text=text))


def unmet(item: pytest.Item, driver: Driver) -> SkipReason | None:
    """Why the test cannot run on this driver; None when it can."""
    for fixture, capability in _OF_FIXTURES.items():
        if fixture in getattr(item, "fixturenames", ()) and capability not in driver.capabilities:
            return missing_capability(driver, capability)
    # what a whole suite needs is told before what one of its tests does
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
    """The kernel is built without a symbol."""
    text = f"kernel {driver.kernel.info.release} is built without CONFIG_{symbol}"
    return SkipReason(lacking="kernel", what=f"symbol:{symbol}", text=text)


def without_program(program: str) -> SkipReason:
    """The guest does not have a program."""
    text = f"the guest has no program {program}"
    return SkipReason(lacking="guest", what=f"program:{program}", text=text)


def missing_capability(driver: Driver, capability: str) -> SkipReason:
    """The driver does not have a capability, or the kernel keeps it from having it."""
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
        "counterpart": "is no Rust driver with a counterpart in C",
        "configfs": "has no configfs directory: its disks cannot be configured",
        "features": "has no features file",
        "nvme": "is no NVMe driver",
        "persistent": "has no disks that keep their data in this kernel",
    }
    text = f"{driver.name} {lacks[capability]}"
    return SkipReason(lacking="driver", what=capability, text=text)
