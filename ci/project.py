# SPDX-License-Identifier: GPL-2.0-or-later
"""What a driver's repository says is to be tested, and on what (docs/configuration.md).

    [tool.blockyard]               # in pyproject.toml; in blockyard.toml without this line
    kernels = ["7.3", "6.18"]
    modules = ["."]

Options of the command line win over the file, key by key. `blockyard test` makes one run for each
kernel, variant and topology; pytest, whose runs have one kernel, takes the first of each.
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
    """The table. Relative paths in it are those of the file's folder; an empty key is not set."""

    kernels: tuple[str, ...] = ()  # as --kernel
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
    """What one run tests on. Empty: the default."""

    kernel: str
    variant: str
    topology: str


def cells(project: Project, kernel: str = "", variant: str = "", topology: str = "") -> list[Cell]:
    """All combinations, those of the first kernel first; an option replaces its list."""
    lists = (
        (kernel,) if kernel else project.kernels or ("",),
        (variant,) if variant else project.variants or ("",),
        (topology,) if topology else project.topologies or ("",),
    )
    return [Cell(*values) for values in itertools.product(*lists)]


def find(start: Path) -> Project | None:
    """The project that a folder belongs to; None without a file (project_file.find).

    Raises UsageError, which names the file, for one that says what it may not.
    """
    path = project_file.find(start)
    return read(path) if path else None


def read(path: Path) -> Project:
    """The table in a file; see `find`."""
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
    for name in ("kernels", "topologies"):  # names, unless they begin like paths
        yield (
            name,
            tuple(
                str(folder / value) if value.startswith(("./", "../")) else value
                for value in getattr(project, name)
            ),
        )
