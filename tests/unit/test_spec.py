# SPDX-License-Identifier: GPL-2.0-or-later
"""KernelSpec: its names and options, and errors for invalid values before any work starts."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.cli import options
from blockyard.kernel.catalog import DEFAULT
from blockyard.kernel.commas import paths
from blockyard.kernel.config import kconfig, variants
from blockyard.kernel.config.fragments import read_fragment
from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources import reader
from blockyard.kernel.spec import KernelSpec, numbered


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "mine.config"
    path.write_text("CONFIG_HZ_1000=y\n")
    return path


class TestSpec:
    def test_default_is_the_default_kernel(self) -> None:
        assert KernelSpec().name == DEFAULT

    def test_name_contains_values_that_are_not_defaults(self, fragment: Path) -> None:
        assert KernelSpec("6.12", variant="debug").name == "6.12 debug"
        spec = KernelSpec("7.3", "kasan", (fragment,), "host", "gcc")
        assert spec.name == "7.3 kasan mine.config gcc host"

    def test_options_repeat_the_spec(self, fragment: Path) -> None:
        options = KernelSpec("7.2", "big", (fragment, fragment)).options
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
    def test_unknown_name_suggests_the_nearest(
        self, options: dict[str, str], words: str, hint: str
    ) -> None:
        with pytest.raises(UsageError, match=words) as caught:
            KernelSpec(**options).checked()  # type: ignore[arg-type]
        assert hint in caught.value.hint
        assert caught.value.exit_code == 2


class TestValue:
    """A spec is a plain value: it can be sent to machines without its files."""

    REMOTE = KernelSpec(
        "/nowhere/linux#v9.9", "none", (Path("/nowhere/a.config"),), "away", "tcc",
        (Path("/nowhere/driver"),), (Path("/nowhere/patches"),), 7,
    )  # fmt: skip

    def test_spec_is_compared_without_its_files(self) -> None:
        assert replace(self.REMOTE, series_version=7) == self.REMOTE
        assert replace(self.REMOTE, series_version=8) != self.REMOTE
        with pytest.raises(UsageError):
            self.REMOTE.checked()

    def test_spec_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(self.REMOTE)) == self.REMOTE

    def test_spec_round_trips_through_json(self) -> None:
        data = msgspec.json.encode(self.REMOTE, enc_hook=str)
        made = msgspec.json.decode(data, type=KernelSpec, dec_hook=lambda kind, text: kind(text))
        assert made == self.REMOTE

    def test_checked_returns_a_valid_spec(self, fragment: Path) -> None:
        spec = KernelSpec(fragments=(fragment,))
        assert spec.checked() is spec


class TestFragments:
    def test_missing_fragment_is_a_usage_error(self, tmp_path: Path) -> None:
        path = tmp_path / "none.config"
        with pytest.raises(UsageError, match=r"none\.config: No such file or directory"):
            KernelSpec(fragments=(path,)).checked()

    def test_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="it is a folder"):
            KernelSpec(fragments=(tmp_path,)).checked()

    def test_large_fragment_is_refused(self, fragment: Path) -> None:
        fragment.write_text("#" * (untrusted.CONFIG_BYTES + 1))
        with pytest.raises(UsageError, match=r"mine\.config: it is larger than 4 MiB"):
            KernelSpec(fragments=(fragment,)).checked()

    def test_binary_fragment_is_refused(self, fragment: Path) -> None:
        fragment.write_bytes(b"\xff\xfe")
        with pytest.raises(UsageError, match=r"mine\.config: it is not UTF-8 text"):
            KernelSpec(fragments=(fragment,)).checked()

    def test_byte_order_mark_is_ignored(self, fragment: Path) -> None:
        fragment.write_bytes(b"\xef\xbb\xbfCONFIG_HZ_1000=y\r\n")
        assert kconfig.merge([read_fragment(fragment)]).requests["HZ_1000"].value == "y"

    def test_stdin_can_be_read_twice(self) -> None:
        script = (
            "from pathlib import Path; from blockyard.kernel.spec import KernelSpec;"
            "from blockyard.kernel.config.fragments import read_fragment;"
            "stream = Path('/dev/stdin'); spec = KernelSpec(fragments=(stream,)).checked();"
            "print(read_fragment(stream).text)"
        )
        argv = [sys.executable, "-c", script]
        done = subprocess.run(
            argv, input=b"CONFIG_HZ_1000=y\n", cwd=PROJECT, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == "CONFIG_HZ_1000=y"

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
    def test_fifo_or_device_is_refused(self, tmp_path: Path, make: Callable[[Path], None]) -> None:
        path = tmp_path / "mine.config"
        make(path)
        with pytest.raises(UsageError, match="it is not a regular file"):
            KernelSpec(fragments=(path,)).checked()

    def test_invalid_line_is_named(self, fragment: Path) -> None:
        fragment.write_text("CONFIG_A=y\nCONFIG_B = y\n")
        with pytest.raises(UsageError, match=r"mine\.config:2: cannot read 'CONFIG_B = y'"):
            KernelSpec(fragments=(fragment,)).checked()


class TestPaths:
    def test_paths_are_separated_by_commas(self) -> None:
        assert paths(" a, b/c ,,") == (Path("a"), Path("b/c"))
        assert paths("") == ()

    def test_existing_path_may_contain_commas(self, tmp_path: Path) -> None:
        odd = tmp_path / "comma, and, space"
        odd.mkdir()
        (tmp_path / "b").touch()
        assert paths(f"{tmp_path}/b,{odd},c") == (tmp_path / "b", odd, Path("c"))
        spec = KernelSpec(modules=(odd, tmp_path / "b"))
        index = spec.options.index("--module")
        assert paths(spec.options[index + 1]) == spec.modules

    def test_ambiguous_commas_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a", "b", "a,b"):
            (tmp_path / name).touch()
        with pytest.raises(UsageError, match=r"'a,b' is ambiguous: one path, or 2 paths") as caught:
            paths("a,b")
        assert "./a,./b" in caught.value.hint
        assert paths("./a,./b") == (Path("a"), Path("b"))


class TestSeriesVersion:
    def test_series_version_is_part_of_the_options(self, tmp_path: Path) -> None:
        folder = PROJECT / "tests/unit/data/series/two-versions"
        spec = KernelSpec(series=(folder,), series_version=1)
        assert spec.options[-2:] == ["--series-version", "1"]
        with pytest.raises(UsageError, match="has no version 7"):
            KernelSpec(series=(folder,), series_version=7).checked()

    def test_series_version_changes_the_patches(self) -> None:
        folder = PROJECT / "tests/unit/data/series/two-versions"
        texts = [
            [patch.text for patch in reader.read(folder, version).patches] for version in (1, 2)
        ]
        assert texts[0] != texts[1]

    @pytest.mark.parametrize("text", ["v2", "-1", "2.0", "٣", "99999"])
    def test_series_version_must_be_a_number(self, text: str) -> None:
        with pytest.raises(UsageError, match="invalid --series-version"):
            numbered("--series-version", text)
        assert (numbered("--series-version", "12"), numbered("--series-version", "")) == (12, None)


class TestVariants:
    def test_all_variants_are_in_the_help(self) -> None:
        assert variants.names() == ("plain", "big", "debug", "faults", "kasan", "symbols", "ubsan")
        (_, text) = options.KERNEL["variant"]
        assert set(re.findall(r"[a-z]+", text)) >= set(variants.names())

    def test_plain_has_no_fragments(self) -> None:
        assert variants.fragments("plain", rust=True) == []

    def test_rust_symbols_are_requested_only_with_rust(self) -> None:
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
    def test_variants_that_request_a_symbol(self, symbol: str, names: list[str]) -> None:
        assert variants.with_symbol(symbol) == names
