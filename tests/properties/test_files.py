# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of files from users and builds return a value or raise a BlockyardError."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.images.hardware import topologies
from blockyard.kernel import artifact
from blockyard.kernel.artifact import KernelInfo
from blockyard.kernel.config import kconfig
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources.origin import Other
from blockyard.modules import manifest
from blockyard.tests.harness import known
from blockyard.tests.properties.inputs import changed, contents

FRAGMENTS = contents(PROJECT / "kernel" / "fragments", "**/*.config")
TOPOLOGIES = contents(PROJECT / "images" / "topologies", "*.toml")
MANIFESTS = contents(PROJECT / "modules", "**/*.toml")
KNOWN = contents(PROJECT / "tests", "known_failures.toml")
KERNEL = msgspec.json.encode(
    KernelInfo(
        key="0123456789abcdef",
        name="7.3",
        release="7.3.4",
        source=Other("debian linux-source-7.3 7.3.4-1"),
        config_sha256="0" * 64,
        toolchain={"clang": "19.1.7"},
        warnings={"a.c": 1},
    )
)
DEEP = (b"a = " + b"[" * 6000, b"a." * 6000 + b"a = 1", b"a = " + b"{a=" * 3000)
SYMBOL = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
VALUE = st.one_of(
    st.sampled_from(("y", "m", "n", '""', '"a b"', '"\\""')),
    st.integers(-(1 << 63), 1 << 63).map(str),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's folder; each example rewrites its manifest."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "Kbuild").write_text("obj-m := driver.o\n")
    return folder


@given(changed(FRAGMENTS))
def test_fragment_is_read(data: bytes) -> None:
    with contextlib.suppress(BlockyardError):
        kconfig.merge([Fragment("own.config", data.decode(errors="replace"))])


@given(st.dictionaries(SYMBOL, VALUE, max_size=30))
def test_rendered_fragment_equals_its_source(values: dict[str, str]) -> None:
    text = "".join(f"CONFIG_{symbol}={value}\n" for symbol, value in values.items())
    merged = kconfig.merge([Fragment("own.config", text)])
    assert kconfig.parse(kconfig.render(merged)) == values
    assert kconfig.prove(merged.requests, values) == ()


@given(data=changed(TOPOLOGIES, DEEP))
def test_topology_is_read(folder: Path, data: bytes) -> None:
    path = folder / "own.toml"
    path.write_bytes(data)
    with contextlib.suppress(BlockyardError):
        topologies.read(path)


@given(data=changed(MANIFESTS, DEEP))
def test_manifest_is_read(folder: Path, data: bytes) -> None:
    (folder / "manifest.toml").write_bytes(data)
    with contextlib.suppress(BlockyardError):
        manifest.of_folder(folder)


@given(data=changed(KNOWN, DEEP))
def test_known_failures_are_read(folder: Path, data: bytes) -> None:
    path = folder / "known_failures.toml"
    path.write_bytes(data)
    with contextlib.suppress(BlockyardError):
        known.read(path)


@given(data=changed((KERNEL,)))
def test_kernel_json_is_read(folder: Path, data: bytes) -> None:
    (folder / "kernel.json").write_bytes(data)
    with contextlib.suppress(BlockyardError):
        artifact.load(folder)
