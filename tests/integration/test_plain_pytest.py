# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain pytest in a driver's repository runs its tests in a real guest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import store
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.integration.conftest import KERNEL

TESTS = """\
def test_size(disk):
    assert disk.size_bytes == 64 << 20

def test_reads(disk, console):
    console.check(f"dd if={disk.path} of=/dev/null bs=1M iflag=direct")
    assert console.check("uname -r") == "another kernel"
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "plain-null"
    (folder / "tests").mkdir(parents=True)
    for name in ("manifest.toml", "Kbuild", "c_null.c"):
        shutil.copy(PROJECT / "modules" / "examples" / "c_null" / name, folder)
    (folder / "tests" / "test_size.py").write_text(TESTS)
    return folder


def test_pytest_boots_a_guest_for_the_tests_of_a_repository(
    ready: BootEnv, repository: Path, tmp_path: Path
) -> None:
    """Both tests use one guest, and the failure names its logs."""
    results = tmp_path / "results"
    plugin = ["-p", "blockyard.ci.pytest_plugin", "-p", "no:randomly"]
    options = [f"--blockyard-kernel={KERNEL}", "--blockyard-module=.", "--blockyard-console=serial"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *options, "-v", "--durations=1", "tests"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "BLOCKYARD_RESULTS": str(results)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    for log in store.directory("logs").glob("module-plain-null-*.log"):
        log.unlink()
    assert "test_size[plain-null-serial] PASSED" in done.stdout, done.stdout + done.stderr
    assert "test_reads[plain-null-serial] FAILED" in done.stdout
    release = ready.kernel.info.release
    assert f"'{release}\\n' == 'another kernel'" in done.stdout
    (guest,) = results.glob("*/guests/plain-null-serial-1")
    assert f"logs of the guest: {guest}" in done.stdout
    assert done.stdout.count("logs of the guest") == 1
    assert "slowest 1 durations" in done.stdout
    assert (guest / "kernel.log").is_file()
