# SPDX-License-Identifier: GPL-2.0-or-later
"""The table [tool.blockyard] of a driver's repository."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from blockyard.ci import project, project_file
from blockyard.ci.cli import options
from blockyard.ci.project import Cell, Project
from blockyard.ci.run import plain_pytest
from blockyard.kernel.host.errors import UsageError

NOT_GIVEN = dict.fromkeys(
    (
        "kernel",
        "variant",
        "module",
        "series",
        "fragment",
        "toolchain",
        "compiler",
        "driver",
        "console",
        "topology",
        "start",
        "accel",
        "budget",
    ),
    "",
)


def test_pyproject_and_blockyard_toml_hold_the_same_table(tmp_path: Path) -> None:
    lines = 'kernels = ["7.3", "./linux"]\nmodules = ["drivers/mine"]\ntopologies = ["zns"]\n'
    for name, head in {"pyproject.toml": "[tool.blockyard]\n", "blockyard.toml": ""}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(head + lines)
        assert project.find(folder) == Project(
            kernels=("7.3", f"{folder}/linux"),
            modules=(f"{folder}/drivers/mine",),
            topologies=("zns",),
        )


def test_file_is_found_from_inside_its_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repository" / "tests"
    inner.mkdir(parents=True)
    (tmp_path / "blockyard.toml").write_text("")
    (inner.parent / "blockyard.toml").write_text("")
    assert project_file.find(inner) is None
    (inner.parent / ".git").mkdir()
    assert project_file.find(inner) == inner.parent / "blockyard.toml"


def test_pyproject_without_our_table_is_ignored(tmp_path: Path) -> None:
    for text in ("[tool.blockyard-other]\n", "[tool\n", "", "# [tool.blockyard]\n"):
        (tmp_path / "pyproject.toml").write_text(text)
        assert project.find(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('kernel = ["7.3"]', "unknown key 'kernel'\n  did you mean kernels"),
        ('kernels = "7.3"', "Expected `array`, got `str`"),
        ("kernels = [", "line 2|nexpected|Invalid|invalid|Unclosed"),
    ],
)
def test_error_names_the_file(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.blockyard]\n{text}\n")
    with pytest.raises(UsageError, match=error) as caught:
        project.find(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)


def test_cells_are_all_combinations() -> None:
    both = Project(kernels=("7.3", "6.18"), variants=("plain", "kasan"))
    assert project.cells(Project()) == [Cell("", "", "")]
    assert [(cell.kernel, cell.variant) for cell in project.cells(both)] == [
        ("7.3", "plain"),
        ("7.3", "kasan"),
        ("6.18", "plain"),
        ("6.18", "kasan"),
    ]
    assert project.cells(both, kernel="7.2", variant="debug") == [Cell("7.2", "debug", "")]


class TestRequest:
    """The request that pytest's options and the file make together."""

    def test_options_win_key_by_key(self, tmp_path: Path) -> None:
        (tmp_path / "blockyard.toml").write_text(
            'kernels = ["7.3", "6.18"]\ndrivers = ["null_blk"]\nconsoles = ["ssh"]\n'
            'variants = ["debug"]\n'
        )
        request = plain_pytest.request({**NOT_GIVEN, "driver": "nvme"}, tmp_path)
        assert (request.spec.kernel, request.spec.variant) == ("7.3", "debug")
        assert (request.selection.scope.drivers, request.selection.scope.consoles) == (
            ("nvme",),
            ("ssh",),
        )
        assert request.left == ("6.18",)

    def test_unknown_budget_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="unknown budget 'lon'\n  did you mean long"):
            plain_pytest.request({**NOT_GIVEN, "budget": "lon"}, tmp_path)


class TestCells:
    """The runs of `blockyard test` in a repository, as values of its options."""

    GIVEN: ClassVar[dict[str, object]] = {
        **dict.fromkeys(("kernel", "module", "series", "fragment", "driver", "console", "suite")),
        **dict.fromkeys(("variant", "topology", "resume"), ""),
        "guests": 2,
    }

    def cells(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, **given: object
    ) -> list[dict[str, object]]:
        (folder / "blockyard.toml").write_text(text)
        monkeypatch.chdir(folder)
        return options.cells({**self.GIVEN, **given})

    def test_one_run_per_combination(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = 'kernels = ["7.3", "6.18"]\ntopologies = ["zns"]\nmodules = ["."]\nsuites = ["x"]\n'
        cells = self.cells(tmp_path, monkeypatch, text, suite=["block"])
        assert [(cell["kernel"], cell["topology"]) for cell in cells] == [
            (("7.3",), "zns"),
            (("6.18",), "zns"),
        ]
        assert cells[0]["module"] == (str(tmp_path),)
        assert (cells[0]["suite"], cells[0]["guests"]) == (["block"], 2)

    def test_resume_needs_a_single_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = 'variants = ["plain", "kasan"]\n'
        with pytest.raises(UsageError, match="asks for 2\n  name one of each"):
            self.cells(tmp_path, monkeypatch, text, resume=True)
        assert len(self.cells(tmp_path, monkeypatch, text, resume=True, variant="kasan")) == 1

    def test_folder_without_a_file_has_no_cells(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert options.cells(dict(self.GIVEN)) == []
