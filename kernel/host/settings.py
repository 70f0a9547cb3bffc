# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user may set, and where it comes from.

``~/.config/blockyard/config.toml`` holds the settings by name; an environment variable
``BLOCKYARD_<NAME>`` overrides the file. Nothing needs to be set. The folders follow the XDG Base
Directory Specification: XDG_CONFIG_HOME and XDG_CACHE_HOME count if they are absolute paths.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.installation import INSTALLED
from blockyard.kernel.host.installation import PROJECT as PROJECT  # most modules need both

MOST_GB = 1e6  # no disk is larger, and infinity is no number to count with
MOST_S = 1e8  # three years


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings in force."""

    cache: str  # sources, roots, kernels, images: safe to delete
    results: str  # run records
    mirror: str = ""  # Debian mirror's URL; empty: the host's apt configuration, else the default
    jobs: Annotated[int, msgspec.Meta(ge=1)] = os.cpu_count() or 1  # parallel compile jobs
    # of it, C objects; 0: none are kept
    ccache_gb: Annotated[float, msgspec.Meta(ge=0, le=MOST_GB)] = 5.0
    cache_gb: Annotated[float, msgspec.Meta(gt=0, le=MOST_GB)] = 40.0  # what the cache may grow to
    # of a git or web server, before it is given up; a server that packs a kernel says so meanwhile
    server_silence_s: Annotated[float, msgspec.Meta(gt=0, le=MOST_S)] = 60.0
    fetch_limit_s: Annotated[float, msgspec.Meta(gt=0, le=MOST_S)] = 7200.0  # what a fetch may take
    # limits of what runs makefiles of trees and modules; a limit of 0 is ours (kernel/host/limits)
    build_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_S)] = 0.0  # of one make
    build_log_mib: Annotated[int, msgspec.Meta(ge=1)] = 256  # what it prints
    build_output_gb: Annotated[float, msgspec.Meta(gt=0, le=MOST_GB)] = 40.0  # what it writes
    build_memory_gb: Annotated[float, msgspec.Meta(ge=0, le=MOST_GB)] = 0.0
    build_processes: Annotated[int, msgspec.Meta(ge=16)] = 4096

    @property
    def cache_dir(self) -> Path:
        """Where everything that can be made again is kept."""
        return user_path(self.cache, "the setting cache")

    @property
    def results_dir(self) -> Path:
        """Where run records are kept."""
        return user_path(self.results, "the setting results")


def user_path(text: str, what: str) -> Path:
    """An absolute path from what a user wrote; raises UsageError when there is none.

    what: names it in the error, such as "the setting cache". ``~`` and ``~user`` are home folders.
    """
    if "\0" in text:
        raise UsageError(f"{what}: {text!r} has a NUL character in it")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        first = Path(text).parts[0]
        why = f"there is no such user: {first}" if first != "~" else "no home folder is known"
        hint = "set HOME" if first == "~" else ""
        raise UsageError(f"{what}: cannot find {text}: {why}", hint=hint) from None
    except FileNotFoundError:
        raise UsageError(
            f"{what}: cannot find {text}: the current folder was removed",
            hint="cd to a folder that exists",
        ) from None
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{what}: {os.fsencode(path)!r} has bytes in it that are not UTF-8",
            hint="rename it, or name it through a symbolic link",
        ) from None
    return path


def config_directory() -> Path:
    """Where the user's own files are: settings, kernels."""
    folder = platformdirs.user_config_path("blockyard")
    return user_path(str(folder), "the folder of the settings")


@cache
def settings() -> Settings:
    """Reads the settings once per process; raises UsageError on one that is not understood."""
    from blockyard.kernel.host import toml

    path = config_directory() / "config.toml"
    values: dict[str, object] = {
        "cache": str(platformdirs.user_cache_path("blockyard")),
        # a checkout has a folder for them; absolute, for a later change of the current folder
        "results": str(user_path("results", "run records") if INSTALLED else PROJECT / "results"),
    }
    if path.exists():
        values |= toml.read(path, dict[str, object], "the settings in")
    for field in Settings.__struct_fields__:
        if value := os.environ.get(f"BLOCKYARD_{field.upper()}"):
            values[field] = value
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"bad setting: {error}",
            hint=f"settings come from {path} and from BLOCKYARD_* in the environment",
        ) from None
