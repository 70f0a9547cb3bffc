# SPDX-License-Identifier: GPL-2.0-or-later
"""Files from a build are read and written without leaving its folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import Failure, UsageError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output tree with regular files and all kinds of traps, beside a secret."""
    out = tmp_path / "out"
    (out / "include").mkdir(parents=True)
    (out / ".config").write_text("CONFIG_A=y\n")
    (out / "include" / "release").write_text("7.3.4\n")
    (tmp_path / "secret").write_text("secret")
    (out / "link").symlink_to(tmp_path / "secret")
    (out / "folder").symlink_to(tmp_path)
    os.mkfifo(out / "pipe")
    (out / "zero").symlink_to("/dev/zero")
    return out


@pytest.mark.parametrize("name", [".config", "include/release", "./include//release"])
def test_regular_file_is_read(out: Path, name: str, tmp_path: Path) -> None:
    assert untrusted.is_file(out, name)
    assert untrusted.read_text(out, name) == (out / name).read_text()
    untrusted.copy(out, name, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == (out / name).read_text()


@pytest.mark.parametrize(
    "name",
    ["../secret", "link", "folder/secret", "folder/out/.config", "pipe", "zero", "missing"]
    + ["include", "/etc/hostname", "", ".", "include/../../secret"],
)
def test_path_that_leaves_the_folder_is_refused(out: Path, name: str) -> None:
    assert not untrusted.is_file(out, name)
    with pytest.raises(Failure):
        untrusted.read(out, name)


def test_folder_itself_may_be_a_link(out: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(out)
    assert untrusted.is_file(tmp_path / "cache", ".config")


def test_file_above_the_limit_is_refused(out: Path) -> None:
    size = (out / ".config").stat().st_size
    assert untrusted.read_text(out, ".config", size) == (out / ".config").read_text()
    with pytest.raises(Failure, match=f"larger than {size - 1} bytes"):
        untrusted.read(out, ".config", size - 1)


@pytest.mark.parametrize("name", ["link", ".config", "new"])
def test_write_replaces_links_and_files(out: Path, tmp_path: Path, name: str) -> None:
    untrusted.write(out, name, b"ours")
    assert (out / name).read_text() == "ours"
    assert not (out / name).is_symlink()
    assert (tmp_path / "secret").read_text() == "secret"
    assert not [path for path in out.iterdir() if path.name.startswith(f"{name}.")]


def test_input_is_read_through_a_link(out: Path) -> None:
    (out / "alias").symlink_to(".config")
    assert untrusted.read_input(out / "alias", "the fragment") == b"CONFIG_A=y\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pipe", "not a regular file"),
        ("zero", "not a regular file"),
        ("include", "a folder"),
        ("missing", "No such file"),
        ("nul\0", "null"),
    ],
)
def test_input_that_is_not_a_file_is_refused(out: Path, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        untrusted.read_input(out / name, "the fragment")


def test_input_above_the_limit_is_refused(out: Path) -> None:
    with pytest.raises(UsageError, match=r"the fragment .*larger than 3 bytes"):
        untrusted.read_input(out / ".config", "the fragment", 3)


def test_process_substitution_can_be_read_twice() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"CONFIG_B=y\n")
    os.close(writer)
    path = Path(f"/dev/fd/{reader}")
    for _ in range(2):
        assert untrusted.read_input(path, "the fragment") == b"CONFIG_B=y\n"
    os.close(reader)


def test_sha256_of_a_file(out: Path) -> None:
    data = (out / ".config").read_bytes()
    assert untrusted.sha256(out, ".config") == hashlib.sha256(data).hexdigest()
    with pytest.raises(Failure):
        untrusted.sha256(out, "link")


def test_read_error_is_a_failure() -> None:
    """Reading /proc/self/mem at address 0 fails with EIO."""
    with pytest.raises(Failure, match="mem: Input/output error"):
        untrusted.sha256(Path("/proc/self"), "mem")
