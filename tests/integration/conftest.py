# SPDX-License-Identifier: GPL-2.0-or-later
"""Real guests: shared ones for tests that leave them as they are, and new ones for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from blockyard.ci.run import boot_env
from blockyard.images.boot import boot as boot_guest
from blockyard.images.console.console import Console
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.spec import KernelSpec

KERNEL = "7.3"

Boot = Callable[..., AbstractContextManager[Machine]]
FaultTable = list[tuple[str, str]]  # fault, outcome

pytest.register_assert_rewrite("blockyard.tests.integration.faults")

_TABLE = pytest.StashKey[FaultTable]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", help="the file to write the faults and outcomes to")


@pytest.fixture(scope="session")
def fault_table(pytestconfig: pytest.Config) -> FaultTable:
    """The faults so far and their outcomes."""
    return pytestconfig.stash.setdefault(_TABLE, [])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--fault-table", None)
    if path and exitstatus == pytest.ExitCode.OK:
        rows = [f"| {title} | {outcome} |" for title, outcome in _table(session)]
        head, _, _ = Path(path).read_text().partition("| fault |")
        lines = ["| fault | outcome |", "| --- | --- |", *rows]
        Path(path).write_text(head + "\n".join(lines) + "\n")


def _table(session: pytest.Session) -> FaultTable:
    return session.config.stash.get(_TABLE, [])


@pytest.fixture(scope="session")
def ready() -> BootEnv:
    """The kernel that Blockyard tests by default, built if necessary."""
    return boot_env.ready(KernelSpec(KERNEL))


@pytest.fixture(scope="session")
def shared_guest(ready: BootEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A guest with both consoles, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("guest")
    with boot_guest(ready.setup(folder, ssh=True)) as guest:
        yield guest


@pytest.fixture(scope="session")
def uart_guest(ready: BootEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A guest whose serial console is a second UART."""
    with boot_guest(ready.setup(tmp_path_factory.mktemp("guest"), serial="uart")) as guest:
        yield guest


@pytest.fixture(scope="session")
def shared_port_guest(
    ready: BootEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A guest whose serial console shares the only UART with the kernel log."""
    with boot_guest(ready.setup(tmp_path_factory.mktemp("guest"), serial="shared")) as guest:
        yield guest


# Each kind of console: the guest's fixture, and the console's name in it.
CONSOLES = {
    "virtio": ("shared_guest", "serial"),
    "ssh": ("shared_guest", "ssh"),
    "uart": ("uart_guest", "serial"),
    "shared-port": ("shared_port_guest", "serial"),
}


@pytest.fixture(params=CONSOLES)
def console(request: pytest.FixtureRequest) -> Console:
    """Each kind of console, in a guest that tests do not change."""
    fixture, name = CONSOLES[request.param]
    guest = request.getfixturevalue(fixture)
    assert isinstance(guest, Machine)
    return guest.console(name)


@pytest.fixture
def much(request: pytest.FixtureRequest) -> int:
    """A number of bytes that is large for the console: a UART transfers them one by one."""
    kind = request.node.callspec.params["console"]
    return 1 << 18 if kind in ("uart", "shared-port") else 1 << 24


@pytest.fixture
def boot(ready: BootEnv, tmp_path: Path) -> Boot:
    """Boots a guest for this test, in the test's folder."""

    def boot(*, ssh: bool = False) -> AbstractContextManager[Machine]:
        return boot_guest(ready.setup(tmp_path / "guest", ssh=ssh))

    return boot
