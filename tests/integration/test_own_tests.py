# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's own tests in real guests, from inside their sandbox; and what attacks come to."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.ci.run import boot_env, record, run, selection
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import store
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest
from blockyard.tests.harness.outcomes import CaseResult
from blockyard.tests.integration.conftest import KERNEL

TESTS = """\
# SPDX-License-Identifier: GPL-2.0-or-later
import os
import socket
from pathlib import Path

import pytest


def test_loaded(driver):
    driver.console.check("grep '^c_null ' /proc/modules")


def test_reads_and_writes(disk):
    disk.console.check(f"dd if=/dev/urandom of={{disk.path}} bs=4k count=4 oflag=direct")


def test_fails(driver):
    assert driver.name == "other", "it is mine"


def test_attacks(driver):
    Path({aside!r}).parent.mkdir(parents=True, exist_ok=True)
    Path({aside!r}).touch()  # in a /tmp of its own, if it can
    for path in {writes!r}:
        with pytest.raises(OSError):
            Path(path).write_text("x")
    for path in {unseen!r}:
        assert not os.path.exists(path) or os.listdir(path) == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", {port}), 2)
    with pytest.raises(ProcessLookupError):
        os.kill({pid}, 9)
    with pytest.raises(MemoryError):
        bytearray(1 << 40)


def test_kills_its_worker(driver):
    os._exit(0)
"""
KNOWN = """\
[[failure]]
test = "mine/f*"
reason = "it is as it is"
"""
EXPECTED = {
    "mine/loaded": "pass",
    "mine/reads_and_writes": "pass",
    "mine/fails": "xfail",
    "mine/attacks": "pass",
    "mine/kills_its_worker": "lost",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, ready: BootEnv) -> Iterator[list[CaseResult]]:
    """One run over both consoles."""
    place = tmp_path_factory.mktemp("own") / "a [b]::c, $HOME"
    folder = place / "mine"
    shutil.copytree(PROJECT / "modules" / "examples" / "c_null", folder)
    with open(folder / "c_null.c", "a") as source:
        source.write("/* not the example that a user may have built */\n")
    cache = settings().cache_dir
    secret = place / "secret"
    secret.mkdir()
    (secret / "key").write_text("x")
    writes = [PROJECT / "ci" / "new", folder / "new", ready.kernel.path / "new"]
    unseen = [secret, Path.home() / ".ssh", PROJECT / ".git", cache / "logs", cache / "sources"]
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("BLOCKYARD_RESULTS", str(place / "results"))
        settings.cache_clear()
        text = TESTS.format(
            aside=str(place / "new"),
            writes=[*map(str, writes)],
            unseen=[*map(str, unseen)],
            port=server.getsockname()[1],
            pid=os.getpid(),
        )
        (folder / "test_mine.py").write_text(text)
        (folder / "known_failures.toml").write_text(KNOWN)
        choice = KernelSpec(KERNEL, modules=(folder,))
        wanted = selection.select("mine", suite="mine", outside=[manifest.of_folder(folder)])
        run.check(wanted)
        mine = boot_env.ready(choice)
        finished, path = run.run(mine, wanted, 2)
        assert record.read(path) == finished
        yield list(finished.tests)
    settings.cache_clear()
    assert not any(path.exists() for path in (*writes, place / "new"))
    store.remove(mine.files.modules.parent)


@pytest.mark.parametrize("console", ["serial", "ssh"])
def test_they_pass_in_guests_of_their_own(results: list[CaseResult], console: str) -> None:
    found = {test.id: test for test in results if test.console == console}
    assert {name: test.outcome for name, test in found.items()} == EXPECTED
    assert found["mine/fails"].reason.splitlines()[1].startswith("it is mine")
    assert all(test.guest.startswith(f"guests/mine-{console}-own") for test in found.values())
