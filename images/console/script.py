# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts for the guest that stand in .bash files, as functions to call with arguments.

A script is sent with the functions that it names, no others: reading a file of them would take a
shell 15 ms under emulation, and a slow serial port takes 20 kB a second. Those of
`images/guest/lib.bash` are there for every script.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

from blockyard.kernel.host.settings import PROJECT

LIBRARY = PROJECT / "images" / "guest" / "lib.bash"
# As ours are written: the name and the last brace begin a line.
_FUNCTION = re.compile(r"^(\w+)\(\) \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)


def call(file: Path, function: str, *arguments: object) -> str:
    """A script that calls a function of a .bash file; its first line shows the call, for errors."""
    line = words(function, *arguments)
    shown = line.replace("\n", " ")
    return f"# {shown}\n{with_functions(file, line)}\n"


def with_functions(file: Path, script: str) -> str:
    """The script, after the functions of a .bash file that it names, and those that they name."""
    functions, others = _read(file)
    found: dict[str, str] = {}
    todo = [script]
    while todo:
        named = functions.keys() & set(re.findall(r"\w+", todo.pop()))
        new = {name: functions[name] for name in sorted(named - found.keys())}
        found |= new
        todo += new.values()
    return "".join([others, *found.values()]) + script if found else script


@cache
def _read(file: Path) -> tuple[dict[str, str], str]:
    """A .bash file without its comments: function → its text; the lines outside of functions."""
    text = re.sub(r"^\s*#.*\n|^\n", "", file.read_text(), flags=re.MULTILINE)
    found = {match[1]: match[0] for match in _FUNCTION.finditer(text)}
    return found, _FUNCTION.sub("", text)


def words(*arguments: object) -> str:
    """A line of a script: a command and its arguments, each as it is."""
    return shlex.join(map(str, arguments))
