# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of build logs and of a module's files return a value or raise a BlockyardError."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given

from blockyard.kernel.build import errors
from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.settings import PROJECT
from blockyard.modules import dkms, draft, looks, makefiles, manifest
from blockyard.modules.folder import sources
from blockyard.tests.properties.inputs import changed, contents

LOGS = contents(PROJECT / "tests" / "unit" / "data" / "build_errors", "*.log")
EXAMPLES = PROJECT / "modules" / "examples"
MAKEFILES = (*contents(EXAMPLES, "*/Kbuild"), b"obj-$(CONFIG_X) += a.o \\\n\tb/ # c\n")
SOURCES = (*contents(EXAMPLES, "*/*.c"), *contents(EXAMPLES, "*/*.rs"))
DKMS = (b'PACKAGE_NAME="a"\nBUILT_MODULE_NAME[0]="$PACKAGE_NAME"\nMAKE="make CONFIG_A=m"\n',)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's folder; each example rewrites its files."""
    return tmp_path_factory.mktemp("driver")


@given(changed(LOGS, [b"error: ", b"Killed", b"*** ", b" | ", b"Kconfig:1:"]))
def test_build_log_is_summarized(data: bytes) -> None:
    lines = data.decode(errors="replace").splitlines()
    shown = errors.shown(errors.problems(lines), {"/mnt/src/": ""})
    assert len(shown.split("\n")) <= errors.MAX_LINES + 1


@given(changed(DKMS, [b"$PACKAGE_NAME", b"[0]", b"\\\n"]))
def test_dkms_conf_is_parsed(data: bytes) -> None:
    dkms.parse(data.decode(errors="replace"))


@given(changed(MAKEFILES, [b"$(CONFIG_", b"obj-m", b"\\\n"]))
def test_makefile_is_read(data: bytes) -> None:
    text = data.decode(errors="replace")
    makefiles.own_symbols({"Kbuild": text}, ["c_null"], {})


@given(source=changed(SOURCES), makefile=changed(MAKEFILES), package=changed(DKMS))
def test_drafted_manifest_can_be_read(
    folder: Path, source: bytes, makefile: bytes, package: bytes
) -> None:
    (folder / "manifest.toml").unlink(missing_ok=True)
    for name, data in (("a.c", source), ("Kbuild", makefile), ("dkms.conf", package)):
        (folder / name).write_bytes(data)
    module_sources = sources(folder)
    with contextlib.suppress(BlockyardError):
        looks.look(module_sources)
        draft.write(folder)
        assert manifest.of_folder(folder).modules
