# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration with the kernel's own tools, and the tool root in which kernels are built."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.build.configure import configure, unknown_keywords
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.build.toolchain import from_root
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.integration.conftest import KERNEL

IMPOSSIBLE = Fragment(
    "mine.config",
    "# CONFIG_EROFS_FS_ZIP is not set\nCONFIG_EROFS_FS_ZIP_LZMA=y\nCONFIG_NO_SUCH_SYMBOL=y\n",
)


@pytest.fixture
def job(ready: BootEnv) -> Iterator[BuildSpec]:
    job = plan.build_spec(KernelSpec(KERNEL), ready.tools)
    job = replace(job, fragments=(*job.fragments, IMPOSSIBLE))
    yield job
    store.remove(job.out)
    job.log.unlink(missing_ok=True)


def test_dropped_symbol_is_explained_before_anything_is_compiled(job: BuildSpec) -> None:
    with pytest.raises(Failure) as caught:
        configure(job)
    text = str(caught.value)
    assert "CONFIG_EROFS_FS_ZIP_LZMA, CONFIG_NO_SUCH_SYMBOL" in text
    assert "EROFS_FS_ZIP_LZMA is n, wanted y (mine.config:2)" in text
    assert "EROFS_FS_ZIP can be y, but mine.config:1 says n" in text
    assert "fs/erofs/Kconfig:" in text
    assert "NO_SUCH_SYMBOL does not exist in Linux 7.3" in text
    assert not (job.out / "vmlinux.o").exists()
    assert not list(job.out.glob("kernel/*.o"))


@pytest.fixture
def empty_cache(ready: BootEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache; the tool root was made before in the usual one."""
    monkeypatch.setenv("BLOCKYARD_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    yield tmp_path / "cache"
    monkeypatch.undo()
    settings.cache_clear()


def test_unknown_kconfig_keyword_is_reported_and_searched_once(
    ready: BootEnv, empty_cache: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "Makefile").write_text("VERSION = 9\nPATCHLEVEL = 1\nSUBLEVEL = 0\n")
    kconfig = tree / "Kconfig"
    kconfig.write_text('config NEW\n\tbool "New"\n\tweakens OLD\n\thelp\n\t  weakens it.\n')
    toolchain = from_root(ready.tools)
    job = BuildSpec(
        "9.1", Tree(tree, Other("directory tree 1"), build_id="tree"), (), toolchain, ready.tools
    )
    job.out.mkdir(parents=True)
    (message,) = unknown_keywords(job)
    assert message.startswith("kernel 9.1: unknown Kconfig keyword 'weakens' (Kconfig:3)")
    kconfig.write_text("")
    assert unknown_keywords(job) == [message]
    assert (
        unknown_keywords(replace(job, tree=Tree(tree, Other("directory tree 2"), build_id="tree")))
        == []
    )


def inside(sandbox: Sandbox, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(sandbox.argv(["sh", "-c", script]), capture_output=True, text=True)


def test_built_kernel_is_the_requested_one(ready: BootEnv) -> None:
    info = ready.kernel.info
    assert (info.name, info.release.rpartition(".")[0]) == ("7.3", "7.3")
    assert str(info.source).startswith("debian linux-source-7.3 ")
    assert {"clang", "rustc", "bindgen"} <= set(info.toolchain)
    assert info.cpu_s > 0
    for symbol in ("BLK_DEV_NULL_BLK", "BLK_DEV_RUST_NULL", "BLK_DEV_NVME"):
        assert ready.kernel.config[symbol] == "m"
    assert (ready.kernel.modules / "modules.dep").exists()


class TestToolRoot:
    def test_tool_root_has_no_network(self, ready: BootEnv) -> None:
        done = inside(Sandbox(ready.tools.root), "tail -n +3 /proc/net/dev | cut -d: -f1")
        assert done.stdout.split() == ["lo"]

    def test_tool_root_is_read_only(self, ready: BootEnv) -> None:
        done = inside(Sandbox(ready.tools.root), "for d in / /usr /etc /var; do touch $d/x; done")
        assert done.stderr.count("Read-only file system") == 4
        assert not (ready.tools.root / "x").exists()

    def test_source_tree_is_read_only(self, job: BuildSpec) -> None:
        job.out.mkdir(parents=True, exist_ok=True)
        done = inside(job.sandbox(), "touch /mnt/out/x && touch /mnt/src/x")
        assert (job.out / "x").exists()
        assert "Read-only file system" in done.stderr
        assert not (job.tree.path / "x").exists()

    def test_versions_of_its_packages_are_recorded(self, ready: BootEnv) -> None:
        versions = ready.tools.versions
        assert {"clang", "rustc", "bindgen", "make", "qemu-system-x86"} <= set(versions)
