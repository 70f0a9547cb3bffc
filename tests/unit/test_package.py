# SPDX-License-Identifier: GPL-2.0-or-later
"""The installed package: its dependencies, and messages that name the installed command."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import blockyard
from blockyard.ci import output
from blockyard.ci.cli import namespace, options
from blockyard.kernel.host import host_packages, installation, version
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.installation import PROJECT, as_typed


def test_dependencies_agree_with_requirements_in() -> None:
    text = (PROJECT / "requirements.in").read_text()
    needed, _, _ = text.partition("# what ./inv check needs besides")
    names = [line for line in needed.splitlines() if not line.startswith("#")]
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == names


@pytest.mark.parametrize(
    ("started", "installed", "expected"),
    [
        ("/home/me/blockyard/ci/start.py", False, "./inv"),
        ("/usr/lib/python3/site-packages/pytest/__main__.py", False, "./inv"),
        ("/home/me/.local/bin/blockyard", True, "blockyard"),
        ("/home/me/checkout/.venv/bin/blockyard", False, "blockyard"),
        ("/usr/lib/python3/site-packages/blockyard/__main__.py", True, "python -m blockyard"),
        ("/home/me/.venv/bin/pytest", True, "blockyard"),
    ],
)
def test_hints_name_the_command_that_the_user_typed(
    monkeypatch: pytest.MonkeyPatch, started: str, installed: bool, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr(installation, "INSTALLED", installed)
    error = UsageError("no tool root: ./inv build makes it", hint="./inv doctor or ./inv build")
    assert error.what == f"no tool root: {expected} build makes it"
    assert error.hint == f"{expected} doctor or {expected} build"


def test_paths_that_end_with_inv_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "INSTALLED", True)
    for text in ("../inv boot", "see a/./inv boot", "./inventory"):
        assert as_typed(text) == text


def test_missing_host_packages_come_with_an_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host_packages, "KEYRING", tmp_path / "no-keyring.gpg")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert host_packages.hint("bwrap") == (
        "sudo apt-get install bubblewrap mmdebstrap uidmap debian-archive-keyring"
    )
    assert host_packages.hint("qemu-img") == "install qemu-img, or add its folder to PATH"


@pytest.mark.parametrize("name", blockyard.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(blockyard, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'blockyard' has no attribute 'bot'"):
        blockyard.bot  # noqa: B018


def test_import_of_blockyard_is_lazy() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import blockyard\n"
        "print([name for name in sys.modules if name.startswith(('blockyard.', 'pytest'))])"
    )
    argv = [sys.executable, "-I", "-c", program]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_package_has_its_version() -> None:
    assert blockyard.__version__ == version.VERSION


class TestPages:
    def test_output_names_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        page = output.page_file(PROJECT / "docs" / "x.md", write=False, output="x.md")
        assert page == tmp_path / "x.md"

    def test_write_selects_the_page_in_the_checkout(self) -> None:
        page = PROJECT / "docs" / "x.md"
        assert output.page_file(page, write=True, output="") == page
        assert output.page_file(page, write=False, output="") is None

    def test_missing_output_folder_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "no-such" / "x.md"
        with pytest.raises(UsageError, match=f"the folder {path.parent} does not exist"):
            output.page_file(path, write=False, output=str(path))

    def test_write_and_output_exclude_each_other(self) -> None:
        with pytest.raises(UsageError, match="one page goes to one file"):
            output.page_file(Path("x.md"), write=True, output="y.md")


class TestInstalledCommands:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(installation, "INSTALLED", True)

    @pytest.mark.parametrize("path", options.IN_A_CHECKOUT)
    def test_command_for_checkouts_is_refused(
        self, path: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = namespace.known()[path]
        with pytest.raises(Exit) as refused:
            command(Context())
        assert refused.value.code == 2
        assert f"{path} needs a checkout of Blockyard" in capsys.readouterr().err

    def test_write_offers_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(Exit):
            namespace.known()["parity"](Context(), write=True)
        assert "--output FILE" in capsys.readouterr().err
