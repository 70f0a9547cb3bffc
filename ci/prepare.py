# SPDX-License-Identifier: GPL-2.0-or-later
"""From the names that a user types to a kernel, its guest's files and an accelerator.

Names are checked before anything long begins.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from images import accelerator
from images.errors import GuestError
from images.files import GuestFiles, guest_files
from images.machine import Accelerator, Setup, machine
from images.topology import DEFAULT, Topology
from kernel import build, catalog, sources
from kernel.artifact import Kernel
from kernel.catalog import DebianImage
from kernel.host import store
from kernel.host.debian import ToolRoot, tool_root
from kernel.host.errors import UserError, unknown
from kernel.job import Build, base_fragment
from kernel.prebuilt import prebuilt
from kernel.sources import debian
from modules import manifest

CONSOLES = ("serial", "ssh")
GUESTS_KEPT = 20  # folders of guests that failed


@dataclass(frozen=True)
class Ready:
    """What booting takes."""

    kernel: Kernel
    tools: ToolRoot
    files: GuestFiles
    accelerator: Accelerator

    def setup(
        self,
        directory: Path,
        *,
        topology: Topology = DEFAULT,
        ssh: bool = False,
        shell: bool = False,
    ) -> Setup:
        """One guest of it."""
        return Setup(
            kernel=self.kernel,
            files=self.files,
            tools=self.tools,
            accelerator=self.accelerator,
            topology=topology,
            directory=directory,
            ssh=ssh,
            shell=shell,
        )


@contextlib.contextmanager
def guest_directory() -> Iterator[Path]:
    """A folder for a guest that is part of no run; kept, for its logs, when the guest fails."""
    store.remove_old("guests", GUESTS_KEPT)
    folder = Path(tempfile.mkdtemp(prefix="guest-", dir=store.directory("guests")))
    try:
        yield folder
    except GuestError:
        raise
    except BaseException:
        store.remove(folder)
        raise
    store.remove(folder)


def chosen(kind: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated option (all when it is empty), each one known."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if text and not names:
        raise UserError(f"no {kind} in {text!r}")
    return names or tuple(known)


def kernel_job(name: str, tools: ToolRoot) -> Build:
    """The build of a catalog's source kernel with all drivers that have a manifest.

    All of them, so that choosing a driver for a run never asks for another kernel.
    """
    entry = catalog.find(name)
    fragments = [manifest.load(driver).fragment for driver in manifest.names()]
    tree = sources.fetch(name, entry, tools)
    return Build(name, tree, (base_fragment(), *fragments), tools)


def kernel(name: str, tools: ToolRoot) -> Kernel:
    """The kernel of that name, from the cache or made now."""
    entry = catalog.find(name)
    if isinstance(entry, DebianImage):
        return prebuilt(name, debian.image_files(name, entry, tools), tools)
    return build.build(kernel_job(name, tools))


def ready(kernel_name: str, accel: str = "auto") -> Ready:
    """Everything to boot guests of that kernel, made if need be."""
    catalog.find(kernel_name)
    accelerator.check(accel)
    tools = tool_root()
    built = kernel(kernel_name, tools)
    files = guest_files(built, tools)

    def probe(candidate: Accelerator) -> None:
        trial = Ready(built, tools, files, candidate)
        with guest_directory() as folder, machine(trial.setup(folder)) as guest:
            guest.serial.check("true")

    qemu_version = tools.versions["qemu-system-x86"]
    return Ready(built, tools, files, accelerator.choose(accel, qemu_version, probe))
