# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out from a driver's sources what its manifest should contain.

Sources are searched for calls and macros that every driver of a kind has. Nothing is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel.host.errors import UsageError
from blockyard.modules import dkms, makefiles
from blockyard.modules.folder import MAKEFILES, Sources

BLOCK = re.compile(r"\b(?:blk_(?:mq_)?alloc_disk|(?:device_)?add_disk|GenDiskBuilder)\b")
_CONFIGFS = re.compile(r"\bconfigfs_register_subsystem\b|\bconfigfs::Subsystem\b")
_SUBSYSTEM = re.compile(
    r'\.ci_name(?:buf)?\s*=\s*"([\w-]+)"|configfs::Subsystem::new\(\s*c"([\w-]+)"'
)
_PCI = re.compile(r"\b(?:pci_register_driver|module_pci_driver|module_pci_driver!|pci::Driver)\b")
_DEVICE = re.compile(r"\bPCI_(?:DEVICE|VDEVICE)\(\s*(\w+)\s*,\s*(\w+)\s*\)")
_RUST_DEVICE = re.compile(r"\bDeviceId::from_id\(\s*(?:\w{1,40}::){0,6}(\w{1,64})\s*,\s*(\w+)\s*\)")
_CLASS = re.compile(r"\bPCI_CLASS_STORAGE_EXPRESS\b|\bSTORAGE_NVM_EXPRESS\b")
_PCI_NAME = re.compile(r'struct pci_driver\s+\w+\s*=\s*\{[^}]{0,300}?\.name\s*=\s*"([\w-]+)"')
_DISK_NAME = re.compile(
    r'(?:disk_name|DISK_NAME_LEN)\b[^;"]{0,80}"([\w%{}-]+)"'
    r'|\.build\([^;"]{0,40}fmt!\(\s*"([\w{}-]+)"'
)
_PARAMETER = re.compile(r"\bmodule_param(?:_named|_call|_cb)?\(\s*(\w+)")
_RUST_MODULE = re.compile(r"\bmodule(?:_\w+)?!\s*\{")
_RUST_PARAMETER = re.compile(r"^[ \t]*(\w+):[ \t]*[iu](?:8|16|32|64)\s*\{", re.MULTILINE)
_OWNER = re.compile(r"\.owner\s*=\s*THIS_MODULE")
_LICENSE = re.compile(r"\bMODULE_LICENSE\s*\(")
_COMMENT = re.compile(r"/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)|//[^\n]*")
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,8}\Z")
VENDORS = {"PCI_VENDOR_ID_REDHAT": "0x1b36", "REDHAT": "0x1b36", "PCI_VENDOR_ID_INTEL": "0x8086"}


@dataclass(frozen=True)
class Look:
    """Facts about a driver, from its sources."""

    language: str  # "C" or "Rust"
    modules: tuple[str, ...]
    block: bool  # it makes disks
    configfs: str  # its directory below /sys/kernel/config; "?": unknown name; empty: none
    disks: tuple[str, ...]  # names of disks that are in the sources
    pci: tuple[str, ...]  # vendor:device of its table
    pci_driver: str  # the driver's name on the bus; empty: not a PCI driver
    nvme: bool  # it matches the class of NVMe controllers
    parameters: tuple[str, ...]  # names of module parameters
    holds_module_ref: bool  # an open disk keeps the module loaded


def look(sources: Sources) -> Look:
    """The facts about a module; raises UsageError when its makefiles build no module."""
    package = dkms.read(sources.folder)
    texts = sources.makefiles()
    code = {name: _COMMENT.sub(" ", text) for name, text in sources.texts((".c", ".h", ".rs"))}
    modules = _modules(sources.folder, package.modules if package else (), texts, code)
    all_code = "\n".join(code.values())
    rust = {name: text for name, text in code.items() if name.endswith(".rs")}
    c = "\n".join(text for name, text in code.items() if not name.endswith(".rs"))
    is_rust = not _LICENSE.search(c) and any(map(_RUST_MODULE.search, rust.values()))
    block = bool(BLOCK.search(all_code))
    is_pci = bool(_PCI.search(all_code))
    name = _PCI_NAME.search(c)
    return Look(
        language="Rust" if is_rust else "C",
        modules=modules,
        block=block,
        configfs=_configfs(all_code) if block else "",
        disks=tuple(dict.fromkeys(_disks(code.values()))),
        pci=tuple(dict.fromkeys(_devices(all_code))),
        pci_driver=(name[1] if name else modules[-1]) if is_pci else "",
        nvme=bool(_CLASS.search(all_code)),
        parameters=tuple(dict.fromkeys([*_PARAMETER.findall(c), *_rust_parameters(rust)])),
        holds_module_ref=bool(_OWNER.search(c)),
    )


def _modules(
    folder: Path, built: Iterable[str], texts: Mapping[str, str], code: Mapping[str, str]
) -> tuple[str, ...]:
    """The modules in the order of loading: those of dkms.conf, else of the makefiles."""
    lines = [line for text in texts.values() for line in makefiles.objects(text)]
    listed = dict.fromkeys(name.rpartition("/")[2] for line in lines for name in line.modules)
    if not texts:
        names = [Path(name).stem for name in code if "/" not in name]
        raise UsageError(
            f"{folder} has no {' and no '.join(MAKEFILES)}: make does not know what to build",
            hint=f"write a Kbuild of one line: obj-m := {names[0] if names else 'NAME'}.o",
        )
    # names such as @name@ are placeholders in a dkms.conf that is a template
    names = [name for name in built if re.fullmatch(r"[\w-]+", name)] or list(listed)
    if not names:
        raise UsageError(
            f"no makefile in {folder} has a line that builds a module",
            hint="write one: obj-m := NAME.o",
        )
    return tuple(names)


def _configfs(code: str) -> str:
    if not _CONFIGFS.search(code):
        return ""
    match = _SUBSYSTEM.search(code)
    return (match[1] or match[2]) if match else "?"


def _disks(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for c, rust in _DISK_NAME.findall(text):
            name = re.sub(r"%\w|\{\w*\}", "0", c or rust)
            if re.fullmatch(r"[A-Za-z][\w-]*", name):
                yield name


def _devices(code: str) -> Iterable[str]:
    for vendor, device in [*_DEVICE.findall(code), *_RUST_DEVICE.findall(code)]:
        for name in (vendor, f"PCI_VENDOR_ID_{vendor}"):
            vendor = VENDORS.get(name, vendor)
        numbers = [_number(code, word) for word in (vendor, device)]
        if all(numbers):
            yield ":".join(numbers)


def _number(code: str, word: str) -> str:
    """A PCI id as sysfs shows it. word: a number or a constant of the sources; empty if unknown."""
    if not _NUMBER.match(word):
        name = re.escape(word)
        c = rf"^[ \t]*#[ \t]*define[ \t]+{name}[ \t]+(0x[0-9a-fA-F]{{1,8}})"
        rust = rf"\bconst {name}: u\d+ = (0x[0-9a-fA-F]{{1,8}})"
        named = re.search(c, code, re.MULTILINE) or re.search(rust, code)
        word = named[1] if named else ""
    return f"0x{int(word, 16):04x}" if word and int(word, 16) <= 0xFFFF else ""


def _rust_parameters(rust: Mapping[str, str]) -> Iterable[str]:
    for text in rust.values():
        if (start := text.find("params: {")) >= 0 and _RUST_MODULE.search(text):
            yield from _RUST_PARAMETER.findall(text[start:].partition("\n}")[0])
