# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's own tests in real guests, from inside their sandbox; and what attacks come to."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci import prepare, record, run, selection
from ci.prepare import Ready
from kernel.choice import Choice
from kernel.host import store
from kernel.host.settings import PROJECT, settings
from modules import manifest
from tests.integration.conftest import KERNEL
from tests.outcomes import TestResult

TESTS = """\
# SPDX-License-Identifier: GPL-2.0-or-later
import os
import socket
from pathlib import Path

import pytest

WRITES = {writes!r}
UNSEEN = {unseen!r}


def test_loaded(driver):
    assert driver.console.check("cat /proc/modules").output.startswith("c_null ")


def test_reads_and_writes(disk):
    disk.console.check(f"dd if=/dev/urandom of=/dev/{{disk.name}} bs=4k count=4 oflag=direct")


def test_fails(driver):
    assert driver.name == "other", "it is mine"


def test_complains(driver):
    driver.console.check("echo '<4>WARNING: drivers/block/mine.c:12 at mine+0x1/0x2' > /dev/kmsg")


@pytest.mark.parametrize("path", WRITES)
def test_writes(driver, path):
    with pytest.raises(OSError):
        Path(path).write_text("x")


@pytest.mark.parametrize("path", UNSEEN)
def test_sees(driver, path):
    assert not os.path.exists(path) or os.listdir(path) == []


def test_reaches_a_server(driver):
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", {port}), 2)


def test_kills(driver):
    with pytest.raises(ProcessLookupError):
        os.kill({pid}, 9)


def test_takes_all_memory(driver):
    with pytest.raises(MemoryError):
        bytearray(1 << 40)


def test_kills_its_worker(driver):
    os._exit(0)
"""
KNOWN = """\
[[failure]]
test = "*"
reason = "everything is as it is"
outcomes = ["fail", "crash", "timeout"]
splat = true
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, ready: Ready) -> Iterator[list[TestResult]]:
    """One run over both consoles, of the module's tests and one of ours on it and on null_blk."""
    place = tmp_path_factory.mktemp("own") / "a [b]::c, $HOME"
    folder = place / "mine"
    shutil.copytree(PROJECT / "modules" / "examples" / "c_null", folder)
    with open(folder / "c_null.c", "a") as source:
        source.write("/* not the example that a user may have built */\n")
    cache = settings().cache_dir
    secret = place / "secret"
    secret.mkdir()
    (secret / "key").write_text("x")
    writes = [PROJECT / "new", place / "new", folder / "new", ready.kernel.path / "new"]
    unseen = [secret, Path.home() / ".ssh", PROJECT / ".git", cache / "logs", cache / "sources"]
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("BLOCKYARD_RESULTS", str(place / "results"))
        settings.cache_clear()
        text = TESTS.format(
            writes=[*map(str, writes)],
            unseen=[*map(str, unseen)],
            port=server.getsockname()[1],
            pid=os.getpid(),
        )
        (folder / "test_mine.py").write_text(text)
        (folder / "known_failures.toml").write_text(KNOWN)
        choice = Choice(KERNEL, modules=(folder,))
        wanted = selection.select(
            "mine",
            suite="mine",
            outside=[manifest.of_folder(folder)],
            start="fastest",
        )
        run.check(wanted)
        mine = prepare.ready(choice)
        before = entries(cache)
        finished, path = run.run(mine, wanted, 2)
        assert entries(cache) == before, "the cache has new entries, or lost some"
        assert record.read(path) == finished
        yield list(finished.tests)
    settings.cache_clear()
    assert not any(path.exists() for path in writes)
    for made in (mine.files.modules.parent, *store.directory("modules").glob("*/c_null.ko")):
        if made.name != "c_null.ko":
            store.remove(made)


def entries(cache: Path) -> set[str]:
    """The entries of a cache that are made of others; not what others make meanwhile."""
    kinds = ("roots", "kernels", "running", "snapshots")
    return {str(one) for kind in kinds for one in (cache / kind).glob("*")}


@pytest.mark.parametrize("console", ["serial", "ssh"])
def test_they_pass_in_guests_of_their_own(results: list[TestResult], console: str) -> None:
    found = {test.id: test for test in results if test.console == console}
    good = {name: test.outcome for name, test in found.items() if "kills_its" not in name}
    bad = {"mine/fails": "xfail", "mine/complains": "xfail"}
    assert good == {name: bad.get(name, "xpass") for name in good}
    assert len(good) == 16
    assert found["mine/fails"].reason.splitlines()[1].startswith("it is mine")
    assert found["mine/kills_its_worker"].outcome == "lost"
    assert all(test.guest.startswith(f"guests/mine-{console}-own") for test in found.values())
