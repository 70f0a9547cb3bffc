# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's own tests run in real guests, inside a sandbox that their attacks do not leave."""

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
    Path({aside!r}).touch()  # at most in the sandbox's own /tmp
    for path in {writes!r}:
        with pytest.raises(OSError):
            Path(path).write_text("x")
    for path in {hidden!r}:
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
reason = "expected here"
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
    """The results of a run over both consoles."""
    parent = tmp_path_factory.mktemp("own") / "a [b]::c, $HOME"
    folder = parent / "mine"
    shutil.copytree(PROJECT / "modules" / "examples" / "c_null", folder)
    with open(folder / "c_null.c", "a") as source:
        source.write("/* differs from the example, which may be in the cache */\n")
    cache = settings().cache_dir
    secret = parent / "secret"
    secret.mkdir()
    (secret / "key").write_text("x")
    writes = [PROJECT / "ci" / "new", folder / "new", ready.kernel.path / "new"]
    hidden = [secret, Path.home() / ".ssh", PROJECT / ".git", cache / "logs", cache / "sources"]
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("BLOCKYARD_RESULTS", str(parent / "results"))
        settings.cache_clear()
        text = TESTS.format(
            aside=str(parent / "new"),
            writes=[*map(str, writes)],
            hidden=[*map(str, hidden)],
            port=server.getsockname()[1],
            pid=os.getpid(),
        )
        (folder / "test_mine.py").write_text(text)
        (folder / "known_failures.toml").write_text(KNOWN)
        choice = KernelSpec(KERNEL, modules=(folder,))
        selected = selection.select("mine", suite="mine", outside=[manifest.of_folder(folder)])
        run.check(selected)
        env = boot_env.ready(choice)
        finished, path = run.run(env, selected, 2)
        assert record.read(path) == finished
        yield list(finished.tests)
    settings.cache_clear()
    assert not any(path.exists() for path in (*writes, parent / "new"))
    store.remove(env.files.modules.parent)


@pytest.mark.parametrize("console", ["serial", "ssh"])
def test_module_tests_run_in_separate_guests(results: list[CaseResult], console: str) -> None:
    by_name = {test.id: test for test in results if test.console == console}
    assert {name: test.outcome for name, test in by_name.items()} == EXPECTED
    assert by_name["mine/fails"].reason.splitlines()[1].startswith("it is mine")
    assert all(test.guest.startswith(f"guests/mine-{console}-own") for test in by_name.values())
