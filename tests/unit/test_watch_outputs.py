# SPDX-License-Identifier: GPL-2.0-or-later
"""The output of a build is counted wherever it is hidden."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel.host import trees
from blockyard.kernel.host.limits import Limits
from blockyard.kernel.host.watch import Exceeded, Watch


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    out = tmp_path / "out"
    out.mkdir()
    yield out
    trees.remove(out)


def exceeded(out: Path) -> bool:
    with subprocess.Popen(["true"]) as process:
        watch = Watch(process, out.parent / "log", Limits(output_mib=1), [out])
        try:
            watch.check_outputs()
        except Exceeded as error:
            assert "build_output_gb" in error.hint
            return True
        return False


def fill(folder: int) -> None:
    file = os.open("data", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.write(file, b"x" * (2 << 20))
    os.close(file)


def test_visible_file_is_counted(out: Path) -> None:
    assert not exceeded(out)
    (out / "data").write_bytes(b"x" * (2 << 20))
    assert exceeded(out)


def test_file_below_a_path_longer_than_path_max_is_counted(out: Path) -> None:
    folder = os.open(out, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("a" * 100, dir_fd=folder)
        inner = os.open("a" * 100, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    fill(folder)
    os.close(folder)
    assert exceeded(out)


def test_file_in_a_folder_with_mode_0_is_counted(out: Path) -> None:
    (out / "closed").mkdir()
    (out / "closed" / "data").write_bytes(b"x" * (2 << 20))
    (out / "closed").chmod(0)
    assert exceeded(out)
