# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv test -- ARGS`: arguments for pytest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from blockyard.ci.run import collection, execute, resume, selection
from blockyard.ci.run.selection import Selection
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest


@pytest.fixture
def chosen() -> Selection:
    return selection.select("null_blk", "serial", "module")


@pytest.mark.parametrize(
    ("words", "json", "message"),
    [
        (["-n", "4"], False, "-n cannot be used here\n  --guests N"),
        (["--collect-only"], False, "--list lists the tests"),
        (["-x"], True, "--json and options for pytest"),
    ],
)
def test_argument_with_an_own_option_is_refused(
    chosen: Selection, words: list[str], json: bool, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        selection.with_arguments(chosen, words, json=json)


def test_sandboxed_module_tests_take_no_arguments(tmp_path: Path, chosen: Selection) -> None:
    folder = shutil.copytree(PROJECT / "modules" / "examples" / "c_null", tmp_path / "mine")
    shutil.copy(PROJECT / "tests" / "suites" / "module" / "test_load.py", folder)
    mine = selection.select("mine", "serial", "mine", outside=[manifest.of_folder(folder)])
    with pytest.raises(UsageError, match="add --trust-tests"):
        selection.with_arguments(mine, ["-x"])
    trusted = selection.trusting(mine, trust=True)
    assert selection.with_arguments(trusted, ["-x"]).arguments == ("-x",)


def test_arguments_reach_pytest_unchanged(
    chosen: Selection, capsys: pytest.CaptureFixture[str]
) -> None:
    every = collection.collected(chosen)
    some = collection.collected(selection.with_arguments(chosen, ["-v", "-k", "unload"]))
    assert some.keys() < every.keys()
    assert capsys.readouterr().out == "", "collection must print nothing"


def test_unknown_pytest_option_is_a_usage_error(chosen: Selection) -> None:
    with pytest.raises(UsageError, match="understand --bogus 'a b'") as caught:
        collection.collected(selection.with_arguments(chosen, ["--bogus", "a b"]))
    assert "unrecognized arguments: --bogus" in str(caught.value)


def test_arguments_are_part_of_the_run(chosen: Selection) -> None:
    runs = [
        resume.options(KernelSpec(), selected)
        for selected in (chosen, selection.with_arguments(chosen, ["-x"]))
    ]
    assert [options["pytest"] for options in runs] == ["", "-x"]


def test_spaces_in_arguments_are_kept(tmp_path: Path) -> None:
    argv = [str(PROJECT / "inv"), "test", "--suite", "module", "--driver", "null_blk", "--list"]
    done = subprocess.run(
        [*argv, "--", "--bogus=a b"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "pytest does not understand '--bogus=a b'" in done.stderr


def test_debugger_runs_in_one_process() -> None:
    assert {"--pdb", "-s"} <= execute.IN_ONE_PROCESS
