# SPDX-License-Identifier: GPL-2.0-or-later
"""A module and a patch whose makefiles try every way out that we know, as root and as a user.

Both are read by the kernel's own makefiles, in the sandboxes that builds have. An attack succeeds
or was stopped; `./inv check --hostile` prints which, and what stopped it.
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.kernel.build import toolchain
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config.fragments import shipped_fragment
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.sources import series
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.hostile import attacks
from blockyard.tests.hostile.conftest import HERE, Targets, old_argv, results, run_inside, show

KERNEL = "7.3"
# Of a tree, what its top makefile reads.
PARTS = ("Kbuild", "Kconfig", "Makefile", "arch/x86", "scripts", "tools/scripts", "tools/build")


def check(report: Path, output: Path, who: str) -> None:
    found = results(report)
    show(found, who)
    assert {one.attack for one in found} == set(attacks.attacks)
    assert [one for one in found if one.succeeded] == []
    assert [path for path in output.rglob("*") if path.lstat().st_mode & 0o6000] == []


def test_a_module(tools: ToolRoot, targets: Targets, user: str, tmp_path: Path) -> None:
    choice = KernelSpec(KERNEL)
    folder = tmp_path / "module"
    shutil.copytree(HERE / "module", folder)
    shutil.copy(HERE / "attacks.py", folder)
    targets.write(folder, f"{BIND}/module")
    kernel = plan.kernel(choice, tools)
    with plan.module_build_env(choice, kernel, tools)() as (sandbox, make):
        sandbox = replace(sandbox, writable={"module": folder})
        command = [*make, f"M={BIND}/module", "modules"]
        done = run_inside(sandbox, command, user, tmp_path, targets.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "hostile.ko").is_file()  # and it was built like any other
    check(folder / "report", folder, f"module, {user}")


def test_a_patch(tools: ToolRoot, targets: Targets, user: str, tmp_path: Path) -> None:
    whole = plan.build_spec(KernelSpec(KERNEL), tools).tree
    for name in PARTS:
        source, target = whole.path / name, tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, symlinks=True) if source.is_dir() else shutil.copy(
            source, target
        )
    tree = Tree(tmp_path / "tree", Other(f"hostile {tmp_path}"))
    series.apply(tree, [series.Patch("hostile.patch", patch(tree.path))], tmp_path, tools)
    job = BuildSpec("hostile", tree, (shipped_fragment("base"),), toolchain.from_root(tools), tools)
    out = tmp_path / "out"
    out.mkdir()
    targets.write(out, f"{BIND}/out")
    sandbox = replace(job.sandbox(), writable={"out": out})
    done = run_inside(sandbox, job.make_argv("kernelversion"), user, tmp_path, targets.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    check(out / "report", out, f"patch, {user}")


def patch(tree: Path) -> bytes:
    """A patch that puts the attacks into a tree and has its makefile run them."""
    makefile = (tree / "Makefile").read_text().splitlines(keepends=True)
    call = f"python3 {BIND}/src/scripts/attacks.py {BIND}/out/report {BIND}/out/targets 2>&1"
    lines = [f"ifeq ($(wildcard {BIND}/out/report),)\n", f"$(info $(shell {call}))\n", "endif\n"]
    changed = [*makefile[:6], *lines, *makefile[6:]]
    added = (HERE / "attacks.py").read_text().splitlines(keepends=True)
    text = [
        *difflib.unified_diff(makefile, changed, "a/Makefile", "b/Makefile"),
        *difflib.unified_diff([], added, "/dev/null", "b/scripts/attacks.py"),
    ]
    return "".join(text).encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="what the old sandbox let through was root's")
def test_the_attacks_can_succeed(tools: ToolRoot, targets: Targets, tmp_path: Path) -> None:
    """With bwrap as it was called before, so that this test can tell the difference."""
    shutil.copy(HERE / "attacks.py", tmp_path)
    targets.write(tmp_path, f"{BIND}/out")
    sandbox = Sandbox(tools.root, read_only={"src": HERE}, writable={"out": tmp_path}, network=True)
    names = ("attacks.py", "report", "targets")
    command = ["python3", *(f"{BIND}/out/{name}" for name in names)]
    subprocess.run(old_argv(sandbox, command), check=True, timeout=100)
    found = results(tmp_path / "report")
    show(found, "before")
    succeeded = {one.attack for one in found if one.succeeded}
    assert {
        "sysctl",
        "any_sysctl",
        "remount_root",
        "remount_bound",
        "unmount",
        "mount_new",
        "change_root",
        "setuid_file",
        "network",
        "abstract_socket",
        "user_namespace",
        "capability",
        "other_convention",
        "own_limits",
        "keys",
    } <= succeeded
