# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests: one that many tests share, and fresh ones for tests that break theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ci import prepare
from ci.prepare import Ready
from images.console import Console
from images.machine import Machine, machine
from kernel.choice import Choice

KERNEL = "7.3"

Boot = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture(scope="session")
def ready() -> Ready:
    """The kernel that Blockyard tests by default, built if need be."""
    return prepare.ready(Choice(KERNEL))


@pytest.fixture(scope="session")
def shared_guest(ready: Ready, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A guest with both consoles, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("guest")
    with machine(ready.setup(folder, ssh=True)) as guest:
        yield guest


@pytest.fixture(params=["serial", "ssh"])
def console(request: pytest.FixtureRequest, shared_guest: Machine) -> Console:
    """Each of the shared guest's consoles."""
    return shared_guest.console(request.param)


@pytest.fixture
def boot(ready: Ready, tmp_path: Path) -> Boot:
    """Boots a guest of the test's own; its folder is the test's."""

    def boot(*, ssh: bool = False) -> AbstractContextManager[Machine]:
        return machine(ready.setup(tmp_path / "guest", ssh=ssh))

    return boot
