# SPDX-License-Identifier: GPL-2.0-or-later
"""Blockyard: build kernels with block drivers, boot them in QEMU, test the drivers.

This is the public API; docs/api.md has examples.

    import blockyard

    with blockyard.boot("7.3") as guest:
        print(guest.console.check("uname -r"))

What is listed in ``__all__`` stays compatible within a major version; modules below may change.
Names are imported when they are first used, so that ``import blockyard`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.api import Guest, boot
    from blockyard.images.console.console import Console
    from blockyard.images.console.result import Result
    from blockyard.images.errors import (
        CommandFailed,
        CommandHung,
        CommandTimedOut,
        GuestError,
        GuestPanicked,
    )
    from blockyard.images.log.splats import Splat
    from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
    from blockyard.kernel.spec import KernelSpec
    from blockyard.modules.disk import Disk
    from blockyard.modules.driver import CreateFailed, Driver, LoadFailed
    from blockyard.tests.harness.requirements import feature, needs, smoke, topology, waits

__version__: str

__all__ = [
    "BlockyardError",
    "CommandFailed",
    "CommandHung",
    "CommandTimedOut",
    "Console",
    "CreateFailed",
    "Disk",
    "Driver",
    "Failure",
    "Guest",
    "GuestError",
    "GuestPanicked",
    "KernelSpec",
    "LoadFailed",
    "Result",
    "Splat",
    "UsageError",
    "boot",
    "feature",
    "needs",
    "smoke",
    "topology",
    "waits",
]

_MODULES = {
    "blockyard.api": ("Guest", "boot"),
    "blockyard.images.console.console": ("Console",),
    "blockyard.images.console.result": ("Result",),
    "blockyard.images.errors": (
        "CommandFailed",
        "CommandHung",
        "CommandTimedOut",
        "GuestError",
        "GuestPanicked",
    ),
    "blockyard.images.log.splats": ("Splat",),
    "blockyard.kernel.host.errors": ("BlockyardError", "Failure", "UsageError"),
    "blockyard.kernel.spec": ("KernelSpec",),
    "blockyard.modules.disk": ("Disk",),
    "blockyard.modules.driver": ("CreateFailed", "Driver", "LoadFailed"),
    "blockyard.tests.harness.requirements": ("feature", "needs", "smoke", "topology", "waits"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """A public name, imported now."""
    if name == "__version__":
        from blockyard.kernel.host.version import VERSION

        return VERSION
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, too, for completion."""
    return sorted({*globals(), *__all__})
