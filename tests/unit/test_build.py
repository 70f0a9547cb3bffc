# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel's key, its make command, the build's log and what is kept of the output."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.kernel import artifact
from blockyard.kernel.build import build, toolchain
from blockyard.kernel.build.build import MAX_FILES, module_name, prune, usage, warnings
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config.fragments import read_fragment, shipped_fragment
from blockyard.kernel.config.kconfig import Fragment, merge
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree
from blockyard.modules import manifest
from blockyard.tests.unit import samples

BASE = Fragment("base.config", "CONFIG_BLOCK=y\nCONFIG_MODULES=y\n")
DRIVER = Fragment("nvme.config", "CONFIG_BLK_DEV_NVME=m\n")


@pytest.fixture
def job(tmp_path: Path) -> BuildSpec:
    tree = Tree(tmp_path / "tree", Other("debian linux-source-7.3 7.3.4-1"))
    tools = samples.tools(tmp_path / "tools")
    return BuildSpec("7.3", tree, (BASE, DRIVER), toolchain.from_root(tools), tools)


class TestKey:
    def test_key_does_not_depend_on_paths(self, job: BuildSpec, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "other-tools")
        tree = Tree(tmp_path / "other", job.tree.origin)
        elsewhere = BuildSpec("7.3", tree, (BASE, DRIVER), toolchain.from_root(tools), tools)
        assert elsewhere.key == job.key

    def test_key_ignores_comments_and_order_of_fragments(self, job: BuildSpec) -> None:
        commented = Fragment("renamed.config", f"# why\n\n{BASE.text}")
        assert replace(job, fragments=(DRIVER, commented)).key == job.key

    def test_key_covers_fragments_source_and_toolchain(
        self, job: BuildSpec, tmp_path: Path
    ) -> None:
        other_tools = samples.tools(tmp_path / "newer", {"clang-19": "2.0"})
        jobs = [
            job,
            replace(job, fragments=(BASE,)),
            replace(job, fragments=(BASE, Fragment("x", "CONFIG_BLK_DEV_NVME=y\n"))),
            replace(job, tree=replace(job.tree, origin=Other("debian linux-source-7.3 7.3.6-1"))),
            replace(job, toolchain=toolchain.from_root(other_tools)),
        ]
        assert len({job.key for job in jobs}) == len(jobs)

    def test_key_ignores_programs_that_do_not_compile(self, job: BuildSpec, tmp_path: Path) -> None:
        """A new QEMU must not rebuild all kernels."""
        tools = samples.tools(tmp_path / "newer", {"qemu-system-x86": "11"})
        assert replace(job, toolchain=toolchain.from_root(tools)).key == job.key


class TestMake:
    def test_source_is_read_only_and_output_is_separate(self, job: BuildSpec) -> None:
        argv = job.sandbox().argv(job.make_argv("bzImage"))
        command = " ".join(argv)
        assert f"--ro-bind {job.tree.path} /mnt/src" in command
        assert f"--bind {job.out} /mnt/out" in command
        assert "--unshare-net" in argv
        assert argv[-1] == "bzImage"
        assert {"-C", "/mnt/src", "O=/mnt/out", "LLVM=1"} <= set(argv)

    def test_number_of_jobs_is_a_setting(
        self, job: BuildSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BLOCKYARD_JOBS", "7")
        assert "-j7" in job.make_argv()

    def test_each_kernel_has_its_own_output_tree_and_log(self, job: BuildSpec) -> None:
        other = replace(job, fragments=(BASE,))
        assert (job.out, job.log) != (other.out, other.log)


class TestFragments:
    def test_our_fragments_do_not_contradict_each_other(self) -> None:
        drivers = [manifest.load(name).fragment for name in manifest.names()]
        assert merge([shipped_fragment("base"), *drivers]).contradictions == ()

    @pytest.mark.parametrize("name", manifest.names())
    def test_fragment_of_a_driver_requests_its_symbols(self, name: str) -> None:
        driver = manifest.load(name)
        assert set(driver.symbols) <= set(merge([driver.fragment]).requests)

    def test_fragment_is_named_by_its_path(self, tmp_path: Path) -> None:
        assert shipped_fragment("base").name == "kernel/fragments/base.config"
        (tmp_path / "mine.config").touch()
        assert read_fragment(tmp_path / "mine.config").name == str(tmp_path / "mine.config")

    @pytest.mark.parametrize("path", sorted((PROJECT / "kernel/fragments").glob("*.config")))
    def test_all_fragments_can_be_parsed(self, path: Path) -> None:
        assert merge([read_fragment(path)]).requests


LOG = """\
make: Entering directory '/mnt/src'
  CC      drivers/block/a.o
/mnt/src/drivers/block/a.c:10:5: warning: unused variable 'x' [-Wunused-variable]
/mnt/src/drivers/block/a.c:12:5: warning: unused variable 'y' [-Wunused-variable]
/mnt/src/include/linux/b.h:7:1: warning: something [-Wsomething]
/mnt/src/drivers/block/c.c:3:1: error: no type
2 warnings generated.
warning: unused import: `x`
 --> /mnt/src/drivers/block/rnull/rnull.rs:4:5
  |
warning: unreachable
   --> /mnt/src/drivers/block/rnull/rnull.rs:40:5
"""


class TestLog:
    def test_warnings_are_counted_by_file(self) -> None:
        assert warnings(LOG) == {
            "drivers/block/a.c": 2,
            "drivers/block/rnull/rnull.rs": 2,
            "include/linux/b.h": 1,
        }

    def test_log_without_warnings(self) -> None:
        assert warnings("  CC      drivers/block/a.o\n") == {}

    def test_hostile_log_is_read_in_bounded_time_and_size(self) -> None:
        """Makefiles of a tree under test can print anything."""
        lines = [f"/mnt/src/{n}.c:1:1: warning: x" for n in range(5000)]
        lines += ["blockyard: cpu abc def", f"blockyard: ccache {'9' * 5000} 1", "warning: \xff"]
        lines += ["warning: " + "a" * 1_000_000, " --> " + "b:" * 1_000_000]
        assert len(warnings("\n".join(lines))) == MAX_FILES


class TestCollect:
    @pytest.fixture(autouse=True)
    def output(self, job: BuildSpec, monkeypatch: pytest.MonkeyPatch) -> None:
        """An output tree of a kernel whose drivers are all built in."""
        files = ("arch/x86/boot/bzImage", "System.map", "modules.order", "modules.builtin")
        for name in (*files, "modules.builtin.modinfo", "include/config/kernel.release"):
            (job.out / name).parent.mkdir(parents=True, exist_ok=True)
            (job.out / name).touch()
        (job.out / "include/config/kernel.release").write_text("7.3.4\n")
        (job.out / ".config").write_bytes(b'CONFIG_BLOCK=y\nCONFIG_X="\xff"\n')
        job.log.write_text("made\n")
        monkeypatch.setattr(build, "depmod", lambda *_: None)

    def test_kernel_without_modules_and_with_a_config_that_is_not_utf8(
        self, job: BuildSpec, tmp_path: Path
    ) -> None:
        kernel = tmp_path / "kernel"
        kernel.mkdir()
        build._collect(job, kernel)
        assert (kernel / "modules/7.3.4/modules.order").read_text() == ""
        artifact.save_info(kernel, build._describe(job, 1.0))
        assert artifact.load(kernel).config["BLOCK"] == "y"

    def test_sparse_file_is_refused(self, job: BuildSpec, tmp_path: Path) -> None:
        os.truncate(job.out / "System.map", 1 << 40)
        with pytest.raises(Failure, match="System.map is larger than"):
            build._collect(job, tmp_path)


class TestUsage:
    def test_usage_of_all_make_calls_is_summed(self, tmp_path: Path) -> None:
        (tmp_path / "usage").write_text("100.25 40\n11.5 2 make 'a b' all\n")
        assert usage(tmp_path / "usage") == (111.8, 42, ("make 'a b' all",))
        assert usage(tmp_path / "none") == (0.0, 0, ())

    def test_usage_is_measured_and_not_read_from_the_log(self, job: BuildSpec) -> None:
        """A makefile prints false times, and does its work in the background."""
        script = (
            'echo "blockyard: cpu 999 999"; '
            "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done & wait; "
            "echo direct_cache_hit >/mnt/out/.ccache-statistics"
        )
        job.out.mkdir(parents=True)
        job.tree.path.mkdir(parents=True, exist_ok=True)
        sandbox = replace(job.sandbox(), root=Path("/"))
        job._run(sandbox, ["sh", "-c", script], "x")
        cpu_s, reused, commands = usage(job.usage)
        assert 0.1 < cpu_s < 60
        assert reused == 1
        assert commands == (shlex.join(["sh", "-c", script]),)
        assert not (job.out / ".ccache-statistics").exists()


class TestKernelInfo:
    def test_kernel_info_without_commands_is_read(self, tmp_path: Path) -> None:
        kernel = samples.kernel(tmp_path / "k")
        path = kernel.path / "kernel.json"
        fields = json.loads(path.read_bytes())
        del fields["commands"], fields["environment"]
        path.write_text(json.dumps(fields))
        info = artifact.load(kernel.path).info
        assert (info.commands, info.environment) == ((), {})

    def test_kernel_info_reads_back(self, tmp_path: Path) -> None:
        kernel = samples.kernel(tmp_path / "k", "CONFIG_BLOCK=y\n# CONFIG_NET is not set\n")
        assert kernel.info == samples.info()
        assert kernel.config == {"BLOCK": "y", "NET": "n"}
        assert artifact.load(tmp_path / "k").modules == tmp_path / "k" / "modules" / "7.3.4"


@pytest.mark.parametrize(
    "line", ["drivers/block/rnull/rnull_mod.o", "kernel/drivers/block/rnull/rnull_mod.ko"]
)
def test_module_name_from_both_forms_of_modules_order(line: str) -> None:
    assert module_name(line) == "drivers/block/rnull/rnull_mod.ko"


class TestPrune:
    NEEDED = (
        ".config",
        "Module.symvers",
        "arch/x86/include/generated/asm/types.h",
        "include/generated/autoconf.h",
        "rust/libkernel.rmeta",
        "rust/libmacros.so",
        "scripts/mod/modpost",
        "tools/objtool/objtool",
    )
    NOT_NEEDED = (
        "vmlinux",
        ".tmp_vmlinux1",
        "arch/x86/boot/bzImage",
        "block/bio.o",
        "rust/kernel.o",
        "rust/host/libsyn.rlib",
        "tools/objtool/check.o",
    )

    def test_files_needed_by_module_builds_stay(self, tmp_path: Path) -> None:
        for name in (*self.NEEDED, *self.NOT_NEEDED):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / "source").symlink_to("/mnt/src")
        prune(tmp_path)
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assert left == {*self.NEEDED, build.PRUNED}

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        """The makefiles of a tree under test can leave any link in the output tree."""
        mine = tmp_path / "mine"
        (mine / "x86" / "include").mkdir(parents=True)
        (mine / "lib.so").touch()
        (mine / "key").touch()
        out = tmp_path / "out"
        out.mkdir()
        for name in ("rust", "arch", "scripts", "other"):
            (out / name).symlink_to(mine)
        (out / build.PRUNED).symlink_to(tmp_path / "new")
        prune(out)
        left = {path.name for path in mine.rglob("*")}
        assert left == {"x86", "include", "lib.so", "key"}
        assert not (tmp_path / "new").exists()
        assert [path.name for path in out.iterdir()] == [build.PRUNED]

    def test_prune_of_a_missing_output_tree(self, tmp_path: Path) -> None:
        prune(tmp_path / "none")
        assert not (tmp_path / "none").exists()

    def test_pruned_output_tree_is_built_from_scratch(
        self, job: BuildSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An interrupted build continues in its output tree."""
        seen = []
        monkeypatch.setattr(
            build,
            "_make_kernel",
            lambda job, path, started: seen.append((job.out / "x.o").exists()),
        )
        for pruned in (False, True):
            job.out.mkdir(parents=True, exist_ok=True)
            (job.out / "x.o").touch()
            if pruned:
                (job.out / build.PRUNED).touch()
            build.make_kernel(job, tmp_path)
        assert seen == [True, False]
