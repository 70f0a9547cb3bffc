# SPDX-License-Identifier: GPL-2.0-or-later
"""Commit hooks in ci/hooks: what they accept and refuse."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.unit.repositories import git

HOOKS = PROJECT / "ci" / "hooks"
SIGNED = "\n\nSigned-off-by: A Name <a@name.example>\n"


def hook(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOOKS / name), *arguments],
        cwd=folder,
        env={name: text for name, text in os.environ.items() if not name.startswith("GIT_")},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (f"{'x' * 72}{SIGNED}", ""),
        (f"{'x' * 73}{SIGNED}", "the subject has 73 characters, more than 72"),
        ("area: what", "no Signed-off-by line"),
    ],
)
def test_commit_message_is_checked(tmp_path: Path, message: str, complaint: str) -> None:
    (tmp_path / "message").write_text(message)
    done = hook("commit-message", "message", folder=tmp_path)
    assert (done.returncode != 0) == bool(complaint)
    assert complaint in done.stdout


def test_commits_since_a_base_are_checked(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", f"{'x' * 80}")
    git(tmp_path, "tag", "base")
    git(tmp_path, "commit", "--allow-empty", "-m", f"area: good{SIGNED}")
    assert hook("commits", "base", folder=tmp_path).returncode == 0
    git(tmp_path, "commit", "--allow-empty", "-m", "area: bad")
    done = hook("commits", "base", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("no Signed-off-by line") == 1


def test_nothing_is_checked_without_an_upstream(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert hook("commits", folder=tmp_path).returncode == 0


def test_missing_spdx_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("#!/bin/sh\n# SPDX-License-Identifier: GPL-2.0-or-later\n")
    (tmp_path / "bad.py").write_text("x = 1\n")
    assert hook("spdx", "good.py", folder=tmp_path).returncode == 0
    done = hook("spdx", "good.py", "bad.py", folder=tmp_path)
    assert (done.returncode, done.stdout.partition(":")[0]) == (1, "bad.py")
