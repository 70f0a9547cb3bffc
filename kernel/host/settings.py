# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's settings, from a file and from the environment.

``~/.config/blockyard/config.toml`` has the settings by name; an environment variable
``BLOCKYARD_<NAME>`` overrides the file. All have defaults. The folders follow the XDG Base
Directory Specification: XDG_CONFIG_HOME and XDG_CACHE_HOME are used if they are absolute paths.
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

MOST_GB = 1e6  # larger than any disk; also rejects infinity
MOST_S = 1e8  # three years


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings in force."""

    cache: str  # sources, roots, kernels, images: safe to delete
    results: str  # run records
    mirror: str = ""  # Debian mirror's URL; empty: the host's apt configuration, else the default
    jobs: Annotated[int, msgspec.Meta(ge=1)] = os.cpu_count() or 1  # parallel compile jobs
    # part of the cache for C objects; 0: use no ccache
    ccache_gb: Annotated[float, msgspec.Meta(ge=0, le=MOST_GB)] = 5.0
    cache_gb: Annotated[float, msgspec.Meta(gt=0, le=MOST_GB)] = 40.0  # maximum size of the cache
    # how long a git or web server may send nothing; git servers report progress while they pack
    server_silence_s: Annotated[float, msgspec.Meta(gt=0, le=MOST_S)] = 60.0
    fetch_limit_s: Annotated[float, msgspec.Meta(gt=0, le=MOST_S)] = 7200.0  # of a whole fetch
    # limits for makefiles of trees and modules; 0: the default of kernel/host/limits.py
    build_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=MOST_S)] = 0.0  # of one make
    build_log_mib: Annotated[int, msgspec.Meta(ge=1)] = 256  # output in the log
    build_output_gb: Annotated[float, msgspec.Meta(gt=0, le=MOST_GB)] = 40.0  # written files
    build_memory_gb: Annotated[float, msgspec.Meta(ge=0, le=MOST_GB)] = 0.0
    build_processes: Annotated[int, msgspec.Meta(ge=16)] = 4096

    @property
    def cache_dir(self) -> Path:
        """The folder of the cache, as an absolute path."""
        return user_path(self.cache, "the setting cache")

    @property
    def results_dir(self) -> Path:
        """The folder of run records, as an absolute path."""
        return user_path(self.results, "the setting results")


def user_path(text: str, what: str) -> Path:
    """The absolute path for a path that a user wrote; expands ``~`` and ``~user``.

    what: names it in errors, such as "the setting cache". Raises UsageError for an invalid path.
    """
    if "\0" in text:
        raise UsageError(f"{what}: invalid path {text!r}: it contains a NUL character")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        first = Path(text).parts[0]
        why = f"no such user: {first}" if first != "~" else "the home folder is unknown"
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
            f"{what}: invalid path {os.fsencode(path)!r}: it contains bytes that are not UTF-8",
            hint="rename it, or use a symbolic link with another name",
        ) from None
    return path


def config_directory() -> Path:
    """The folder of the user's settings and kernels: ``~/.config/blockyard``."""
    folder = platformdirs.user_config_path("blockyard")
    return user_path(str(folder), "the folder of the settings")


@cache
def settings() -> Settings:
    """The settings, read once per process; raises UsageError for an invalid one."""
    from blockyard.kernel.host import toml

    path = config_directory() / "config.toml"
    values: dict[str, object] = {
        "cache": str(platformdirs.user_cache_path("blockyard")),
        # a checkout has a folder for records; absolute, in case the current folder changes
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
            f"invalid setting: {error}",
            hint=f"settings come from {path} and from BLOCKYARD_* in the environment",
        ) from None
