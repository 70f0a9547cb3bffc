# SPDX-License-Identifier: GPL-2.0-or-later
"""dkms.conf and makefiles, read as data."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import UsageError
from blockyard.modules import dkms, makefiles
from blockyard.modules.makefiles import Objects

USUAL = """\
PACKAGE_NAME="cnull"
PACKAGE_VERSION="1.2.3"
# BUILT_MODULE_NAME[0]="commented"
BUILT_MODULE_NAME[0]="$PACKAGE_NAME-core"
BUILT_MODULE_NAME[1]='c_null'
BUILT_MODULE_LOCATION[0]="src/"
DEST_MODULE_LOCATION[0]="/updates/dkms"
MAKE[0]="make -C ${kernel_source_dir} \\
    M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build CONFIG_CNULL=m CONFIG_DEBUG=y"
AUTOINSTALL=yes
"""


class TestDkms:
    def test_usual_file(self) -> None:
        assert dkms.parse(USUAL) == dkms.Dkms(
            "cnull",
            ("cnull-core", "c_null"),
            "src",
            (("CONFIG_CNULL", "m"), ("CONFIG_DEBUG", "y")),
        )

    @pytest.mark.parametrize(
        ("value", "location"),
        [
            ("src", "src"),
            ("./src/driver/", "src/driver"),
            (".hidden/a..b", ".hidden/a..b"),
            (".", ""),
            ("..", ""),
            ("../../../etc", ""),
            ("src/../../etc", ""),
            ("src/.", ""),
            ("src//driver", ""),
            ("/etc", ""),
            ("$kernelver/src", ""),
            ("a b", ""),
            ("a;b", ""),
        ],
    )
    def test_location_is_a_folder_below(self, value: str, location: str) -> None:
        assert dkms.parse(f'BUILT_MODULE_LOCATION[0]="{value}"\n').location == location

    def test_module_name_defaults_to_the_package_name(self) -> None:
        assert dkms.parse('PACKAGE_NAME="x"\n').modules == ("x",)

    def test_commands_in_the_file_are_not_run(self, tmp_path: Path) -> None:
        text = f'PACKAGE_NAME="$(touch {tmp_path}/ran)"\n`touch {tmp_path}/ran`\n'
        dkms.parse(text)
        assert not (tmp_path / "ran").exists()

    def test_link_is_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_text(USUAL)
        (tmp_path / "dkms.conf").symlink_to("other")
        assert dkms.read(tmp_path) is None

    def test_huge_file_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / "dkms.conf").write_text("#" * (untrusted.MAKEFILE_BYTES + 1))
        with pytest.raises(UsageError, match=r"dkms\.conf is larger than 1 MiB"):
            dkms.read(tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            "A=" + "$A" * 300_000,
            "A=xx\n" + 'A="$A$A$A$A"\n' * 1000,
            "A" * 1_000_000,
            'A="' * 300_000,
            "A[" + "9" * 100_000 + "]=1",
        ],
        ids=["long", "doubling", "name", "quotes", "number"],
    )
    def test_hostile_file_is_parsed_in_linear_time(self, text: str) -> None:
        started = time.process_time()
        dkms.parse(text)
        assert time.process_time() - started < 2


class TestMakefiles:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("obj-m := c_null.o\n", [Objects("", ("c_null",))]),
            ("obj-m += a.o \\\n\tb.o # c.o\n", [Objects("", ("a", "b"))]),
            ("obj-m += src/\n", [Objects("", ("src/",))]),
            ("obj-y += src/ z.o\n", [Objects("", ("src/", "z"))]),
            ("obj-$(CONFIG_X)\t+= x-1.o\n", [Objects("X", ("x-1",))]),
            ("ifneq ($(KERNELRELEASE),)\n  obj-m := x.o\nendif\n", [Objects("", ("x",))]),
            ("x-objs := main.o\nccflags-y += -I$(src)\n# obj-m := y.o\n", []),
        ],
    )
    def test_objects_of_a_makefile(self, text: str, expected: list[Objects]) -> None:
        assert list(makefiles.objects(text)) == expected

    def test_symbols_that_a_module_depends_on(self) -> None:
        texts = {
            "Makefile": "obj-$(CONFIG_A) += c-null.o\nobj-$(CONFIG_B) += other.o\n"
            "obj-$(CONFIG_C) += sub/\nobj-$(CONFIG_D) += there/\nobj-m += x.o\n"
        }
        config = {"D": "y"}
        assert makefiles.own_symbols(texts, ["c_null"], config) == ["A", "C"]
        assert makefiles.own_symbols(texts, ["c_null"], {"A": "m", "C": "m"}) == ["D"]

    def test_extra_cflags(self) -> None:
        assert makefiles.EXTRA_CFLAGS.search("obj-m := x.o\nEXTRA_CFLAGS += -I$(src)\n")
        assert not makefiles.EXTRA_CFLAGS.search("# EXTRA_CFLAGS\nMY_EXTRA_CFLAGS = 1\n")
