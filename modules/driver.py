# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver in a running guest: loading it, what it can do, making disks with it.

What it can do is found by probing the guest. A test asks for capabilities by name:

``module``              built as a module that can be loaded and unloaded
``parameters``          its module parameters say how large its disks are (`size_mib`)
``pins``                an open disk keeps its module from being unloaded
``disk``                it makes disks
``counterpart``         it is written in Rust, and there is a C driver of the same promises
``bind``                its manifest says which devices it binds to
``configfs``            disks are made by configfs directories
``features``            it lists its attributes in a `features` file
``attribute:<name>``    a configfs disk has that attribute
``parameter:<name>``    the module has that parameter
``nvme``                an NVMe controller that nvme-cli can talk to
``store``               a disk can keep the data written to it
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from blockyard.images.console.console import TIME_OUTS_S, Console
from blockyard.images.console.script import call, with_functions, words
from blockyard.images.errors import GuestError
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host.errors import Failure
from blockyard.modules.binding import Binding
from blockyard.modules.disk import Disk, named_error
from blockyard.modules.manifest import Configfs, Manifest, NoDisks, Pci, StaticDisks

SCRIPTS = Path(__file__).with_name("driver.bash")
PREFIX = "by"  # of the configfs directories that are ours
SIZE_MIB = 64  # of a disk that no test asked a size for
APPEAR_S = 10.0  # of the guest's; a disk is there within this
LOG_LINES = 15  # of the kernel log, when a driver does not load


class LoadFailed(Failure):
    """A module could not be loaded; the message quotes the kernel log."""

    kernel_log = ""  # what the kernel complained about meanwhile


class NoDisk(LoadFailed):
    """The modules are loaded and no disk came; the message quotes the kernel log."""


class CreateFailed(Failure):
    """A disk could not be made. `errno`: what the kernel said, -1 when it is not known."""

    def __init__(self, what: str, errno: int) -> None:
        super().__init__(what)
        self.errno = errno


@dataclass
class Driver:
    """One driver, over one console of one guest."""

    manifest: Manifest
    kernel: Kernel
    console: Console
    _made: int = field(default=0)
    _programs: dict[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As in its manifest."""
        return self.manifest.name

    @property
    def configfs(self) -> str:
        """The configfs directory that disks are made in; empty when there is none."""
        disks = self.manifest.disks
        return disks.path if isinstance(disks, Configfs) else ""

    @property
    def binding(self) -> Binding | None:
        """The devices that its manifest says it binds to."""
        bind = self.manifest.bind
        return Binding(bind, self.console) if bind else None

    def load(self) -> None:
        """Loads the modules (nothing to do for a built-in driver) and waits for PCI disks.

        Raises LoadFailed with the kernel log's lines.
        """
        disks, binding = self.manifest.disks, self.binding
        lines = binding.take() if binding else []
        lines += [] if self.manifest.built_in(self.kernel) else self._modprobe()
        lines += [binding.probe()] if binding else []
        if isinstance(disks, Configfs):
            # where configfs is a module itself, it comes with the driver
            lines.append(words("mount_configfs", disks.path))
        script = with_functions(SCRIPTS, "\n".join(["set -e", *lines]))
        result = self.console.run(script, timeout_s=60)
        if result.exit_code:
            log = self.console.run(f"dmesg | tail -n {LOG_LINES}").output
            raise LoadFailed(f"cannot load {self.name}: {result.output}\n{log}")
        if not isinstance(disks, (Configfs, NoDisks)):
            self.wait_for_disks()

    def _modprobe(self) -> list[str]:
        parameters = [f"{name}={value}" for name, value in self.manifest.disks.parameters.items()]
        *before, last = self.manifest.modules
        lines = [words("modprobe", "--", module) for module in before]
        return [*lines, words("modprobe", "--", last, *parameters)]

    def unload(self) -> None:
        """Unloads the modules; CommandFailed when one is in use."""
        modules = " ".join(reversed(self.manifest.modules))
        script = f"modprobe --remove -- {modules}"
        if self.binding:
            script = with_functions(SCRIPTS, f"{script} || exit\n{self.binding.release()}")
        self.console.check(script, timeout_s=60, blocked_s=TIME_OUTS_S)

    def loaded(self) -> bool:
        """Whether all modules are in the kernel now."""
        tests = " && ".join(f"test -d /sys/module/{name}" for name in self.manifest.modules)
        return self.console.run(tests).exit_code == 0

    def disks(self) -> list[Disk]:
        """The disks that are there without being made: of PCI functions, or of a loaded module."""
        disks = self.manifest.disks
        if isinstance(disks, StaticDisks):
            script = call(SCRIPTS, "there", *disks.disks)
        elif isinstance(disks, Pci):
            script = call(SCRIPTS, "pci_disks", disks.class_code)
        else:
            return []
        return [Disk(name, self.console) for name in self.console.check(script).split()]

    def wait_for_disks(self) -> None:
        """Probing is asynchronous: the disks come after modprobe has returned.

        Raises NoDisk when none does.
        """
        disks = self.manifest.disks
        names = disks.disks if isinstance(disks, StaticDisks) else ("nvme*",)
        script = call(SCRIPTS, "wait_for_disk", int(APPEAR_S * 1e6), LOG_LINES, *names)
        result = self.console.run(script, timeout_s=APPEAR_S * 2)
        if result.exit_code:
            told = f"{self.name}: no disk appeared within {APPEAR_S:.0f} s; the kernel's last lines"
            raise NoDisk(f"{told}:\n{result.output}".rstrip())

    @contextmanager
    def disk(self, **attributes: object) -> Iterator[Disk]:
        """A disk for the time of the block.

        A configfs driver makes one with these attributes (written in this order), another one
        gives its first and takes no attributes. Raises CreateFailed when the kernel refuses or the
        driver has no disk.
        """
        if not self.configfs:
            disks = self.disks()
            if not disks:
                raise CreateFailed(f"{self.name} has no disk", errno.ENODEV)
            yield disks[0]
            return
        disk = self.create({name: str(value) for name, value in attributes.items()})
        try:
            yield disk
        except GuestError:  # nothing is cleaned up in a guest that is given up: it may hang
            raise
        except BaseException:
            self.remove(disk)
            raise
        self.remove(disk)

    def create(self, attributes: Mapping[str, str]) -> Disk:
        """Makes and powers a configfs disk; see `disk`."""
        self._made += 1
        directory = f"{self.configfs}/{PREFIX}{self._made}"
        wanted = {"size": str(SIZE_MIB), **attributes}
        if "attribute:size" not in self.capabilities:
            wanted.pop("size")
        pairs = [word for pair in {**wanted, "power": "1"}.items() for word in pair]
        script = call(SCRIPTS, "create_disk", directory, *pairs)
        result = self.console.run(script)
        lines = result.output.splitlines()
        if result.exit_code:
            lines = [line for line in lines if not line.startswith("attribute ")]
            number = named_error("\n".join(lines))
            raise CreateFailed(f"{self.name} refused a disk with {wanted}: {result.output}", number)
        return Disk(lines[-1].removeprefix("disk "), self.console, directory)

    def remove(self, disk: Disk) -> None:
        """Powers a configfs disk off and removes it."""
        self.console.check(f"rmdir -- {disk.directory}", timeout_s=60, blocked_s=TIME_OUTS_S)

    def has_program(self, name: str) -> bool:
        """Whether the guest has a program; asked once."""
        if name not in self._programs:
            self._programs[name] = not self.console.run(f"command -v -- {name}").exit_code
        return self._programs[name]

    @cached_property
    def capabilities(self) -> frozenset[str]:
        """What this driver can do in this kernel (see the module's text)."""
        disks = self.manifest.disks
        found = set()
        if self.manifest.unloads and not self.manifest.built_in(self.kernel):
            found.add("module")
        if not isinstance(disks, NoDisks):
            found.add("disk")
        if isinstance(disks, Configfs):
            found |= self._configfs_capabilities(disks)
        elif isinstance(disks, StaticDisks):
            found |= {"persistent"} if disks.persistent else set()
            found |= {"holds_module_ref"} if disks.holds_module_ref else set()
        elif self.disks():
            found |= {"nvme", "persistent"}
        if "size_mib" in disks.parameters:
            found.add("parameters")
        folders = " ".join(f"/sys/module/{name}/parameters" for name in self.manifest.modules)
        names = self.console.run(f"ls {folders} 2> /dev/null").output.split()
        found |= {f"parameter:{name}" for name in names if not name.endswith(":")}
        if self.manifest.bind:
            found.add("bind")
        if self.manifest.language == "Rust" and self.manifest.counterpart:
            found.add("counterpart")
        return frozenset(found)

    def _configfs_capabilities(self, disks: Configfs) -> set[str]:
        script = call(SCRIPTS, "configfs_capabilities", self.configfs, f"{PREFIX}probe")
        found = set(self.console.check(script).split())
        if disks.persistent and {f"attribute:{name}" for name in disks.persistent} <= found:
            found.add("persistent")
        return found

    @property
    def attributes(self) -> frozenset[str]:
        """The attributes of a configfs disk."""
        return frozenset(
            name.removeprefix("attribute:")
            for name in self.capabilities
            if name.startswith("attribute:")
        )

    def store_attributes(self) -> dict[str, str]:
        """The attributes that make a configfs disk keep its data."""
        disks = self.manifest.disks
        return dict(disks.persistent) if isinstance(disks, Configfs) else {}
