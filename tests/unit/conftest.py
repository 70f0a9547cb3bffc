# SPDX-License-Identifier: GPL-2.0-or-later
"""What the unit tests share: a cache and settings of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel.host import durable, environment, store
from blockyard.kernel.host.settings import settings


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No unit test sees or changes the settings, the cache or the results of the user."""
    for name in list(os.environ):
        if name.startswith("BLOCKYARD_"):
            monkeypatch.delenv(name)
    for name in environment.OURS:  # a run in an earlier test has set them for its children
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("BLOCKYARD_CACHE", str(folder / "cache"))
    monkeypatch.setenv("BLOCKYARD_RESULTS", str(folder / "results"))
    return folder


@pytest.fixture(autouse=True)
def fresh_settings(home: Path) -> Iterator[None]:
    """The settings are read anew, and forgotten with the test's environment and its cache."""
    settings.cache_clear()
    yield
    settings.cache_clear()
    store.forget()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests write need not outlive a power cut."""
    monkeypatch.setattr(durable, "flush", lambda _: None)


@pytest.fixture
def cache(home: Path) -> Path:
    """The cache of this test; not made yet."""
    return home / "cache"
