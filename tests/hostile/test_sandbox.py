# SPDX-License-Identifier: GPL-2.0-or-later
"""A module and a patch whose makefiles try every known way out, as root and as a user.

The kernel's makefiles read both, in the sandboxes that builds use. `./inv check --hostile` prints
for each attack whether it succeeded or what stopped it.
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
from blockyard.tests.hostile.conftest import HERE, Targets, results, run_inside, show, weak_argv

KERNEL = "7.3"
# The parts of a tree that its top makefile reads.
PARTS = ("Kbuild", "Kconfig", "Makefile", "arch/x86", "scripts", "tools/scripts", "tools/build")


def check(report: Path, output: Path, title: str) -> None:
    """Check that all attacks were tried and stopped, and that the output has no setuid files."""
    tried = results(report)
    show(tried, title)
    assert {result.attack for result in tried} == set(attacks.attacks)
    assert [result for result in tried if result.succeeded] == []
    assert [path for path in output.rglob("*") if path.lstat().st_mode & 0o6000] == []


def test_module_cannot_leave_the_sandbox(
    tools: ToolRoot, targets: Targets, user: str, tmp_path: Path
) -> None:
    spec = KernelSpec(KERNEL)
    folder = tmp_path / "module"
    shutil.copytree(HERE / "module", folder)
    shutil.copy(HERE / "attacks.py", folder)
    targets.write(folder, f"{BIND}/module")
    kernel = plan.kernel(spec, tools)
    with plan.module_build_env(spec, kernel, tools)() as (sandbox, make):
        sandbox = replace(sandbox, writable={"module": folder})
        command = [*make, f"M={BIND}/module", "modules"]
        result = run_inside(sandbox, command, user, tmp_path, targets.environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (folder / "hostile.ko").is_file()  # the module itself was built
    check(folder / "report", folder, f"module, {user}")


def test_patch_cannot_leave_the_sandbox(
    tools: ToolRoot, targets: Targets, user: str, tmp_path: Path
) -> None:
    original = plan.build_spec(KernelSpec(KERNEL), tools).tree
    for name in PARTS:
        source, target = original.path / name, tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, symlinks=True) if source.is_dir() else shutil.copy(
            source, target
        )
    tree = Tree(tmp_path / "tree", Other(f"hostile {tmp_path}"))
    series.apply(tree, [series.Patch("hostile.patch", patch(tree.path))], tmp_path, tools)
    build = BuildSpec(
        "hostile", tree, (shipped_fragment("base"),), toolchain.from_root(tools), tools
    )
    out = tmp_path / "out"
    out.mkdir()
    targets.write(out, f"{BIND}/out")
    sandbox = replace(build.sandbox(), writable={"out": out})
    result = run_inside(
        sandbox, build.make_argv("kernelversion"), user, tmp_path, targets.environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    check(out / "report", out, f"patch, {user}")


def patch(tree: Path) -> bytes:
    """A patch that adds the attacks to a tree and runs them from its makefile."""
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's attacks succeed without our hardening")
def test_attacks_succeed_without_hardening(
    tools: ToolRoot, targets: Targets, tmp_path: Path
) -> None:
    """Without our hardening the attacks succeed, so the tests above can fail."""
    shutil.copy(HERE / "attacks.py", tmp_path)
    targets.write(tmp_path, f"{BIND}/out")
    sandbox = Sandbox(tools.root, read_only={"src": HERE}, writable={"out": tmp_path}, network=True)
    names = ("attacks.py", "report", "targets")
    command = ["python3", *(f"{BIND}/out/{name}" for name in names)]
    subprocess.run(weak_argv(sandbox, command), check=True, timeout=100)
    tried = results(tmp_path / "report")
    show(tried, "not hardened")
    succeeded = {result.attack for result in tried if result.succeeded}
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
