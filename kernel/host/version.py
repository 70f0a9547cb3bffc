# SPDX-License-Identifier: GPL-2.0-or-later
"""The version of Blockyard, and the commit of a checkout."""

from __future__ import annotations

from dataclasses import dataclass

from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT

VERSION = "0.1.0"  # pyproject.toml and `blockyard.__version__` read it from here


@dataclass(frozen=True)
class Version:
    """The version of a Blockyard installation."""

    version: str  # such as 0.1.0
    commit: str = ""  # 40 hex digits; empty where it is not a git checkout
    modified: bool = False  # whether files differ from the commit

    def __str__(self) -> str:
        """Text such as ``0.1.0 (commit 46dc21a04d3f, modified)``."""
        if not self.commit:
            return self.version
        state = ", modified" if self.modified else ""
        return f"{self.version} (commit {self.commit[:12]}{state})"


def current() -> Version:
    """The version that is running; takes about 20 ms in a checkout, since it runs git."""
    if not (PROJECT / ".git").exists():
        return Version(VERSION)
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else ""
    return Version(VERSION, commit, bool(changes))


def _git(*words: str) -> str:
    """The output of a git command in the checkout; empty when it fails or git is missing."""
    from blockyard.kernel.host import git  # the number alone needs no git

    arguments = ["-C", str(PROJECT), *words]
    try:
        answer = git.ask(
            arguments,
            git.local(),
            doing="reading the commit of Blockyard",
            silence_s=git.LOCAL_S,
            limit_s=git.LOCAL_S,
        )
    except Failure:
        return ""
    return "" if answer.code else answer.output.decode(errors="replace").strip()
