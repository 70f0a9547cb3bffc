# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv test -- ARGS`: options for pytest."""

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
def wanted() -> Selection:
    return selection.select("null_blk", "serial", "module")


@pytest.mark.parametrize(
    ("words", "json", "message"),
    [
        (["-n", "4"], False, "-n is not taken here\n  --guests N"),
        (["--collect-only"], False, "--list lists the tests"),
        (["-x"], True, "--json and options for pytest"),
    ],
)
def test_what_has_an_option_of_ours_is_refused(
    wanted: Selection, words: list[str], json: bool, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        selection.with_arguments(wanted, words, json=json)


def test_a_module_s_sandboxed_tests_take_none(tmp_path: Path, wanted: Selection) -> None:
    folder = shutil.copytree(PROJECT / "modules" / "examples" / "c_null", tmp_path / "mine")
    shutil.copy(PROJECT / "tests" / "suites" / "module" / "test_load.py", folder)
    mine = selection.select("mine", "serial", "mine", outside=[manifest.of_folder(folder)])
    with pytest.raises(UsageError, match="add --trust-tests"):
        selection.with_arguments(mine, ["-x"])
    trusted = selection.trusting(mine, trust=True)
    assert selection.with_arguments(trusted, ["-x"]).arguments == ("-x",)


def test_pytest_gets_them_as_they_are(
    wanted: Selection, capsys: pytest.CaptureFixture[str]
) -> None:
    every = collection.collected(wanted)
    some = collection.collected(selection.with_arguments(wanted, ["-v", "-k", "unload"]))
    assert some.keys() < every.keys()
    assert capsys.readouterr().out == "", "the list is not what the user asked for"


def test_an_option_that_pytest_does_not_know_is_a_usage_error(wanted: Selection) -> None:
    with pytest.raises(UsageError, match="understand --bogus 'a b'") as caught:
        collection.collected(selection.with_arguments(wanted, ["--bogus", "a b"]))
    assert "unrecognized arguments: --bogus" in str(caught.value)


def test_a_run_with_others_is_another_run(wanted: Selection) -> None:
    asked = [
        resume.asked(KernelSpec(), one)
        for one in (wanted, selection.with_arguments(wanted, ["-x"]))
    ]
    assert [options["pytest"] for options in asked] == ["", "-x"]


def test_the_command_hands_words_on_with_their_spaces(tmp_path: Path) -> None:
    argv = [str(PROJECT / "inv"), "test", "--suite", "module", "--driver", "null_blk", "--list"]
    done = subprocess.run(
        [*argv, "--", "--bogus=a b"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "pytest does not understand '--bogus=a b'" in done.stderr


def test_a_debugger_has_one_process() -> None:
    assert {"--pdb", "-s"} <= execute.IN_ONE_PROCESS
