# SPDX-License-Identifier: GPL-2.0-or-later
"""From a kernel's specification to the environment that its guests boot in."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from blockyard.images.boot import boot
from blockyard.images.errors import GuestError
from blockyard.images.files import guest_files
from blockyard.images.machine import accelerator
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.qemu import PACKAGE
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import tool_root
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan

GUESTS_KEPT = 20  # folders of guests that failed


@contextlib.contextmanager
def guest_directory() -> Iterator[Path]:
    """A folder for a guest outside of a run; it is kept for its logs when the guest fails."""
    store.remove_old("guests", GUESTS_KEPT)
    folder = Path(tempfile.mkdtemp(prefix="guest-", dir=store.work_directory("guests")))
    try:
        with store.in_use(folder):
            yield folder
    except GuestError:
        raise
    except BaseException:
        store.remove(folder)
        raise
    store.remove(folder)


def ready(spec: KernelSpec, accel: str = "auto", *, all_modules: bool = True) -> BootEnv:
    """The environment of guests with that kernel; builds what the cache does not have.

    accel: auto, kvm or tcg. all_modules: whether a driver that cannot be built for the kernel is an
    error, see `plan.modules`. Raises UsageError and Failure, as builds do.
    """
    accelerator.check(accel)
    plan.out_of_tree(spec)
    tools = tool_root()
    kernel = plan.kernel(spec, tools)
    modules = plan.modules(spec, kernel, tools, all_=all_modules)
    files = guest_files(kernel, tools, modules)

    def probe(candidate: Accelerator) -> None:
        env = BootEnv(kernel, tools, files, candidate)
        with guest_directory() as folder, boot(env.setup(folder)) as guest:
            guest.serial.check("true")

    qemu_version = tools.versions[PACKAGE]
    return BootEnv(kernel, tools, files, accelerator.choose(accel, qemu_version, probe))
