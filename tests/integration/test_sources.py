# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees from commits and tarballs are unpacked in the real tool root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel.catalog import Git, Tarball
from blockyard.kernel.host.debian import ToolRoot, tool_root
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources import debian, fetch


@pytest.fixture(scope="module")
def tools() -> ToolRoot:
    return tool_root()


@pytest.fixture(autouse=True)
def cache(tools: ToolRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A temporary cache for the trees; `tools` comes from the usual cache."""
    monkeypatch.setenv("BLOCKYARD_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    path = tmp_path / "linux"
    path.mkdir()
    (path / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 4\n")
    (path / "Kconfig").write_text('mainmenu "Linux"\n')
    return path


def commit(path: Path) -> str:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        argv = ["git", "-C", str(path), *identity, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message=first")
    return git("rev-parse", "HEAD")


def test_tree_of_a_commit_has_no_uncommitted_changes(linux: Path, tools: ToolRoot) -> None:
    sha = commit(linux)
    (linux / "Makefile").write_text("VERSION = 9\nPATCHLEVEL = 9\n")  # not committed
    before = sorted(path.name for path in (linux / ".git").iterdir())
    tree = fetch("mine", Git(str(linux), "main"), tools)
    assert tree.version == "7.4.0"
    assert str(tree.origin).endswith(sha)
    assert sorted(path.name for path in (linux / ".git").iterdir()) == before


def test_release_candidate_is_older_than_its_release(tools: ToolRoot) -> None:
    assert debian.is_older("7.3~rc7-1~exp1", "7.3.4-1~bpo13+1", tools)
    assert not debian.is_older("7.3.4-1", "7.3~rc7-1", tools)
    assert not debian.is_older("7.3.4-1", "7.3.4-1", tools)


def test_tarball_is_unpacked(linux: Path, tools: ToolRoot) -> None:
    tarball = linux.parent / "linux-7.4.tar.gz"
    subprocess.run(["tar", "-czf", tarball, "-C", linux.parent, "linux"], check=True)
    tree = fetch("mine", Tarball(str(tarball)), tools)
    assert tree.version == "7.4.0"


def test_tarball_without_a_kernel_is_a_usage_error(tmp_path: Path, tools: ToolRoot) -> None:
    (tmp_path / "other").mkdir()
    tarball = tmp_path / "other.tar"
    subprocess.run(["tar", "-cf", tarball, "-C", tmp_path, "other"], check=True)
    with pytest.raises(UsageError, match="is not a kernel source tree"):
        fetch("mine", Tarball(str(tarball)), tools)
