# SPDX-License-Identifier: GPL-2.0-or-later
"""The Kconfig reader, run on a small tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.config.explain import explain_failure
from blockyard.kernel.config.reader.environment import kbuild_environment, kernel_version
from blockyard.kernel.config.reader.keywords import scan_keywords
from blockyard.tests.unit.kconfig_tree import DRIVERS, Run, make_tree, reader, value


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "src")


@pytest.fixture
def run(tree: Path, tmp_path: Path) -> Run:
    return reader(tree, tmp_path)


class TestReader:
    def test_all_requested_symbols_are_reported(self, run: Run) -> None:
        """As with a distribution's configuration on a tree that lacks most of its symbols."""
        names = [f"NONE_{number}" for number in range(150)]
        assert set(names) <= set(run(*names)["symbols"])

    def test_dependencies_have_their_line_and_parts(self, run: Run) -> None:
        data = run("RNULL", requested="RNULL=m")["symbols"]["RNULL"]
        assert data["definitions"][0]["at"] == "drivers/Kconfig:15"
        rust, configfs = data["definitions"][0]["clauses"]
        assert (rust["text"], rust["at"], rust["met"]) == ("RUST", "drivers/Kconfig:17", False)
        assert configfs["alternatives"][0]["leaves"][0] == {
            "name": "CONFIGFS_FS",
            "value": "n",
            "required": "m or y",
            "met": False,
            "constant": False,
        }

    def test_built_in_needs_built_in_dependencies(self, run: Run) -> None:
        config = "CONFIG_CONFIGFS_FS=m\n"
        for requested, met in (("m", True), ("y", False)):
            report = run("RNULL", config=config, requested=f"RNULL={requested}")
            clauses = report["symbols"]["RNULL"]["definitions"][0]["clauses"]
            assert [clause["met"] for clause in clauses] == [False, met]

    def test_unmet_dependencies_are_reported_too(self, run: Run) -> None:
        assert set(run("RNULL")["symbols"]) == {
            "RNULL",
            "RUST",
            "CONFIGFS_FS",
            "RUST_IS_AVAILABLE",
        }

    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ("", "y"),  # MISC is n: nothing is required
            ("CONFIG_MISC=y\n", "n"),
            ("CONFIG_MISC=y\nCONFIG_PHY=m\n", "m"),
            ("CONFIG_MISC=y\nCONFIG_PHY=y\n", "y"),
        ],
    )
    def test_depends_on_if(self, run: Run, config: str, expected: str) -> None:
        assert value(run("USBHOST", config=config + "CONFIG_USBHOST=y\n"), "USBHOST") == expected

    @pytest.mark.parametrize(("phy", "expected"), [("n", "y"), ("m", "m"), ("y", "y")])
    def test_depends_on_itself_if_set(self, run: Run, phy: str, expected: str) -> None:
        config = f"CONFIG_PHY={phy}\nCONFIG_OPTIONAL=y\n"
        assert value(run("OPTIONAL", config=config), "OPTIONAL") == expected

    @pytest.mark.parametrize(
        ("phy", "misc", "expected"),
        [("n", "n", "y"), ("n", "y", "y"), ("y", "n", "n"), ("y", "y", "y")],
    )
    def test_depends_on_if_an_expression(
        self, run: Run, phy: str, misc: str, expected: str
    ) -> None:
        config = f"CONFIG_PHY={phy}\nCONFIG_MISC={misc}\nCONFIG_BOTH=y\n"
        assert value(run("BOTH", config=config), "BOTH") == expected

    def test_selecting_symbols_are_listed(self, run: Run) -> None:
        data = run("LZ", config="CONFIG_MISC=y\nCONFIG_EROFS=m\n")["symbols"]["LZ"]
        assert data["selected_by"] == {
            "count": 1,
            "listed": [
                {
                    "name": "EROFS",
                    "value": "n",
                    "condition": "CONFIGFS_FS",
                    "at": "drivers/Kconfig:22",
                }
            ],
        }

    def test_differences_from_the_kernels_result(self, run: Run) -> None:
        config = "CONFIG_MODULES=y\nCONFIG_MISC=y\nCONFIG_CRC=m\n"
        report = run(config=config, options="--differences")
        differences = {entry["symbol"]: entry for entry in report["differences"]}
        assert differences["CRC"] == {"symbol": "CRC", "reader": None, "kernel": "CONFIG_CRC=m"}
        assert "MISC" not in differences

    def test_unknown_keyword_is_reported(self, run: Run, tree: Path) -> None:
        with (tree / "drivers/Kconfig").open("a") as file:
            file.write('\nconfig NEW\n\tbool "New"\n\tweakens CRC\n\toption fancy\n')
        count = len(DRIVERS.splitlines())
        report = run("MISC", options="--unknown-keywords")
        assert report["unknown_keywords"] == [
            {"keyword": "weakens", "file": "drivers/Kconfig", "line": count + 4},
            {"keyword": "option fancy", "file": "drivers/Kconfig", "line": count + 5},
        ]
        assert explain_failure(report).startswith("the tree's Kconfig cannot be read: ")
        assert f"unknown Kconfig keyword 'weakens' (drivers/Kconfig:{count + 4})" in (
            explain_failure(report)
        )

    def test_language_of_7_x_is_known(self, tree: Path) -> None:
        assert scan_keywords(tree, {}) == []

    def test_output_of_a_tree_does_not_break_the_report(self, run: Run, tree: Path) -> None:
        with (tree / "drivers/Kconfig").open("a") as file:
            file.write("\n$(info,hello)\n")
        assert run("MISC")["error"] is None


class TestEnvironment:
    def test_version_of_a_makefile(self) -> None:
        makefile = "VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\nNAME = A B\n"
        assert kernel_version(makefile) == "7.4.0-rc2"

    @pytest.mark.parametrize(
        ("given", "tools"),
        [
            ({}, ("gcc", "ld", "objcopy")),
            ({"CROSS_COMPILE": "x-"}, ("x-gcc", "x-ld", "x-objcopy")),
            ({"LLVM": "1"}, ("clang", "ld.lld", "llvm-objcopy")),
            ({"LLVM": "-19"}, ("clang-19", "ld.lld-19", "llvm-objcopy-19")),
            ({"LLVM": "/opt/"}, ("/opt/clang", "/opt/ld.lld", "/opt/llvm-objcopy")),
            ({"LLVM": "1", "CC": "ccache clang"}, ("ccache clang", "ld.lld", "llvm-objcopy")),
        ],
    )
    def test_tools_from_make_variables(
        self, tree: Path, given: dict[str, str], tools: tuple[str, str, str]
    ) -> None:
        env = kbuild_environment(tree, given)
        assert (env["CC"], env["LD"], env["OBJCOPY"]) == tools

    def test_arch_and_srcarch(self, tree: Path) -> None:
        env = kbuild_environment(tree, {"ARCH": "x86_64"})
        assert (env["ARCH"], env["SRCARCH"], env["KERNELVERSION"]) == ("x86_64", "x86", "7.3.4")
