# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of all unit tests: a temporary cache, temporary settings and no waiting for the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel.host import durable, environment, store
from blockyard.kernel.host.settings import settings
from blockyard.tests.unit.fake_agent import Connect, connecting


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary home: unit tests do not read or change the user's settings, cache or results."""
    for name in list(os.environ):
        if name.startswith("BLOCKYARD_"):
            monkeypatch.delenv(name)
    for name in environment.OURS:  # set by a run in an earlier test
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("BLOCKYARD_CACHE", str(folder / "cache"))
    monkeypatch.setenv("BLOCKYARD_RESULTS", str(folder / "results"))
    return folder


@pytest.fixture(autouse=True)
def fresh_settings(home: Path) -> Iterator[None]:
    """Reads the settings again for each test, and forgets them and the cache afterwards."""
    settings.cache_clear()
    yield
    settings.cache_clear()
    store.forget()


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips fsync: files of tests need not survive a power cut."""
    monkeypatch.setattr(durable, "flush", lambda _: None)


@pytest.fixture
def cache(home: Path) -> Path:
    """Path of this test's cache; the folder does not exist yet."""
    return home / "cache"


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes consoles of fake agents, after their greeting."""
    with connecting() as connect:
        yield connect
