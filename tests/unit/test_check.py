# SPDX-License-Identifier: GPL-2.0-or-later
"""The files and layers that `./inv check` examines."""

import tomllib

from blockyard.ci.commands import check
from blockyard.kernel.host.settings import PROJECT


def test_shell_scripts_are_found_by_suffix_and_by_first_line() -> None:
    names = {str(path.relative_to(PROJECT)) for path in check.shell_files()}
    assert {"inv", ".ci/run", "images/guest/start-ssh", "tests/blktests/shim.bash"} <= names
    assert not any(name.endswith(".py") for name in names)


def test_layers_of_imports_are_those_of_the_architecture() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in settings["contracts"]}
    assert contracts["folders"]["layers"][-5:] == ["ci", "tests", "modules", "images", "kernel"]
    assert contracts["circles"]["ancestors"] == ["blockyard"]
    layers = [contract for contract in contracts.values() if contract["type"] == "layers"]
    assert all(contract.get("exhaustive") for contract in layers)
