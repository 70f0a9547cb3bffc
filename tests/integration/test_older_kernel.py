# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel whose Rust code cannot be compiled is planned and configured without Rust."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel import catalog, sources
from blockyard.kernel.build import configure
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config import kconfig
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import tool_root
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan

OLD = "6.1"  # its Rust code only compiles with rustc 1.62


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildSpec]:
    tree = sources.cached(OLD, catalog.find(OLD))
    if tree is None:
        pytest.skip(f"the source of {OLD} is not in the cache: ./inv kernel.fetch {OLD}")
    # with a unique fragment the output tree is not shared with another run
    mine = tmp_path_factory.mktemp("fragment") / "mine.config"
    mine.write_text(f'CONFIG_LOCALVERSION="-{mine.parent.name}"\n# CONFIG_SYSVIPC is not set\n')
    job = plan.build_spec_in(tree, KernelSpec(OLD, variant="debug", fragments=(mine,)), tool_root())
    yield job
    store.remove(job.out)
    job.log.unlink(missing_ok=True)


def test_configuration_drops_no_symbol(job: BuildSpec, capfd: pytest.CaptureFixture[str]) -> None:
    assert "one version of rustc" in job.omitted["Rust"]
    assert job.omitted["rnull"].startswith("no Rust: ")
    configure.configure(job)  # raises SymbolsDropped for a symbol that 6.1 does not have
    config = kconfig.parse((job.out / ".config").read_text())
    assert config.get("RUST", "n") == "n"
    expected = ("PROVE_LOCKING", "BLK_DEV_NULL_BLK_FAULT_INJECTION", "SLUB_DEBUG")
    assert [config[symbol] for symbol in expected] == ["y", "y", "y"]
    assert config["BLK_DEV_NULL_BLK"] == "m"
    note = "mine.config:2 wins: CONFIG_SYSVIPC is n, not y as in kernel/fragments/base.config:"
    assert note in capfd.readouterr().err


def test_omission_of_rust_is_explained(job: BuildSpec) -> None:
    text = configure.why(job, "RUST")
    assert text.startswith("RUST is n\n")
    assert f"Rust is left out of kernel {job.name}: before 6.11" in text
    assert "add CONFIG_RUST" not in text
    assert not list(Path(job.out).glob("kernel/*.o"))
