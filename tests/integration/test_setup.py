# SPDX-License-Identifier: GPL-2.0-or-later
"""`inv` sets a checkout up, and again when what it set up has gone.

The checkout of these tests is the script, an empty lock file (so nothing is downloaded) and a
program in the place of ours.
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
    """A checkout that is set up, in a folder whose name has a space."""
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


def test_pip_settings_of_a_user_do_not_lead_the_packages_elsewhere(
    checkout: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (checkout / ".venv" / "installed.lock").unlink(missing_ok=True)
    assert is_made_again(
        inv(checkout, PIP_USER="1", PIP_TARGET=str(target), PYTHONHOME="/nonexistent")
    )
    assert (checkout / ".venv" / "installed.lock").is_file()
    assert not target.exists()


def test_a_checkout_that_is_set_up_is_left_alone(checkout: Path) -> None:
    inv(checkout)
    assert not is_made_again(inv(checkout))


def test_a_package_that_is_gone(checkout: Path) -> None:
    inv(checkout)
    shutil.rmtree(packages(checkout) / "pip")
    assert is_made_again(inv(checkout))
    assert (packages(checkout) / "pip").is_dir()


def test_a_newer_python_has_another_folder_of_packages(checkout: Path) -> None:
    inv(checkout)
    there = packages(checkout).parent
    there.rename(there.with_name("python3.1"))
    assert is_made_again(inv(checkout))
    assert packages(checkout).parent == there


def test_a_path_without_the_systems_folders(checkout: Path) -> None:
    inv(checkout)
    assert not is_made_again(inv(checkout, PATH="/nonexistent"))


def test_a_checkout_in_a_path_with_a_colon(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    done = inv(new_checkout(folder))
    assert done.returncode == 125
    assert f"no virtual environment in a path with a colon: {folder}" in done.stderr


def test_what_to_type_for_missing_packages_begins_with_an_update() -> None:
    """As a user who may not install them, where package lists were never fetched."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        refused(Path(folder))


def refused(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("readlink", "cmp", "id", "python3", "apt-get", "flock"):
        found = shutil.which(name, path="/usr/bin:/bin")
        if found is None:
            pytest.skip(f"this host has no {name} in /usr/bin")
        (programs / name).symlink_to(found)
    checkout = tmp_path / "checkout"
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
