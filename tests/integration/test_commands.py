# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands as a user types them, with real guests and a separate results folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from blockyard.ci.run import past_run, record
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.integration.processes import descendants, left

pytestmark = pytest.mark.usefixtures("ready")

TIMEOUT_S = 900


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "BLOCKYARD_RESULTS": str(tmp_path / "results")}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start a command in a new process group, as a shell does."""
    return subprocess.Popen(
        [str(PROJECT / "inv"), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def latest(folder: Path) -> record.Run:
    return record.read(folder / "results" / "latest" / "run.json")


class TestBoot:
    @pytest.mark.parametrize("console", ["serial", "ssh"])
    def test_output_and_exit_code_are_those_of_the_command(
        self, environment: dict[str, str], console: str
    ) -> None:
        process = start(environment, "boot", "--console", console, "--run", "echo hi; exit 7")
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert (out, process.returncode) == ("hi\n", 7), err
        assert "Traceback" not in err

    def test_panic_is_one_error_without_traceback(self, environment: dict[str, str]) -> None:
        script = "echo c > /proc/sysrq-trigger; sleep 3600"
        process = start(environment, "boot", "--run", script)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert (out, process.returncode) == ("", 1)
        assert "error: the guest's kernel panicked" in err
        assert "sysrq triggered crash" in err
        assert "Traceback" not in err


class TestTest:
    def test_run_of_a_suite_is_recorded(
        self, ready: BootEnv, environment: dict[str, str], tmp_path: Path
    ) -> None:
        process = start(
            environment,
            *("test", "--driver", "null_blk", "--console", "serial", "--suite", "module"),
        )
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, err
        run = latest(tmp_path)
        assert run.schema == record.SCHEMA
        assert run.ok
        assert run.kernel == ready.kernel.info
        assert run.accelerator.name == ready.accelerator.name
        outcomes = {test.id: test.outcome for test in run.tests}
        assert outcomes["module/load_unload_cycles"] == "pass"
        assert set(outcomes.values()) == {"pass", "skip"}
        assert {(test.driver, test.console) for test in run.tests} == {("null_blk", "serial")}
        folder = (tmp_path / "results" / "latest").resolve()
        junit = ElementTree.parse(folder / "junit.xml").getroot()
        assert len(junit.findall("testsuite/testcase")) == len(run.tests)
        assert str(folder / "run.json") in out
        guest = folder / run.tests[0].guest
        assert "blockyard: begin test_load_unload_cycles" in (guest / "kernel.log").read_text()

    def test_outcomes_do_not_depend_on_order_or_number_of_guests(
        self, environment: dict[str, str], tmp_path: Path
    ) -> None:
        """One guest with the tests in the order of the files, and two guests in another order."""
        runs: list[tuple[dict[str, str], list[str]]] = []
        for options in (["--guests", "1"], ["--guests", "2", "--seed", "7"]):
            arguments = ["--driver", "rnull", "--console", "serial", "--suite", "configfs,module"]
            process = start(environment, "test", *arguments, "--quick", *options)
            _, err = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, err
            outcomes = {test.id: str(test.outcome) for test in latest(tmp_path).tests}
            order = re.findall(r"^\[ *\d+/\d+\] \w+ +(\S+)\[", err, re.MULTILINE)
            runs.append((outcomes, order))
        (outcomes_of_one, in_order), (outcomes_of_two, shuffled) = runs
        assert outcomes_of_one == outcomes_of_two
        assert in_order != shuffled
        assert sorted(in_order) == sorted(shuffled)

    @pytest.mark.parametrize(
        ("guests", "whole_group"), [("1", False), ("2", True)], ids=["kill", "Ctrl-C"]
    )
    def test_interrupted_run_is_recorded_and_leaves_no_process(
        self, environment: dict[str, str], tmp_path: Path, guests: str, whole_group: bool
    ) -> None:
        """A terminal sends Ctrl-C to the whole group, kill signals a single process."""
        process = start(
            environment,
            *("test", "--driver", "null_blk", "--guests", guests, "--suite", "module,block"),
        )
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "] pass " in line:  # the first test that is not skipped has ended
                break
        assert lines and "] pass " in lines[-1], lines
        children = descendants(process.pid)
        assert children
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert left(children) == set()
        run = latest(tmp_path)
        outcomes = [test.outcome for test in run.tests]
        assert not run.ok
        assert "pass" in outcomes
        assert "lost" in outcomes
        assert run.interrupted
        assert run.under_way
        assert all(name in err for name in run.under_way)

    def test_killed_run_is_resumed(self, environment: dict[str, str], tmp_path: Path) -> None:
        """No recorded outcome is lost, although nobody reads stderr of the second part."""
        arguments = ("test", "--driver", "null_blk", "--console", "serial", "--suite", "module")
        process = start(environment, *arguments)
        assert process.stderr is not None
        for line in process.stderr:
            if "] pass " in line:
                break
        children = descendants(process.pid)
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        assert left(children) == set()
        (folder,) = (tmp_path / "results").iterdir()
        killed = past_run.read(folder)
        assert killed.interrupted
        known = {test.id: test for test in killed.tests if test.outcome != "lost"}
        assert known

        process = start(environment, *arguments, "--resume")
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(TIMEOUT_S) == 0
        run = latest(tmp_path)
        assert (run.run, len(run.resumed), run.interrupted) == (folder.name, 1, False)
        results = {test.id: test for test in run.tests}
        assert results.keys() == {test.id for test in killed.tests}
        assert known.items() <= results.items()
        assert {test.outcome for test in run.tests} == {"pass", "skip"}
        guests = [folder / test.guest / "kernel.log" for test in run.tests if test.guest]
        assert all(guest.is_file() for guest in guests)
