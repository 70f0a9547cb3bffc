# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's plan: it names what is in the cache by keys, and each machine finds it in its own."""

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


def test_plan_has_no_path_of_the_cache() -> None:
    made = Plan(drivers=("nvme",), consoles=("serial",), env=boot_env().keys)
    assert str(settings().cache_dir) not in msgspec.json.encode(made).decode()


def test_plan_resolves_in_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = boot_env()
    shared = tmp_path / "elsewhere"
    shutil.copytree(settings().cache_dir, shared)
    monkeypatch.setenv("BLOCKYARD_CACHE", str(shared))
    settings.cache_clear()
    found = env.keys.resolved()
    assert found.kernel.path == shared / "kernels" / "0123"
    assert found.files.root == shared / "images" / "89ab" / "root.erofs"
    assert replace(found.kernel, path=env.kernel.path) == env.kernel


def test_kernel_that_the_cache_lacks_is_a_failure() -> None:
    with pytest.raises(Failure, match="kernels/4321 cannot be read"):
        samples.env_keys("4321").resolved()
