# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user may set, and where it comes from.

``~/.config/blockyard/config.toml`` holds the settings by name; an environment variable
``BLOCKYARD_<NAME>`` overrides the file. Nothing needs to be set.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from kernel.host.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]


MOST_GB = 1e6  # no disk is larger, and infinity is no number to count with


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings in force."""

    cache: str = "~/.cache/blockyard"  # sources, roots, kernels, images: safe to delete
    results: str = str(PROJECT / "results")  # run records
    mirror: str = ""  # Debian mirror's URL; empty: the host's apt configuration, else the default
    jobs: Annotated[int, msgspec.Meta(ge=1)] = os.cpu_count() or 1  # parallel compile jobs
    # of it, C objects; 0: none are kept
    ccache_gb: Annotated[float, msgspec.Meta(ge=0, le=MOST_GB)] = 5.0
    cache_gb: Annotated[float, msgspec.Meta(gt=0, le=MOST_GB)] = 40.0  # what the cache may grow to

    @property
    def cache_dir(self) -> Path:
        """Where everything that can be made again is kept."""
        return Path(self.cache).expanduser().absolute()

    @property
    def results_dir(self) -> Path:
        """Where run records are kept."""
        return Path(self.results).expanduser().absolute()


def config_directory() -> Path:
    """Where the user's own files are: settings, kernels."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "blockyard"


@cache
def settings() -> Settings:
    """Reads the settings once per process; raises UserError on one that is not understood."""
    from kernel.host import toml

    path = config_directory() / "config.toml"
    values: dict[str, object] = {}
    if path.exists():
        values = toml.read(path, dict[str, object], "the settings in")
    if home := os.environ.get("XDG_CACHE_HOME"):
        values.setdefault("cache", f"{home}/blockyard")
    for field in Settings.__struct_fields__:
        if value := os.environ.get(f"BLOCKYARD_{field.upper()}"):
            values[field] = value
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(
            f"bad setting: {error}",
            hint=f"settings come from {path} and from BLOCKYARD_* in the environment",
        ) from None
