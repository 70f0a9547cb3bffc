# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's environment and current folder do not change a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.ci.run import collection, selection
from blockyard.kernel.host import environment
from blockyard.kernel.host.settings import PROJECT

# modules that Python, pytest, its workers and Blockyard import
NAMES = ("execnet", "pytest", "msgspec", "kernel", "ci", "tests", "invoke", "sitecustomize", "venv")
HOSTILE = "import pathlib; pathlib.Path({mark!r}).touch()\n"
# pytest with two workers, as ci.run.run calls it
WORKERS = """
import sys
sys.path.insert(0, {project!r})
from blockyard.kernel.host import environment
environment.clean()
from blockyard.ci.run import collection
arguments = ["tests/unit/test_versions.py", "-n", "2", "-c", "pyproject.toml", "--rootdir", "."]
sys.exit(collection.call(arguments, object()))
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules named like ours, which make the file `imported` when they run."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(HOSTILE.format(mark=str(tmp_path / "imported")))
    return folder


def run(argv: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def listed(cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`./inv test --list`, which runs pytest."""
    argv = [str(PROJECT / "inv"), "test", "--list", "--suite", "module", "--driver", "null_blk"]
    return run(argv, cwd, **variables)


class TestClean:
    def test_clean_removes_only_harmful_variables(self) -> None:
        variables = {
            "PYTHONOPTIMIZE": "2",
            "PYTHONPATH": "/x",
            "PYTEST_ADDOPTS": "-k x",
            "COVERAGE_PROCESS_START": "x",
            "GIT_DIR": "/x/.git",
            "GIT_CONFIG_COUNT": "1",
            "GIT_SSH_COMMAND": "ssh -i key",
            "HOME": "/root",
            "BLOCKYARD_CACHE": "/cache",
        }
        environment.clean(variables)
        kept = {"GIT_SSH_COMMAND", "HOME", "BLOCKYARD_CACHE"}
        assert variables.keys() - environment.OURS.keys() == kept

    def test_cleaned_restores_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTEST_ADDOPTS", "-k x")
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        before = dict(os.environ)
        with environment.cleaned():
            assert "PYTEST_ADDOPTS" not in os.environ
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert dict(os.environ) == before
        environment._ignored.clear()

    def test_clean_removes_all_local_variables_of_git(self) -> None:
        done = subprocess.run(
            ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True
        )
        assert set(done.stdout.split()) <= set(environment.GIT)


def test_modules_in_the_current_folder_are_not_imported(hostile: Path, tmp_path: Path) -> None:
    listed(hostile)
    run([sys.executable, "-I", "-c", WORKERS.format(project=str(PROJECT))], hostile)
    assert not (tmp_path / "imported").exists()


def test_python_variables_are_ignored(hostile: Path, tmp_path: Path) -> None:
    usual = listed(tmp_path).stdout
    bent = listed(
        tmp_path,
        PYTHONPATH=str(hostile),
        PYTHONOPTIMIZE="2",
        PYTHONWARNINGS="error",
        PYTHONHOME="/nonexistent",
        PYTHONSTARTUP=str(hostile / "pytest.py"),
    )
    assert (bent.stdout, bent.stderr) == (usual, "")
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYTEST_ADDOPTS", "-k size"),
        ("PYTEST_ADDOPTS", "--color=yes -n 4 -v"),
        ("PYTEST_PLUGINS", "no_such_plugin"),
        ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),
    ],
)
def test_pytest_variables_are_ignored_and_mentioned(tmp_path: Path, name: str, value: str) -> None:
    done = listed(tmp_path, **{name: value})
    assert done.stdout == listed(tmp_path).stdout
    assert done.stderr.splitlines() == [f"ignored: {name} (options of your own pytest runs)"]


def test_installed_plugin_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run with `-p` shows that the plugin can be found."""
    entry = tmp_path / "theirs-1.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text("Name: theirs\nVersion: 1\n")
    (entry / "entry_points.txt").write_text("[pytest11]\ntheirs = their_plugin\n")
    (tmp_path / "their_plugin.py").write_text(HOSTILE.format(mark=str(tmp_path / "imported")))
    monkeypatch.syspath_prepend(str(tmp_path))
    selected = selection.select("null_blk", "serial", "module")
    assert collection.collected(selected)
    assert not (tmp_path / "imported").exists()
    assert collection.collected(selection.with_arguments(selected, ["-p", "theirs"]))
    assert (tmp_path / "imported").exists()


def test_python_without_assertions_is_refused() -> None:
    argv = [sys.executable, "-O", str(PROJECT / "ci" / "start.py"), "--list"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Python runs with -O")


def test_deleted_current_folder_is_an_error(tmp_path: Path) -> None:
    (gone := tmp_path / "gone").mkdir()
    argv = ["sh", "-c", 'rmdir "$PWD"; exec "$0" --list', str(PROJECT / "inv")]
    done = subprocess.run(argv, cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    # the shell prints an error, too
    message = "error: the current folder is gone (No such file or directory)"
    assert done.stderr.splitlines()[-1] == message
