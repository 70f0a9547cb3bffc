# SPDX-License-Identifier: GPL-2.0-or-later
"""The public API's `boot` and `Guest`: from a kernel's name to a guest, in one call.

Kernel, tool root and guest root are built if the cache does not have them, as by ``./inv boot``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.ci.run import boot_env
from blockyard.images.boot import boot as boot_machine
from blockyard.images.hardware import topologies
from blockyard.images.log.splats import Splat, find
from blockyard.images.machine import qemu_features
from blockyard.images.machine.vm_config import start_named
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan
from blockyard.modules.driver import Driver
from blockyard.modules.manifest import Pci
from blockyard.tests.lib import nvme

if TYPE_CHECKING:
    from blockyard.images.console.console import Console
    from blockyard.images.machine.machine import Machine
    from blockyard.kernel.artifact import Kernel
    from blockyard.modules.manifest import Manifest


@dataclass(frozen=True)
class Guest:
    """A guest that has booted and answers. It ends with the `boot` block that gave it."""

    machine: Machine  # QEMU: monitor, clock, files
    kernel: Kernel  # what was booted: release, configuration, drivers
    drivers: Sequence[Manifest] = ()  # outside the kernel tree: those of boot's `modules`

    @property
    def console(self) -> Console:
        """The serial console: `check` returns a command's output, `run` also its exit code."""
        return self.machine.serial

    @property
    def ssh(self) -> Console:
        """The ssh console. Raises Failure if `boot` was called without ``ssh=True``."""
        return self.machine.console("ssh")

    @property
    def log(self) -> str:
        """The kernel log so far."""
        return self.machine.log.text()

    def wait_for_log(self, text: str, timeout_s: float = 10.0) -> bool:
        """Whether a line with `text` stands in the kernel log, or comes within the time.

        timeout_s: seconds of a quick guest; stretched as all deadlines are.
        """
        here = self.machine
        limit_s = timeout_s * here.scale
        return here.log.wait_for(text, 0, limit_s, here.watch, here.time) is not None

    def splats(self) -> list[Splat]:
        """The kernel's complaints so far: warnings, oopses, lockdep, KASAN and the like."""
        log = self.machine.log
        return find(log.unrequested(0, log.size))

    def load(self, name: str) -> Driver:
        """Loads a driver and waits for its disks.

        name: one that has a manifest in Blockyard, or one of boot's `modules`. Raises UsageError
        for an unknown name, Failure if this kernel does not have the driver, and LoadFailed with
        the kernel log's last lines if it does not load.
        """
        own = {driver.name: driver for driver in self.drivers}
        found = (own[name] if name in own else manifest.load(name)).on(self.kernel)
        if missing := found.missing_from(self.kernel):
            raise Failure(missing)
        driver = Driver(found, self.kernel, self.console)
        driver.load()
        if isinstance(found.disks, Pci):  # namespaces are found one after the other
            settled = nvme.settle_script(self.machine.setup.topology)
            self.console.check(settled, nvme.APPEAR_S * 2)
        return driver


@contextlib.contextmanager
def boot(
    kernel: str | KernelSpec = "7.3",
    *,
    topology: str = "default",
    variant: str = "plain",
    modules: Sequence[str | Path] = (),
    ssh: bool = False,
    start: str = "boot",
    accel: str = "auto",
) -> Iterator[Guest]:
    """Boots a kernel; the block gets the guest, which ends with the block.

    kernel: a name (``./inv kernel.list``), a source directory, REPOSITORY#REF or a tarball; or a
    `KernelSpec`, which also takes fragments and patch series. topology: the guest's hardware, by
    name or as the path of a file. variant: of a kernel's name, such as ``kasan``. modules: folders
    of drivers outside the kernel tree; they are built and can be loaded by name. ssh: a second
    console. start: ``boot``, ``snapshot`` or the quicker of the two, see ``./inv boot --help``.
    accel: ``auto``, ``kvm`` or ``tcg``.

    Raises UsageError for input that is not understood, Failure if something cannot be built or
    fetched, GuestError (GuestPanicked, BootTimeout, ...) if the guest does not come up or dies
    within the block. The logs of a guest that failed are kept in the cache, below ``guests/``.
    """
    if isinstance(kernel, KernelSpec):
        if modules or variant != KernelSpec.variant:
            raise UsageError("a KernelSpec has the variant and the modules of the kernel itself")
        spec = kernel.checked()
    else:
        folders = tuple(Path(folder).absolute() for folder in modules)
        spec = KernelSpec(kernel, variant=variant, modules=folders).checked()
    hardware = topologies.load(topology)
    start_kind = start_named(start)
    drivers = plan.out_of_tree(spec)
    env = boot_env.ready(spec, accel)
    if lacking := qemu_features.missing_feature(hardware, env.tools):
        raise Failure(lacking)
    with boot_env.guest_directory() as folder:
        config = env.setup(folder, topology=hardware, ssh=ssh, start=start_kind)
        with boot_machine(config) as machine:
            yield Guest(machine, env.kernel, drivers)
