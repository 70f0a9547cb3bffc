# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's plan names cache entries by key, so each machine resolves it in its own cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from blockyard.images.files import GuestFiles
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel import artifact
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import settings
from blockyard.tests.harness import plan
from blockyard.tests.harness.plan import Plan
from blockyard.tests.unit import samples


def boot_env() -> BootEnv:
    images = store.place("images")
    samples.kernel(store.directory("kernels") / "0123")
    return BootEnv(
        artifact.load(store.place("kernels") / "0123", "mine"),
        ToolRoot(store.place("roots") / "4567"),
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
    made = Plan(drivers=("nvme",), consoles=("serial",), env=env.keys)
    path.write_bytes(msgspec.json.encode(made))
    assert plan.read(str(path)) == made
    assert plan.read(str(path)).resolved() == env


def test_plan_contains_no_cache_path() -> None:
    made = Plan(drivers=("nvme",), consoles=("serial",), env=boot_env().keys)
    assert str(settings().cache_dir) not in msgspec.json.encode(made).decode()


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
