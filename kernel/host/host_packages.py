# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian packages that Blockyard needs on the host, and the command that installs them.

``./inv`` installs what is missing where it may; an installed Blockyard only names it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KEYRING_PACKAGE = "debian-archive-keyring"
# program → package
PACKAGES = {"mmdebstrap": "mmdebstrap", "bwrap": "bubblewrap", "newuidmap": "uidmap", "git": "git"}


def required() -> list[str]:
    """The programs that every build needs. newuidmap: of users without root rights."""
    return ["mmdebstrap", "bwrap", *(["newuidmap"] if os.geteuid() != 0 else [])]


def missing() -> list[str]:
    """The packages of what is required and not installed."""
    found = [PACKAGES[program] for program in required() if shutil.which(program) is None]
    return found if KEYRING.is_file() else [*found, KEYRING_PACKAGE]


def install_command(*packages: str) -> str:
    """The command that installs packages."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {' '.join(packages)}"


def hint(program: str) -> str:
    """What to do when a program is not installed: names all that is missing."""
    if program not in PACKAGES:
        return f"install {program}, or add its folder to PATH"
    return install_command(*dict.fromkeys([PACKAGES[program], *missing()]))
