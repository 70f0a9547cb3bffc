# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of .bash files as guest scripts; here they run in the host's bash."""

import re
import subprocess
from pathlib import Path

import pytest

from blockyard.ci.commands.check import shell_files
from blockyard.images.console.console import _short
from blockyard.images.console.script import LIBRARY, call, with_functions
from blockyard.modules import driver
from blockyard.tests.blktests import guest
from blockyard.tests.harness import guest_state
from blockyard.tests.lib import abi, fio, nvme


def bash(script: str) -> str:
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


def test_arguments_are_passed_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "a.bash"
    file.write_text("# a comment\nshow() {\n\t# another\n\tprintf '<%s>' \"$@\"\n}\n")
    script = call(file, "show", "two words", "$HOME", "*", "", 7, "a\nb")
    assert bash(script) == "<two words><$HOME><*><><7><a\nb>"
    assert "comment" not in script


def test_only_called_functions_are_sent(tmp_path: Path) -> None:
    file = tmp_path / "a.bash"
    text = "X=1\none() {\n\ttwo $X\n}\n\ntwo() {\n\techo $1\n}\n\nthree() {\n\tno\n}\n"
    file.write_text(text)
    assert bash(call(file, "one")) == "1\n"
    assert "three" not in call(file, "one")
    assert "one()" not in call(file, "two", 7)
    assert with_functions(file, "echo none of them") == "echo none of them"


def test_functions_in_all_files_are_found() -> None:
    """A function starts with `name() {` and ends with `}` at the start of a line."""
    libraries = (abi.SCRIPTS, fio.SCRIPTS, nvme.SCRIPTS, guest.SCRIPTS, guest_state.SCRIPTS)
    for path in (LIBRARY, driver.SCRIPTS, *libraries):
        text = path.read_text()
        for name in re.findall(r"^\s*(\w+)\(\)", text, re.MULTILINE):
            assert f"{name}() {{\n" in with_functions(path, name), name


def test_errors_name_the_call(tmp_path: Path) -> None:
    file = tmp_path / "a.bash"
    file.write_text("show() {\n\ttrue\n}\n")
    assert _short(call(file, "show", "disk").encode()) == "show disk ..."


@pytest.mark.parametrize("value", abi.VALUES)
def test_value_is_written_to_each_attribute(tmp_path: Path, value: str) -> None:
    (tmp_path / "size").write_text("")
    (tmp_path / "own").mkdir()
    script = f"mkdir() {{ :; }}; rmdir() {{ :; }}; cd {tmp_path}\n"
    script += call(abi.SCRIPTS, "answers", f"{tmp_path}/own", value)
    assert bash(script) == f"size||{value.strip()}\n"


def test_scripts_name_their_shell() -> None:
    """ShellCheck takes the dialect of a file without a shebang from a comment."""
    for path in shell_files():
        if path.suffix == ".bash" and path.name not in ("shim.bash", "config.bash"):
            assert "# shellcheck shell=bash\n" in path.read_text(), path
