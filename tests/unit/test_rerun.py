# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that reruns a failed test."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import pytest
from _pytest.mark.expression import Expression

from blockyard.ci.run import collection, selection
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.circumstances import BlktestsCheckout, KernelOptions, Selected
from blockyard.ci.run.rerun import Rerun, expression
from blockyard.kernel import commas
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.harness import plan as harness_plan
from blockyard.tests.harness.guests import Slot

SELECTED = Selected(drivers=("null_blk", "nvme"), consoles=("serial", "ssh"), suites=("block",))
SIZE = CaseId("block", "size(4096)", Slot("nvme", "ssh", "zns"))
SIZE_NODE = "tests/suites/block/test_size.py::test_size[nvme-ssh-zns-4096]"


def test_command_for_a_suite_test() -> None:
    line = Rerun(KernelOptions(kernel="7.3"), SELECTED).command(SIZE, SIZE_NODE)
    assert shlex.split(line) == [
        "./inv",
        "test",
        *("--kernel", "7.3", "--variant", "plain"),
        *("--driver", "nvme", "--console", "ssh"),
        *("--suite", "block", "-k", "test_size[nvme-ssh-zns-4096]"),
    ]


def test_all_options_are_repeated() -> None:
    kernel = KernelOptions(
        kernel="~/linux#topic",
        variant="kasan",
        fragments=("/my fragments/a.config",),
        compiler="gcc",
        modules=("/drivers/mine", "/drivers/other"),
        series=("/a.mbox",),
        series_version=2,
    )
    selected = msgspec.structs.replace(SELECTED, topology="zns", seed=7, budget="long")
    line = Rerun(kernel, selected, trusted=True).command(SIZE, SIZE_NODE)
    words = shlex.split(line)
    for option, value in {
        "--kernel": "~/linux#topic",
        "--variant": "kasan",
        "--fragment": "/my fragments/a.config",
        "--compiler": "gcc",
        "--module": "/drivers/mine,/drivers/other",
        "--series": "/a.mbox",
        "--series-version": "2",
        "--topology": "zns",
        "--seed": "7",
    }.items():
        assert words[words.index(option) + 1] == value
    assert {"--long", "--trust-tests"} <= set(words)


def test_topology_file_and_comma_in_a_name_are_repeated(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text((PROJECT / "images" / "topologies" / "zns.toml").read_text())
    kernel = KernelOptions(kernel="https://example.org/linux#a,b")
    selected = Selected.of(selection.select(hardware=str(file)))
    words = shlex.split(Rerun(kernel, selected).command(SIZE, SIZE_NODE))
    assert words[words.index("--topology") + 1] == str(file)
    (value,) = commas.kernels([words[words.index("--kernel") + 1]])
    assert value == kernel.kernel


def test_command_for_a_blktests_test() -> None:
    checkout = BlktestsCheckout("/home/me/blktests", "0123", 10)
    name = CaseId("blktests", "block/021", Slot("null_blk", "serial"))
    words = shlex.split(Rerun(KernelOptions(kernel="7.3"), SELECTED, checkout).command(name, "x"))
    assert words[1:6] == ["blktests", "--tree", "/home/me/blktests", "--seconds", "10"]
    assert words[-2:] == ["--", "block/021"]
    assert "--suite" not in words


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("test_a.py::test_x[d-serial]", "test_x[d-serial]"),
        ("test_a.py::TestIt::test_x[d-serial]", "TestIt and test_x[d-serial]"),
        ("mine!test_a.py::test_x[d-serial-a b(c)]", "test_x[d-serial-a and b and c and ]"),
        ("test_a.py::test_x[d-serial-a or not b]", "test_x[d-serial-a and b]"),
    ],
)
def test_expression_of_a_node_id(nodeid: str, expected: str) -> None:
    assert expression(nodeid) == expected
    Expression.compile(expected)  # raises if pytest cannot parse it


def test_expression_selects_exactly_one_test(tmp_path: Path) -> None:
    """By pytest's rules for -k: a substring of the test, class, file or folder name."""
    chosen = selection.select("null_blk,nvme", "serial", "all")
    plan = tmp_path / "plan.json"
    harness_plan.write(chosen.plan(), plan)
    names = collection.collect(plan, chosen)
    by_suite: dict[tuple[str, str], list[str]] = {}
    for nodeid, name in names.items():
        by_suite.setdefault((name.suite, name.slot.driver), []).append(nodeid)
    for nodeid, name in names.items():
        compiled = Expression.compile(expression(nodeid))
        others = by_suite[name.suite, name.slot.driver]
        assert [other for other in others if compiled.evaluate(Names(other))] == [nodeid]


class Names:
    """Matches a -k word against the names that pytest has for an item: function and classes."""

    def __init__(self, nodeid: str) -> None:
        head, bracket, parameters = nodeid.partition("[")
        _, *classes, function = head.split("::")
        self._names = [name.lower() for name in (*classes, f"{function}{bracket}{parameters}")]

    def __call__(self, word: str, /, **values: object) -> bool:
        return any(word.lower() in name for name in self._names)
