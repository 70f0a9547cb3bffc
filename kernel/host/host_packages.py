# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian packages that Blockyard needs on the host, and the command that installs them.

``./inv`` of a checkout installs missing ones where it has the rights to; an installed Blockyard
only names them.
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
    """The programs that every build needs; newuidmap only for users without root rights."""
    return ["mmdebstrap", "bwrap", *(["newuidmap"] if os.geteuid() != 0 else [])]


def missing() -> list[str]:
    """The required packages that are not installed."""
    packages = [PACKAGES[program] for program in required() if shutil.which(program) is None]
    return packages if KEYRING.is_file() else [*packages, KEYRING_PACKAGE]


def install_command(*packages: str) -> str:
    """The command that installs packages, with sudo for a normal user."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {' '.join(packages)}"


def hint(program: str) -> str:
    """What to do when a program is not installed; names all other missing packages as well."""
    if program not in PACKAGES:
        return f"install {program}, or add its folder to PATH"
    return install_command(*dict.fromkeys([PACKAGES[program], *missing()]))
