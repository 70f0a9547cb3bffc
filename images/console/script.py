# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts for the guest that stand in .bash files, as functions to call with arguments.

They have the functions of `images/guest/lib.bash` besides, as every script in a guest.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path


@cache
def functions(file: Path) -> str:
    """The text of a .bash file without its comments: a slow serial port takes 20 kB a second."""
    return re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE)


def call(file: Path, function: str, *arguments: object) -> str:
    """A script that calls a function of a .bash file; its first line shows the call, for errors."""
    line = words(function, *arguments)
    shown = line.replace("\n", " ")
    return f"# {shown}\n{functions(file)}\n{line}\n"


def words(*arguments: object) -> str:
    """A line of a script: a command and its arguments, each as it is."""
    return shlex.join(map(str, arguments))
