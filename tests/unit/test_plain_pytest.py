# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin in foreign pytest runs and in a driver's repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.ci import pytest_plugin
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.unit.test_project import NOT_GIVEN

# Exits with pytest's code and prints the imported modules of Blockyard.
PROGRAM = """
import sys
sys.path.append({project!r})
import pytest
code = pytest.main(["-p", "blockyard.ci.pytest_plugin", "-p", "no:randomly", *sys.argv[1:]])
print(*sorted(name for name in sys.modules if name.startswith("blockyard")), file=sys.stderr)
sys.exit(code)
"""
TESTS = """\
import pytest

@pytest.fixture
def guest():
    return "mine"

def test_theirs(guest):
    assert guest == "mine"
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(project=str(PROJECT))
    environment = {name: text for name, text in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_field_of_a_request_has_an_option() -> None:
    assert pytest_plugin.OPTIONS.keys() == NOT_GIVEN.keys()


def test_plugin_is_inactive_without_option_and_file(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(TESTS)
    done = run(tmp_path, "--strict-markers", "-v")
    assert "test_theirs PASSED" in done.stdout
    assert "blockyard" not in done.stdout
    assert done.stderr.split() == [
        "blockyard",
        "blockyard.ci",
        "blockyard.ci.project_file",
        "blockyard.ci.pytest_plugin",
    ]


def test_tests_are_parametrized_by_driver_and_console(tmp_path: Path) -> None:
    (tmp_path / "blockyard.toml").write_text('drivers = ["null_blk", "rnull"]\n')
    (tmp_path / "test_mine.py").write_text("def test_plain(): pass\ndef test_x(disk): pass\n")
    done = run(tmp_path, "--collect-only", "-q", "--blockyard-console", "serial")
    assert done.stdout.split("\n\n")[0].split() == [
        "test_mine.py::test_plain",
        "test_mine.py::test_x[null_blk-serial]",
        "test_mine.py::test_x[rnull-serial]",
    ]


@pytest.mark.parametrize("option", ["--blockyard-driver=nul", "--blockyard-kernel=7.33"])
def test_unknown_name_is_a_usage_error(tmp_path: Path, option: str) -> None:
    done = run(tmp_path, option)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: " in done.stderr and "did you mean" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
