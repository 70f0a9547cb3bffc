# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules outside the kernel tree are compiled for the kernel under test and loaded in a guest."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.images.boot import boot as boot_guest
from blockyard.images.files import guest_files
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import seal, store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan
from blockyard.modules.driver import Driver, LoadFailed
from blockyard.tests.integration.conftest import KERNEL

EXAMPLES = PROJECT / "modules" / "examples"
MANIFEST = """\
language = "C"
modules = ["mine"]

[disks]
kind = "none"
"""
Built = Callable[[Path], Path]
Boot = Callable[[Path], AbstractContextManager[Machine]]
SOURCE = """\
#include <linux/module.h>

static int __init mine_init(void)
{
	pr_err("mine: hardware not found\\n");
	return -ENODEV;
}
module_init(mine_init);
MODULE_DESCRIPTION("A module without hardware");
MODULE_LICENSE("GPL");
"""


@pytest.fixture
def made() -> Iterator[list[Path]]:
    """The cache entries of a test's modules, which are removed at its end."""
    entries: list[Path] = []
    yield entries
    for path in entries:
        store.remove(path)
    for log in store.directory("logs").glob("module-mine-*.log"):
        log.unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m := mine.o\n")
    (folder / "mine.c").write_text(SOURCE)
    (folder / "manifest.toml").write_text(MANIFEST)
    return folder


@pytest.fixture
def built(ready: BootEnv, made: list[Path]) -> Built:
    """Builds the module in a folder."""

    def built(folder: Path) -> Path:
        choice = KernelSpec(KERNEL, modules=(folder,))
        (path,) = plan.modules(choice, ready.kernel, ready.tools, all_=True)
        made.append(path)
        return path

    return built


@pytest.fixture
def boot(ready: BootEnv, built: Built, made: list[Path], tmp_path: Path) -> Boot:
    """Boots a guest that has the module in a folder."""

    def boot(folder: Path) -> AbstractContextManager[Machine]:
        files = guest_files(ready.kernel, ready.tools, [built(folder)])
        made.append(files.modules.parent)
        return boot_guest(replace(ready, files=files).setup(tmp_path / "guest"))

    return boot


def state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestBuild:
    def test_build_does_not_write_to_the_users_folder(
        self, ready: BootEnv, built: Built, folder: Path
    ) -> None:
        for name in ("mine.o", "mine.ko", ".mine.o.cmd", "Module.symvers"):
            (folder / name).write_text("from a build for another kernel")
        before = state(folder)
        path = built(folder)
        assert state(folder) == before
        names = {file.name for file in path.iterdir()} - {seal.SEAL, seal.MANIFEST}
        assert names == {"mine.ko", "Module.symvers", "provenance.json"}
        vermagic = f"vermagic={ready.kernel.info.release} ".encode()
        assert vermagic in (path / "mine.ko").read_bytes()

    def test_same_sources_are_built_once(self, built: Built, folder: Path) -> None:
        first = built(folder)
        made = (first / "mine.ko").stat().st_mtime_ns
        second = built(folder)
        assert (second, (second / "mine.ko").stat().st_mtime_ns) == (first, made)
        (folder / "mine.c").write_text(SOURCE + "/* changed */\n")
        third = built(folder)
        assert third != first

    def test_compiler_message_is_quoted(self, built: Built, folder: Path) -> None:
        (folder / "mine.c").write_text(SOURCE.replace("return -ENODEV", "return ENO_SUCH"))
        with pytest.raises(Failure) as caught:
            built(folder)
        assert "building mine for kernel 7.3" in str(caught.value)
        assert "undeclared identifier 'ENO_SUCH'" in str(caught.value)
        assert caught.value.log is not None and caught.value.log.is_file()

    def test_function_missing_in_the_kernel_is_a_failure(self, built: Built, folder: Path) -> None:
        call = "no_such_function(); return"
        text = SOURCE.replace("return", call).replace(
            "static", "void no_such_function(void);\nstatic"
        )
        (folder / "mine.c").write_text(text)
        with pytest.raises(Failure, match="no_such_function.* undefined"):
            built(folder)

    def test_module_uses_another_module_and_headers_of_its_repository(
        self, ready: BootEnv, made: list[Path], folder: Path, tmp_path: Path
    ) -> None:
        """Its Kbuild also has a Kconfig symbol of its own, and $(PWD) and $(src) in paths."""
        other = tmp_path / "repository" / "other-1.2"
        folder = folder.rename(tmp_path / "mine.kept")
        shutil.copytree(folder, other)
        (other / "Kbuild").write_text("obj-m := other.o\n")
        (other / "mine.c").rename(other / "other.c")
        with open(other / "other.c", "a") as file:
            file.write(
                "int other(void);\nint other(void) { return 5; }\nEXPORT_SYMBOL_GPL(other);\n"
            )
        (other / "manifest.toml").write_text(MANIFEST.replace('"mine"', '"other"'))
        folder = folder.rename(tmp_path / "repository" / "mine")
        (folder / "Kbuild").write_text(
            "obj-$(CONFIG_MINE) += mine.o\nccflags-y := -I$(PWD)/own\n"
            "KBUILD_EXTRA_SYMBOLS := $(src)/../other/Module.symvers\n"
        )
        for name, include in {"own": "own/own.h", "common": "../common/common.h"}.items():
            (folder / include).parent.mkdir()
            (folder / include).write_text(f"#define {name.upper()} 1\n")
        source = SOURCE.replace("return -", "return OWN + COMMON + other() - ")
        headers = '#include "own.h"\n#include "../common/common.h"\nint other(void);\n'
        (folder / "mine.c").write_text(headers + source)
        (tmp_path / "repository" / ".git").mkdir()
        choice = KernelSpec(KERNEL, modules=(other, folder))
        made += (paths := plan.modules(choice, ready.kernel, ready.tools, all_=True))
        assert [(paths[0] / "other.ko").is_file(), (paths[1] / "mine.ko").is_file()] == [True] * 2
        assert b"depends=other\0" in (paths[1] / "mine.ko").read_bytes()

    @pytest.mark.parametrize(
        "command",
        ["touch /mnt/src/x", "touch /mnt/out/x", "touch /usr/x", "cat < /dev/tcp/192.0.2.1/80"],
    )
    def test_makefile_is_confined_to_its_sandbox(
        self, built: Built, folder: Path, command: str
    ) -> None:
        kbuild = "obj-m := mine.o\n$(if $(shell bash -c '{}' && echo done),$(error it worked))\n"
        (folder / "Kbuild").write_text(kbuild.format(command))
        assert (built(folder) / "mine.ko").is_file()
        (folder / "Kbuild").write_text(kbuild.format("touch /mnt/module/x"))
        with pytest.raises(Failure, match="it worked"):
            built(folder)


class TestGuest:
    def test_example_is_loaded_and_unloaded(
        self, ready: BootEnv, boot: Boot, tmp_path: Path
    ) -> None:
        folder = tmp_path / "mine"
        shutil.copytree(EXAMPLES / "c_null", folder)
        with open(folder / "c_null.c", "a") as source:
            source.write("/* differs from the example, which may be in the cache */\n")
        with boot(folder) as guest:
            driver = Driver(manifest.of_folder(folder), ready.kernel, guest.serial)
            driver.load()
            (disk,) = driver.disks()
            assert (disk.name, disk.size_bytes) == ("cnull0", 64 << 20)
            assert {"module", "disk", "holds_module_ref"} <= driver.capabilities
            driver.unload()
            assert not disk.exists()

    def test_error_of_a_module_that_fails_to_load_has_its_message(
        self, ready: BootEnv, boot: Boot, folder: Path
    ) -> None:
        with boot(folder) as guest:
            driver = Driver(manifest.of_folder(folder), ready.kernel, guest.serial)
            with pytest.raises(LoadFailed) as caught:
                driver.load()
        assert "cannot load mine" in str(caught.value)
        assert "No such device" in str(caught.value)
        assert "mine: hardware not found" in str(caught.value)


def test_commands_in_the_log_repeat_the_build(built: Built, folder: Path) -> None:
    """The log begins with the command that copies the sources, and make in its sandbox."""
    entry = built(folder)
    (log,) = store.directory("logs").glob(f"module-mine-{entry.name}.log")
    copy, make, inside = log.read_text().splitlines()[:3]
    assert inside.startswith("# in the sandbox: make -C /mnt/src O=/mnt/out ")
    target = Path(shlex.split(copy)[-1])
    assert not target.exists()
    try:
        for line in (copy, make):
            assert line.startswith("$ ")
            subprocess.run(["sh", "-c", line.removeprefix("$ ")], check=True, timeout=600)
        assert (target / "mine.ko").read_bytes() == (entry / "mine.ko").read_bytes()
    finally:
        store.remove(target.parent)
