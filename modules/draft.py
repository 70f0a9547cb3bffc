# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv init`: a manifest to begin with, from what a module's folder shows (`modules.looks`)."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from blockyard.kernel.host import toml
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.installation import as_typed
from blockyard.modules import folder, looks, manifest
from blockyard.modules.looks import Look
from blockyard.modules.manifest import FILE, Manifest

NVME_CLASS = "0x010802"
SCSI_CLASS = "0x010000"
# Module parameters that a test run sets: a small disk, and of null_blk's kind none at loading.
USUAL = {"size_mib": "64", "nr_devices": "0"}


def text(place: Path) -> str:
    """The manifest of the driver in a folder; raises UsageError when none is seen there."""
    if not place.is_dir():
        raise UsageError(f"there is no folder {place}")
    manifest.name_of(place)
    written = "".join(f"{line}\n" for line in _lines(looks.look(folder.sources(place))))
    toml.decode(written.encode(), Manifest, f"the manifest for {place}")
    return written


def write(place: Path) -> Path:
    """Writes it into the folder; raises UsageError when there is a manifest already."""
    path = place / FILE
    if os.path.lexists(path):
        raise UsageError(
            f"{path} is there already",
            hint="--dry-run prints what would be written; remove the file to have it written",
        )
    data = text(place).encode()
    try:
        # made by us and nobody else: a link of that name is not written through
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise Failure(f"cannot write {path}: {error.strerror}") from None
    return path


def _lines(seen: Look) -> Iterator[str]:
    yield as_typed(
        "# Written by ./inv init from what the sources show: check it, above all [disks]."
    )
    yield f"language = {_string(seen.language)}"
    yield f"modules = {_list(seen.modules)} # in the order they are loaded"
    yield '# counterpart = "NAME" # the driver of the same promises in the other language'
    yield ""
    yield "[requires]"
    yield '# kernel = ">=6.11" # the kernels that it compiles for'
    yield f"symbols = {_list(_symbols(seen))} # have to be y in the kernel"
    yield ""
    yield "[disks]"
    yield from _disks(seen)
    if seen.pci and seen.pci_driver and not _by_class(seen):
        yield ""
        yield "[bind]"
        yield 'bus = "pci"'
        yield f"driver = {_string(seen.pci_driver)} # its folder below /sys/bus/pci/drivers"
        yield f"devices = {_list(seen.pci)} # vendor:device; 0x1b36:0x0010 is QEMU's NVMe"
        yield '# competitors = ["nvme"] # modules whose drivers match the same devices'
        yield "# driver_override = true # devices can be had from one that stays loaded"


def _by_class(seen: Look) -> bool:
    """Whether its disks are best found by the class of their PCI functions."""
    return seen.block and bool(seen.pci_driver) and (seen.nvme or not seen.pci)


def _symbols(seen: Look) -> list[str]:
    wanted = {
        "RUST": seen.language == "Rust",
        "BLOCK": seen.block,
        "PCI": bool(seen.pci_driver),
        "MODULE_UNLOAD": True,
    }
    return [name for name, needed in wanted.items() if needed]


def _disks(seen: Look) -> Iterator[str]:
    if not seen.block:
        yield 'kind = "none" # no call that makes a disk was seen'
        yield '# For one that makes disks: kind = "module" and disks = ["NAME"], or "configfs"'
        yield '# and path, or "pci" and class; modules/*.toml and modules/examples have each kind.'
        yield from _parameters(seen)
    elif seen.configfs:
        found = seen.configfs != "?"
        yield 'kind = "configfs" # disks are made by directories below path'
        yield f"path = {_string('/sys/kernel/config/' + (seen.configfs if found else 'NAME'))}" + (
            "" if found else " # its name was not seen: correct it"
        )
        yield '# persistent = { NAME = "1" } # attributes of a disk that keeps its data'
        yield from _parameters(seen)
    elif _by_class(seen):
        yield 'kind = "pci" # disks are of the PCI functions of this class'
        yield f"class = {_string(NVME_CLASS if seen.nvme else SCSI_CLASS)} # as sysfs shows it"
        yield from _parameters(seen)
    else:
        yield 'kind = "module" # they are there as soon as the module is loaded, and gone with it'
        if seen.disks:
            yield f"disks = {_list(seen.disks)}"
        else:
            yield f"disks = {_list([seen.modules[-1] + '0'])} # no name was seen: correct it"
        yield from _parameters(seen)
        if seen.pins:
            yield "holds_module_ref = true # unloading is refused (EBUSY) while a disk is open"
        else:
            yield "holds_module_ref = false # true: an open disk makes unloading fail with EBUSY"
        yield "# persistent = true # what is written can be read back"


def _parameters(seen: Look) -> Iterator[str]:
    known = {name: value for name, value in USUAL.items() if name in seen.parameters}
    if known:
        words = ", ".join(f"{name} = {_string(value)}" for name, value in known.items())
        yield f"parameters = {{ {words} }} # module parameters to load with"
    else:
        yield '# parameters = { NAME = "1" } # module parameters to load with'
    if others := [name for name in seen.parameters if name not in known]:
        yield f"# its {'other ' * bool(known)}parameters: {', '.join(others)}"


def _string(value: str) -> str:
    return json.dumps(value)


def _list(values: tuple[str, ...] | list[str]) -> str:
    return f"[{', '.join(map(_string, values))}]"
