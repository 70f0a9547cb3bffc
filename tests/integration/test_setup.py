# SPDX-License-Identifier: GPL-2.0-or-later
"""`inv` creates a checkout's virtual environment, and creates it again when it is damaged.

The checkout of these tests has the script, an empty lock file (so nothing is downloaded) and a
program that replaces ci/start.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from blockyard.kernel.host.settings import PROJECT

STARTED = "started"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in a folder whose name has a space."""
    return new_checkout(tmp_path_factory.mktemp("a checkout"))


def new_checkout(folder: Path) -> Path:
    (folder / "ci").mkdir()
    (folder / "ci" / "start.py").write_text(f"print({STARTED!r})\n")
    (folder / "requirements.lock").touch()
    shutil.copy(PROJECT / "inv", folder / "inv")
    return folder


def inv(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "inv")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def is_made_again(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{STARTED}\n"
    return "making " in done.stderr


def packages(checkout: Path) -> Path:
    return next((checkout / ".venv" / "lib").glob("python*/site-packages"))


def test_pip_settings_of_the_user_are_ignored(checkout: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (checkout / ".venv" / "installed.lock").unlink(missing_ok=True)
    assert is_made_again(
        inv(checkout, PIP_USER="1", PIP_TARGET=str(target), PYTHONHOME="/nonexistent")
    )
    assert (checkout / ".venv" / "installed.lock").is_file()
    assert not target.exists()


def test_environment_is_created_once(checkout: Path) -> None:
    inv(checkout)
    assert not is_made_again(inv(checkout))


def test_missing_package_is_installed_again(checkout: Path) -> None:
    inv(checkout)
    shutil.rmtree(packages(checkout) / "pip")
    assert is_made_again(inv(checkout))
    assert (packages(checkout) / "pip").is_dir()


def test_environment_of_another_python_is_created_again(checkout: Path) -> None:
    inv(checkout)
    folder = packages(checkout).parent
    folder.rename(folder.with_name("python3.1"))
    assert is_made_again(inv(checkout))
    assert packages(checkout).parent == folder


def test_inv_works_without_the_systems_folders_in_path(checkout: Path) -> None:
    inv(checkout)
    assert not is_made_again(inv(checkout, PATH="/nonexistent"))


def test_checkout_path_with_a_colon_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    done = inv(new_checkout(folder))
    assert done.returncode == 125
    assert f"no virtual environment in a path with a colon: {folder}" in done.stderr


def test_hint_for_missing_packages_begins_with_apt_get_update() -> None:
    """As a user who may not install them, on a host without package lists."""
    with tempfile.TemporaryDirectory() as folder:  # other users cannot enter pytest's folders
        Path(folder).chmod(0o755)
        check_missing_packages(Path(folder))


def check_missing_packages(folder: Path) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for name in ("readlink", "cmp", "id", "python3", "apt-get", "flock"):
        program = shutil.which(name, path="/usr/bin:/bin")
        if program is None:
            pytest.skip(f"this host has no {name} in /usr/bin")
        (programs / name).symlink_to(program)
    checkout = folder / "checkout"
    checkout.mkdir()
    new_checkout(checkout)
    nobody = 65534 if os.geteuid() == 0 else None
    done = subprocess.run(
        ["/bin/sh", str(checkout / "inv")],
        env={"PATH": str(programs)},
        user=nobody,
        group=nobody,
        extra_groups=[] if nobody else None,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 125
    assert "sudo apt-get update && sudo apt-get install" in done.stderr
    assert "mmdebstrap bubblewrap" in done.stderr
