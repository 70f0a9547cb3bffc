# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user may choose, and what is said of a choice that is none, before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel import kconfig, variants
from kernel.catalog import DEFAULT
from kernel.choice import Choice
from kernel.host.errors import UserError
from kernel.host.settings import PROJECT


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "mine.config"
    path.write_text("CONFIG_HZ_1000=y\n")
    return path


class TestChoice:
    def test_nothing_chosen_is_the_main_job(self) -> None:
        assert Choice().name == DEFAULT

    def test_the_name_tells_what_is_unusual(self, fragment: Path) -> None:
        assert Choice("6.12", variant="debug").name == "6.12 debug"
        choice = Choice("7.3", "kasan", (fragment,), "host", "gcc")
        assert choice.name == "7.3 kasan mine.config gcc host"

    def test_its_options_say_the_same(self, fragment: Path) -> None:
        options = Choice("7.2", "big", (fragment, fragment)).options
        pairs = dict(zip(options[::2], options[1::2], strict=True))
        assert (pairs["--kernel"], pairs["--variant"]) == ("7.2", "big")
        assert pairs["--fragment"] == f"{fragment},{fragment}"

    @pytest.mark.parametrize(
        ("options", "words", "hint"),
        [
            ({"kernel": "7.33"}, "unknown kernel '7.33'", "7.3"),
            ({"variant": "kasn"}, "unknown variant 'kasn'", "kasan"),
            ({"variant": "../base"}, "unknown variant", "known"),
            ({"toolchain": "hosts"}, "unknown toolchain 'hosts'", "host"),
            ({"compiler": "clang"}, "unknown compiler 'clang'", "gcc"),
        ],
    )
    def test_an_unknown_name_gets_the_nearest(
        self, options: dict[str, str], words: str, hint: str
    ) -> None:
        with pytest.raises(UserError, match=words) as caught:
            Choice(**options)  # type: ignore[arg-type]
        assert hint in caught.value.hint
        assert caught.value.exit_code == 2


class TestFragments:
    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "none.config"
        with pytest.raises(UserError, match=r"none\.config: No such file or directory"):
            Choice(fragments=(path,))

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="Is a directory"):
            Choice(fragments=(tmp_path,))

    def test_one_that_is_no_text(self, fragment: Path) -> None:
        fragment.write_bytes(b"\xff\xfe")
        with pytest.raises(UserError, match=r"mine\.config: it is no UTF-8 text"):
            Choice(fragments=(fragment,))

    def test_a_line_that_cannot_be_read_is_named(self, fragment: Path) -> None:
        fragment.write_text("CONFIG_A=y\nCONFIG_B = y\n")
        with pytest.raises(UserError, match=r"mine\.config:2: cannot read 'CONFIG_B = y'"):
            Choice(fragments=(fragment,))


class TestVariants:
    def test_all_are_there_and_told_in_the_help(self) -> None:
        assert variants.names() == ("plain", "big", "debug", "faults", "kasan", "symbols", "ubsan")
        text = (PROJECT / "tasks.py").read_text()
        assert "plain, debug, faults, kasan, ubsan, symbols or big" in text

    def test_plain_adds_nothing(self) -> None:
        assert variants.fragments("plain", rust=True) == []

    def test_what_needs_rust_is_asked_for_with_rust_only(self) -> None:
        with_rust = kconfig.merge(variants.fragments("debug", rust=True)).requests
        without = kconfig.merge(variants.fragments("debug", rust=False)).requests
        assert set(with_rust) - set(without) == {"RUST", "RUST_DEBUG_ASSERTIONS"}

    @pytest.mark.parametrize("name", variants.names())
    def test_drivers_under_test_stay_modules(self, name: str) -> None:
        requests = kconfig.merge(variants.fragments(name, rust=True)).requests
        drivers = {"BLK_DEV_NULL_BLK", "BLK_DEV_NVME", "BLK_DEV_RUST_NULL"}
        assert not drivers & set(requests)

    @pytest.mark.parametrize(
        ("symbol", "names"),
        [
            ("KASAN", ["kasan"]),
            ("FAULT_INJECTION", ["debug", "faults"]),
            ("RUST_DEBUG_ASSERTIONS", ["debug"]),
            ("PREEMPT_LAZY", []),  # debug switches it off
            ("NO_SUCH_SYMBOL", []),
        ],
    )
    def test_which_one_asks_for_a_symbol(self, symbol: str, names: list[str]) -> None:
        assert variants.asking_for(symbol) == names
