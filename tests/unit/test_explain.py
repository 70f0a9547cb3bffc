# SPDX-License-Identifier: GPL-2.0-or-later
"""Explanations of a symbol's value, made from the Kconfig reader's report."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from blockyard.kernel.config.explain import explain, explain_dropped
from blockyard.kernel.config.kconfig import Fragment, merge, parse, prove
from blockyard.kernel.config.reader.reader import nearest
from blockyard.tests.unit.kconfig_tree import DRIVERS, Run, make_tree, reader


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "src")


@pytest.fixture
def run(tree: Path, tmp_path: Path) -> Run:
    return reader(tree, tmp_path)


def explained(run: Run, name: str, config: str = "", **fragments: str) -> str:
    merged = merge([Fragment(f"{key}.config", text) for key, text in fragments.items()])
    requested = " ".join(f"{r.symbol}={r.value}" for r in merged.requests.values())
    return str(explain(run(name, config=config, requested=requested), name, merged.requests))


def golden(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


class TestExplain:
    def test_chain_of_dependencies_down_to_a_tool(self, run: Run) -> None:
        text = explained(
            run, "RNULL", base="# CONFIG_CONFIGFS_FS is not set\n", rnull="\n\nCONFIG_RNULL=m\n"
        )
        assert text == golden("""
            RNULL is n, wanted m (rnull.config:3)
              depends on RUST [=n] (drivers/Kconfig:17)
                RUST: depends on RUST_IS_AVAILABLE [=n] (drivers/Kconfig:6)
                  RUST_IS_AVAILABLE: the tree's check of the tools says n (drivers/Kconfig:1)
                    Rust compiler 'rustc' is too old. Your version: 1.63.0 Minimum version: 1.85.0
              depends on CONFIGFS_FS [=n] (drivers/Kconfig:17)
                CONFIGFS_FS can be m, but base.config:1 says n
              what to do:
                - `make rustavailable` in that tree says which Rust tool is missing or too old; \
scripts/min-tool-version.sh has the versions it needs (--toolchain host takes the tools on PATH)
                - add CONFIG_RUST=y to rnull.config
                - change base.config:1 to CONFIG_CONFIGFS_FS=m
        """)

    def test_symbol_inside_an_if_block(self, run: Run) -> None:
        assert explained(run, "EROFS", base="CONFIG_EROFS=y\n") == golden("""
            EROFS is n, wanted y (base.config:1)
              defined only inside `if MISC` [=n] (drivers/Kconfig:21)
                MISC can be y, but no fragment sets it
              what to do:
                - add CONFIG_MISC=y to base.config
        """)

    def test_alternative_dependencies(self, run: Run) -> None:
        config = "CONFIG_CONFIGFS_FS=y\n"
        assert explained(run, "EITHER", config, base="CONFIG_EITHER=y\n") == golden("""
            EITHER is n, wanted y (base.config:1)
              depends on PHY || (MISC && !CONFIGFS_FS) [=n] (drivers/Kconfig:63)
                PHY can be m, but no fragment sets it
                MISC can be y, but no fragment sets it
                CONFIGFS_FS is y, must be n
              what to do:
                - one of: add CONFIG_PHY=m to base.config; or add CONFIG_MISC=y to base.config \
and add '# CONFIG_CONFIGFS_FS is not set' to base.config
        """)

    def test_conditional_dependency_is_shown_as_written(self, run: Run) -> None:
        assert explained(run, "USBHOST", "CONFIG_MISC=y\n", usb="CONFIG_USBHOST=m\n") == golden("""
            USBHOST is n, wanted m (usb.config:1)
              depends on PHY if MISC [=n] (drivers/Kconfig:43)
                PHY can be m, but no fragment sets it
                MISC is y, must be n
              what to do:
                - one of: add CONFIG_PHY=m to usb.config; \
or add '# CONFIG_MISC is not set' to usb.config
        """)

    def test_misspelt_symbol(self, run: Run) -> None:
        assert explained(run, "CONFIGF_FS", base="CONFIG_CONFIGF_FS=y\n") == golden("""
            CONFIGF_FS does not exist in Linux 7.3.4 (base.config:1); the nearest names: CONFIGFS_FS
              what to do:
                - correct the name or remove it in base.config
        """)

    def test_symbol_without_a_prompt(self, run: Run) -> None:
        assert explained(run, "CRC", base="CONFIG_CRC=y\n") == golden("""
            CRC is n, wanted y (base.config:1)
              CRC has no prompt: no fragment can set it; selected by EROFS
              what to do:
                - turn on what selects CRC: EROFS
        """)

    def test_selected_symbol_that_is_requested_off(self, run: Run) -> None:
        config = "CONFIG_MISC=y\nCONFIG_EROFS=y\n"
        assert explained(run, "CRC", config, base="# CONFIG_CRC is not set\n") == golden("""
            CRC is y, wanted n (base.config:1)
              selected by EROFS (drivers/Kconfig:22)
              it has no prompt: a fragment cannot turn it off
              what to do:
                - turn off EROFS, which selects it
        """)

    def test_another_member_of_a_choice(self, run: Run) -> None:
        config = "CONFIG_SERVER=y\n"
        assert explained(run, "DESKTOP", config, base="CONFIG_DESKTOP=y\n") == golden("""
            DESKTOP is n, wanted y (base.config:1)
              SERVER is chosen instead (drivers/Kconfig:53): 'Model' is one of SERVER, DESKTOP
              what to do:
                - set DESKTOP and no other symbol of that choice
        """)

    def test_bool_requested_as_a_module(self, run: Run) -> None:
        assert explained(run, "MISC", base="CONFIG_MISC=m\n") == golden("""
            MISC is n, wanted m (base.config:1)
              it is a bool (drivers/Kconfig:19): m is not possible
              what to do:
                - change base.config:1 to CONFIG_MISC=y
        """)

    def test_module_without_module_support(self, run: Run) -> None:
        config = "# CONFIG_MODULES is not set\n"
        assert explained(run, "PHY", config, base="CONFIG_PHY=m\n") == golden("""
            PHY is n, wanted m (base.config:1)
              m needs MODULES [=n]
              what to do:
                - add CONFIG_MODULES=y to base.config
        """)

    def test_module_that_became_built_in(self, run: Run) -> None:
        config = "CONFIG_MISC=y\nCONFIG_EROFS=y\n"
        assert explained(run, "CRC", config, base="CONFIG_CRC=m\n") == golden("""
            CRC is y, wanted m (base.config:1)
              selected by EROFS (drivers/Kconfig:22)
              defined at drivers/Kconfig:28 (tristate)
        """)

    def test_symbol_that_is_on_by_default(self, run: Run) -> None:
        assert explained(run, "MODULES") == golden("""
            MODULES is y
              its default y holds (Kconfig:3)
              defined at Kconfig:3 (bool)
        """)

    def test_dependencies_of_a_symbol_that_is_on(self, run: Run) -> None:
        config = "CONFIG_MISC=y\nCONFIG_EROFS=m\n"
        assert explained(run, "EROFS", config, base="CONFIG_MISC=y\nCONFIG_EROFS=m\n") == golden("""
            EROFS is m, wanted m (base.config:2)
              set by base.config:2
              defined at drivers/Kconfig:22 (tristate)
                defined only inside `if MISC` [=y] (drivers/Kconfig:21)
        """)

    def test_request_for_the_selecting_symbol(self, run: Run) -> None:
        config = "CONFIG_MISC=y\nCONFIG_EROFS=m\n"
        assert explained(run, "CRC", config, base="CONFIG_MISC=y\nCONFIG_EROFS=m\n") == golden("""
            CRC is m
              selected by EROFS (drivers/Kconfig:22), which is set by base.config:2
              defined at drivers/Kconfig:28 (tristate)
        """)

    def test_symbol_that_is_off_as_requested(self, run: Run) -> None:
        assert explained(run, "PHY", base="# CONFIG_PHY is not set\n") == golden("""
            PHY is n, wanted n (base.config:1)
              PHY can be m or y, but base.config:1 says n
              what to do:
                - change base.config:1 to CONFIG_PHY=m
        """)

    def test_symbol_that_is_not_requested(self, run: Run) -> None:
        assert explained(run, "MISC") == golden("""
            MISC is n
              MISC can be y, but no fragment sets it
              what to do:
                - add CONFIG_MISC=y to a fragment of your own (--fragment FILE)
        """)

    def test_refusal_replaces_the_advice(self, run: Run) -> None:
        refusals = ["Rust is left out of kernel 7.3: too old"]
        assert str(explain(run("MISC"), "MISC", {}, refusals)) == golden("""
            MISC is n
              Rust is left out of kernel 7.3: too old
              MISC can be y, but no fragment sets it
        """)
        assert str(explain(run("RNUL"), "RNUL", {}, refusals)) == golden("""
            RNUL does not exist in Linux 7.3.4; the nearest names: RNULL
              Rust is left out of kernel 7.3: too old
        """)

    def test_defaults_of_a_symbol_without_a_prompt(self, run: Run, tree: Path) -> None:
        with (tree / "drivers/Kconfig").open("a") as file:
            file.write("\nconfig HIDDEN\n\tdef_bool PHY && MISC\n\tdefault y if PHY\n")
        line = len(DRIVERS.splitlines()) + 2
        assert explained(run, "HIDDEN") == golden(f"""
            HIDDEN is n
              HIDDEN has no prompt: no fragment can set it; its defaults (drivers/Kconfig:{line}):
                default PHY && MISC
                default y if PHY [=n]
        """)

    def test_each_dropped_request_has_a_paragraph(self, run: Run) -> None:
        requests = merge([Fragment("a.config", "CONFIG_EROFS=y\nCONFIG_CRC=y\n")]).requests
        dropped = prove(requests, parse("CONFIG_MODULES=y\n"))
        report = run(*(entry.symbol for entry in dropped), requested="EROFS=y CRC=y")
        first, second = explain_dropped(report, dropped, requests).split("\n\n")
        assert first.startswith("CRC is n, wanted y (a.config:2)")
        assert second.startswith("EROFS is n, wanted y (a.config:1)")


class TestNearest:
    NAMES = ("BLK_DEV_NULL_BLK", "BLK_DEV_NVME", "RETPOLINE", "PREEMPT", "EROFS_FS", "EXT4_FS")

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("BLK_DEV_RUST_NULL", ["BLK_DEV_NULL_BLK"]),
            ("MITIGATION_RETPOLINE", ["RETPOLINE"]),
            ("PREEMPT_LAZY", ["PREEMPT"]),
            ("EROFSFS", ["EROFS_FS"]),
            ("erofs_fs", ["EROFS_FS"]),
            ("USB_STORAGE", []),
        ],
    )
    def test_nearest_names(self, name: str, near: list[str]) -> None:
        assert nearest(name, list(self.NAMES)) == near
