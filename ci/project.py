# SPDX-License-Identifier: GPL-2.0-or-later
"""The project file of a driver's repository: what is tested, and on what (docs/configuration.md).

    [tool.blockyard]               # in pyproject.toml; in blockyard.toml without this line
    kernels = ["7.3", "6.18"]
    modules = ["."]

Options of the command line override the file, key by key. `blockyard test` makes a run for each
combination of kernel, variant and topology; pytest makes one run, with the first of each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.ci import project_file
from blockyard.kernel.host import toml
from blockyard.kernel.host.errors import UsageError, unknown


class Project(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table, with absolute paths. An empty value stands for a missing key."""

    kernels: tuple[str, ...] = ()  # values of --kernel
    variants: tuple[str, ...] = ()
    topologies: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # folders of drivers outside the kernel tree
    series: tuple[str, ...] = ()  # patch series for the kernel tree
    fragments: tuple[str, ...] = ()  # of Kconfig
    drivers: tuple[str, ...] = ()
    consoles: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()  # which `blockyard test` runs


@dataclass(frozen=True)
class Cell:
    """Kernel, variant and topology of a run; empty: the default."""

    kernel: str
    variant: str
    topology: str


def cells(project: Project, kernel: str = "", variant: str = "", topology: str = "") -> list[Cell]:
    """All combinations, sorted by kernel; an option replaces the list in the file."""
    lists = (
        (kernel,) if kernel else project.kernels or ("",),
        (variant,) if variant else project.variants or ("",),
        (topology,) if topology else project.topologies or ("",),
    )
    return [Cell(*values) for values in itertools.product(*lists)]


def find(start: Path) -> Project | None:
    """The project that a folder belongs to; None without a file (project_file.find).

    Raises UsageError for an invalid file.
    """
    path = project_file.find(start)
    return read(path) if path else None


def read(path: Path) -> Project:
    """The table in a file; raises UsageError for an invalid file."""
    values = toml.read(path, dict[str, object], "the project file")
    where = str(path)
    if path.name == project_file.SHARED:
        tool = values.get("tool")
        table = tool.get("blockyard") if isinstance(tool, dict) else None
        values = table if isinstance(table, dict) else {}
        where = f"{path}: [{project_file.TABLE}]"
    for name in values:
        if name not in Project.__struct_fields__:
            error = unknown("key", name, Project.__struct_fields__)
            raise UsageError(f"{where}: {error.what}", hint=error.hint)
    try:
        project = msgspec.convert(values, Project)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}", hint='expected a list, such as ["7.3"]') from None
    return msgspec.structs.replace(project, **dict(_located(project, path.parent)))


def _located(project: Project, folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in ("modules", "series", "fragments"):
        yield (
            name,
            tuple(str(folder / Path(value).expanduser()) for value in getattr(project, name)),
        )
    for name in ("kernels", "topologies"):  # names, or paths that start with a dot
        yield (
            name,
            tuple(
                str(folder / value) if value.startswith(("./", "../")) else value
                for value in getattr(project, name)
            ),
        )
