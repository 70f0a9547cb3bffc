# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel works when it is installed outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.kernel.host import environment
from blockyard.kernel.host.settings import PROJECT

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-I", "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(argv, cwd=PROJECT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def run(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the installed `blockyard` in a folder with packages of the same names.

    Its Python gets the dependencies by a .pth file: nothing is downloaded.
    """
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-I", "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = venv / "lib" / version / "site-packages"
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    empty = tmp_path_factory.mktemp("elsewhere")
    for name in ("kernel", "tests", "images", "modules"):
        (empty / name).mkdir()
        (empty / name / "__init__.py").write_text("1 / 0\n")
    (empty / "ci.py").write_text("1 / 0\n")
    variables = {name: text for name, text in os.environ.items() if name not in environment.OURS}
    variables.pop("BLOCKYARD_RESULTS", None)

    def run(*arguments: str, module: bool = False) -> subprocess.CompletedProcess[str]:
        argv = [str(python), "-m", "blockyard"] if module else [str(venv / "bin" / "blockyard")]
        return subprocess.run(
            [*argv, *arguments],
            cwd=empty,
            env=variables,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def test_wheel_has_data_and_suites_but_not_the_tests_of_blockyard(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (archive,) = built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "blockyard/py.typed",
        "blockyard/kernel/catalog.toml",
        "blockyard/kernel/scripts/sandbox",
        "blockyard/images/guest/init.c",
        "blockyard/modules/drivers/null_blk.toml",
        "blockyard/tests/known_failures.toml",
        "blockyard/tests/suites/block/test_cache.py",
    } <= names
    for folder in ("unit", "integration", "hostile", "properties"):
        assert not [name for name in names if name.startswith(f"blockyard/tests/{folder}/")]
    root = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as tar:
        archived = {name.removeprefix(f"{root}/") for name in tar.getnames()}
    assert {name for name in names if name.startswith("blockyard/")} <= archived


@pytest.mark.parametrize("module", [False, True])
def test_installed_command_has_the_commands_of_inv(run: Run, module: bool) -> None:
    result = run("--list", module=module)
    assert result.returncode == 0, result.stderr
    for name in ("test", "boot", "doctor", "kernel.list"):
        assert name in result.stdout


def test_doctor_names_the_installed_command(run: Run) -> None:
    result = run("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "blockyard kernel.update" in result.stdout
    assert "./inv" not in result.stdout


def test_installed_command_boots_a_kernel(run: Run) -> None:
    result = run("boot", "--kernel", "7.3-debian", "--run", "uname -r")
    assert (result.returncode, result.stdout[:3]) == (0, "7.3"), result.stderr


def test_installed_suites_are_those_of_the_checkout(run: Run) -> None:
    words = ["test", "--driver", "null_blk", "--console", "serial", "--suite", "block", "--list"]
    result = run(*words)
    assert result.returncode == 0, result.stderr
    argv = [sys.executable, "-I", str(PROJECT / "ci" / "start.py"), *words]
    assert result.stdout == subprocess.run(argv, capture_output=True, text=True).stdout


def test_usage_error_is_one_message_without_inv(run: Run) -> None:
    result = run("boot", "--kernel", "no-such", "--run", "true")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "./inv" not in result.stderr
