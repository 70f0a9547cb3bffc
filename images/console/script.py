# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds scripts for the guest that call functions of .bash files.

A script is sent with only the functions that it names: a shell needs 15 ms under emulation to read
a whole file of them, and a slow serial port carries 20 kB/s. Every script can use the functions of
`images/guest/lib.bash`.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

from blockyard.kernel.host.settings import PROJECT

LIBRARY = PROJECT / "images" / "guest" / "lib.bash"
# Our style: the name and the closing brace are at the start of a line.
_FUNCTION = re.compile(r"^(\w+)\(\) \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)


def call(file: Path, function: str, *arguments: object) -> str:
    """A script that calls a function of a .bash file.

    Its first line is a comment with the call, which error messages quote.
    """
    line = words(function, *arguments)
    shown = line.replace("\n", " ")
    return f"# {shown}\n{with_functions(file, line)}\n"


def with_functions(file: Path, script: str) -> str:
    """The script, preceded by the functions of a .bash file that it names, directly or not."""
    functions, others = _read(file)
    needed: dict[str, str] = {}
    todo = [script]
    while todo:
        named = functions.keys() & set(re.findall(r"\w+", todo.pop()))
        new = {name: functions[name] for name in sorted(named - needed.keys())}
        needed |= new
        todo += new.values()
    return "".join([others, *needed.values()]) + script if needed else script


@cache
def _read(file: Path) -> tuple[dict[str, str], str]:
    """A .bash file without comments: name → text of each function, and the lines outside them."""
    text = re.sub(r"^\s*#.*\n|^\n", "", file.read_text(), flags=re.MULTILINE)
    functions = {match[1]: match[0] for match in _FUNCTION.finditer(text)}
    return functions, _FUNCTION.sub("", text)


def words(*arguments: object) -> str:
    """A line of a script: a command and its arguments, quoted for the shell."""
    return shlex.join(map(str, arguments))
