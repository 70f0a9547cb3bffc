# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv init`: drafts a manifest from the sources of a module (`modules.looks`)."""

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
# Values of module parameters for tests: a small disk, and no disk at load time (null_blk).
USUAL = {"size_mib": "64", "nr_devices": "0"}


def text(directory: Path) -> str:
    """The draft for the driver in a folder; raises UsageError when it has no module."""
    if not directory.is_dir():
        raise UsageError(f"no such folder: {directory}")
    manifest.name_of(directory)
    draft = "".join(f"{line}\n" for line in _lines(looks.look(folder.sources(directory))))
    toml.decode(draft.encode(), Manifest, f"the manifest for {directory}")
    return draft


def write(directory: Path) -> Path:
    """Writes the draft into the folder; raises UsageError when it already has a manifest."""
    path = directory / FILE
    if os.path.lexists(path):
        raise UsageError(
            f"{path} already exists",
            hint="remove it to have a new one written, or print a draft with --dry-run",
        )
    data = text(directory).encode()
    try:
        # O_EXCL and O_NOFOLLOW: never write through a link of that name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise Failure(f"cannot write {path}: {error.strerror}") from None
    return path


def _lines(seen: Look) -> Iterator[str]:
    yield as_typed("# Written by ./inv init from the sources. Check it, especially [disks].")
    yield f"language = {_string(seen.language)}"
    yield f"modules = {_list(seen.modules)} # in the order they are loaded"
    yield '# counterpart = "NAME" # the driver with the same function in the other language'
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
        yield "# driver_override = true # take the devices from drivers that stay loaded"


def _by_class(seen: Look) -> bool:
    """Whether the manifest should find disks by the class of their PCI functions."""
    return seen.block and bool(seen.pci_driver) and (seen.nvme or not seen.pci)


def _symbols(seen: Look) -> list[str]:
    symbols = {
        "RUST": seen.language == "Rust",
        "BLOCK": seen.block,
        "PCI": bool(seen.pci_driver),
        "MODULE_UNLOAD": True,
    }
    return [name for name, needed in symbols.items() if needed]


def _disks(seen: Look) -> Iterator[str]:
    if not seen.block:
        yield 'kind = "none" # the sources make no disk'
        yield '# For a driver with disks: kind = "module" and disks = ["NAME"], or "configfs" and'
        yield '# path, or "pci" and class; see modules/drivers/*.toml and modules/examples.'
        yield from _parameters(seen)
    elif seen.configfs:
        known = seen.configfs != "?"
        yield 'kind = "configfs" # disks are made by directories below path'
        yield f"path = {_string('/sys/kernel/config/' + (seen.configfs if known else 'NAME'))}" + (
            "" if known else " # name not found in the sources: correct it"
        )
        yield '# persistent = { NAME = "1" } # attributes of a disk that keeps its data'
        yield from _parameters(seen)
    elif _by_class(seen):
        yield 'kind = "pci" # disks of PCI functions of this class'
        yield f"class = {_string(NVME_CLASS if seen.nvme else SCSI_CLASS)} # as sysfs shows it"
        yield from _parameters(seen)
    else:
        yield 'kind = "module" # disks exist while the module is loaded'
        if seen.disks:
            yield f"disks = {_list(seen.disks)}"
        else:
            name = seen.modules[-1] + "0"
            yield f"disks = {_list([name])} # name not found in the sources: correct it"
        yield from _parameters(seen)
        if seen.holds_module_ref:
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
