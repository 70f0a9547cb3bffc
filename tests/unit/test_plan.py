# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's plan names cache entries by key, so each machine resolves it in its own cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import selection
from blockyard.images.files import GuestFiles
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel import artifact
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.modules import manifest
from blockyard.tests.harness import plan
from blockyard.tests.harness.plan import Plan, Scope
from blockyard.tests.unit import samples


def boot_env() -> BootEnv:
    images = store.path_of("images")
    samples.kernel(store.directory("kernels") / "0123")
    return BootEnv(
        artifact.load(store.path_of("kernels") / "0123", "mine"),
        ToolRoot(store.path_of("roots") / "4567"),
        GuestFiles(
            images / "89ab" / "root.erofs",
            images / "cdef" / "modules.erofs",
            images / "0246" / "initramfs",
        ),
        Accelerator("tcg", "no KVM here", 5.0),
    )


def test_plan_resolves_to_the_environment_it_was_made_of(tmp_path: Path) -> None:
    env = boot_env()
    path = tmp_path / "plan.json"
    made = Plan(scope=Scope(drivers=("nvme",), consoles=("serial",)), env=env.keys)
    plan.write(made, path)
    assert plan.read(path) == made
    assert plan.read(path).resolved() == env


def test_plan_has_no_path_of_this_machine(tmp_path: Path) -> None:
    folder = shutil.copytree(PROJECT / "modules" / "examples" / "c_null", tmp_path / "mine")
    selected = selection.select(outside=[manifest.of_folder(folder)])
    text = msgspec.json.encode(selected.plan(boot_env().keys)).decode()
    for path in (settings().cache_dir, tmp_path, PROJECT):
        assert str(path) not in text


@pytest.mark.parametrize("name", manifest.names())
def test_manifest_in_a_plan_is_as_its_file_says(name: str, tmp_path: Path) -> None:
    driver = manifest.load(name)
    scope = Scope(drivers=(name,), consoles=("serial",))
    plan.write(Plan(scope=scope, manifests=(driver,)), tmp_path / "plan.json")
    assert plan.read(tmp_path / "plan.json").manifests == (driver,)


def test_tests_beside_a_manifest_are_of_its_driver(tmp_path: Path) -> None:
    example = PROJECT / "modules" / "examples" / "c_null"
    folder = shutil.copytree(example, tmp_path / "mine")
    drivers = [manifest.of_folder(folder)]
    made = selection.select("mine,null_blk", outside=drivers).plan()
    assert made.drivers_of(folder) == ("mine",)
    for other in (tmp_path / "tests", tmp_path / "suites" / "mine"):
        other.mkdir(parents=True)
        assert made.drivers_of(other) == ("mine", "null_blk")
    only = selection.select("null_blk", outside=drivers).plan()
    assert only.drivers_of(folder) == ()


def test_plan_resolves_in_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = boot_env()
    shared = tmp_path / "elsewhere"
    shutil.copytree(settings().cache_dir, shared)
    monkeypatch.setenv("BLOCKYARD_CACHE", str(shared))
    settings.cache_clear()
    resolved = env.keys.resolved()
    assert resolved.kernel.path == shared / "kernels" / "0123"
    assert resolved.files.root == shared / "images" / "89ab" / "root.erofs"
    assert replace(resolved.kernel, path=env.kernel.path) == env.kernel


def test_missing_kernel_is_a_failure() -> None:
    with pytest.raises(Failure, match="cannot read the kernel in .*kernels/4321"):
        samples.env_keys("4321").resolved()
