# SPDX-License-Identifier: GPL-2.0-or-later
"""The outcomes and reasons that a run records, with suites made for these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.ci.run import record
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.harness.outcomes import CaseResult, Lacking, SkipReason
from blockyard.tests.integration.conftest import KERNEL

VERDICTS = """\
# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from blockyard.tests.harness.requirements import needs

SPLAT = "WARNING: drivers/block/mine.c:12 at mine+0x1/0x2, CPU#0: bash/1"


def warn(driver):
    driver.console.check(f"echo '<4>{SPLAT}' > /dev/kmsg")


def test_passes(driver):
    driver.console.check("true")


def test_warns(driver):
    warn(driver)


def test_fails_and_warns(driver):
    warn(driver)
    assert 1 == 2, "one is not two"


def test_after_a_warning(driver):
    pass


def test_fails(driver):
    assert driver.name == "other"


@needs(program="no-such-program")
def test_needs_a_program(driver):
    raise AssertionError("should be skipped")


@needs("attribute:no_such_attribute")
def test_needs_a_capability(driver):
    raise AssertionError("should be skipped")


def test_skips_itself(driver):
    pytest.skip("in its own words")


def test_leaves_a_disk(driver):
    driver.create({})


def test_after_a_disk_is_left(driver):
    assert driver.console.run(f"ls {driver.configfs} | grep ^by").output == ""


@pytest.mark.xfail(reason="known since 7.3")
def test_known_failure(driver):
    assert not "fixed"


@pytest.mark.xfail(reason="known since 7.3", strict=True)
def test_fixed_known_failure(driver):
    pass


@pytest.mark.parametrize("value", ["1", "-1"])
def test_takes_values(driver, value):
    pass


def test_panics(driver):
    driver.console.run("echo c > /proc/sysrq-trigger; sleep 3600")


def test_after_a_panic(driver):
    driver.console.check("true")


def test_hangs(driver):
    driver.console.run("sleep 3600", timeout_s=0.5)


def test_after_a_hang(driver):
    driver.console.check("true")
"""

DIES = """\
# SPDX-License-Identifier: GPL-2.0-or-later
import os


def test_first(driver):
    pass


def test_kills_its_worker(driver):
    os._exit(9)


def test_never_starts(driver):
    pass
"""

NO_MODULES = """\
# SPDX-License-Identifier: GPL-2.0-or-later
def test_first(driver):
    pass


def test_second(driver):
    pass
"""

PAUSE = """\
# SPDX-License-Identifier: GPL-2.0-or-later
import time

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if item.get_closest_marker("late"):
        time.sleep(3)


def pytest_configure(config):
    config.addinivalue_line("markers", "late: starts a few seconds after the test before it")
"""

BETWEEN = """\
# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from blockyard.tests.harness.requirements import needs

SPLAT = "WARNING: drivers/block/mine.c:12 at mine+0x1/0x2, CPU#0: bash/1"


def test_dies_afterwards(driver):
    driver.console.check("(sleep 1.5; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &")


@pytest.mark.late
def test_finds_it_dead(driver):
    pass


def test_gets_another(driver):
    driver.console.check(f"(sleep 1.5; echo '<4>{SPLAT}' > /dev/kmsg) > /dev/null 2>&1 &")


@pytest.mark.late
@needs(program="no-such-program")
def test_would_be_skipped(driver):
    pass


@needs(program="no-such-program")
def test_is_skipped(driver):
    pass
"""

RUN = """\
import dataclasses
import sys
from pathlib import Path
from blockyard.ci.run import boot_env, run, selection
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.harness.plan import Scope
kernel, suites, consoles, modules_of = sys.argv[1:]
selection.SUITES = Path(suites)
consoles = tuple(consoles.split(","))
scope = Scope(drivers=("null_blk",), consoles=consoles)
selected = selection.Selection(scope, tuple(selection.suites()))
ready = boot_env.ready(KernelSpec(kernel))
modules = boot_env.ready(KernelSpec(modules_of)).files.modules
ready = dataclasses.replace(ready, files=dataclasses.replace(ready.files, modules=modules))
run.run(ready, selected, len(consoles))
"""


def run_suite(
    folder: Path,
    text: str,
    consoles: str = "serial",
    modules_of: str = KERNEL,
    conftest: str = "",
) -> record.Run:
    """Run a suite as ./inv test does, with the modules of a kernel, and return the record."""
    suites = folder / "suites"
    (suites / "mine").mkdir(parents=True)
    (suites / "mine" / "test_mine.py").write_text(text)
    (suites / "mine" / "conftest.py").write_text(conftest)
    done = subprocess.run(
        [sys.executable, "-c", RUN, KERNEL, str(suites), consoles, modules_of],
        cwd=PROJECT,
        env={**os.environ, "BLOCKYARD_RESULTS": str(folder / "results")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return record.read(folder / "results" / "latest" / "run.json")


@pytest.fixture(scope="module")
def verdicts(ready: BootEnv, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CaseResult]:
    """Test name → result of one run over the serial console."""
    run = run_suite(tmp_path_factory.mktemp("verdicts"), VERDICTS)
    return {test.id.removeprefix("mine/"): test for test in run.tests}


Verdicts = dict[str, CaseResult]


def test_every_test_has_a_result(verdicts: Verdicts) -> None:
    assert len(verdicts) == VERDICTS.count("\ndef test_") + 1


def test_pass_has_neither_reason_nor_log(verdicts: Verdicts) -> None:
    result = verdicts["passes"]
    assert (result.outcome, result.reason, result.kernel_log) == ("pass", "", "")


def test_splat_fails_a_passing_test(verdicts: Verdicts) -> None:
    result = verdicts["warns"]
    assert result.outcome == "fail"
    assert "WARNING: drivers/block/mine.c:12" in result.reason
    assert "WARNING: drivers/block/mine.c:12" in result.kernel_log


def test_splat_of_a_failing_test_is_quoted(verdicts: Verdicts) -> None:
    result = verdicts["fails_and_warns"]
    assert result.outcome == "fail"
    assert "one is not two" in result.reason
    assert "WARNING: drivers/block/mine.c:12" in result.kernel_log


def test_splat_does_not_fail_the_next_test(verdicts: Verdicts) -> None:
    assert verdicts["after_a_warning"].outcome == "pass"


def test_failure_has_the_assertion_as_reason(verdicts: Verdicts) -> None:
    result = verdicts["fails"]
    assert result.outcome == "fail"
    assert "'null_blk' == 'other'" in result.reason


@pytest.mark.parametrize(
    ("name", "lacking", "what", "text"),
    [
        (
            "needs_a_program",
            "guest",
            "program:no-such-program",
            "the guest has no program no-such-program",
        ),
        (
            "needs_a_capability",
            "driver",
            "attribute:no_such_attribute",
            "null_blk has no attribute no_such_attribute",
        ),
        ("skips_itself", "test", "", "in its own words"),
    ],
)
def test_skip_says_what_is_missing(
    verdicts: Verdicts, name: str, lacking: Lacking, what: str, text: str
) -> None:
    result = verdicts[name]
    assert (result.outcome, result.reason) == ("skip", text)
    assert result.skip == SkipReason(lacking=lacking, what=what, text=text)


def test_leftover_disk_fails_only_the_test_that_left_it(verdicts: Verdicts) -> None:
    assert verdicts["leaves_a_disk"].outcome == "fail"
    assert "left: a configfs directory" in verdicts["leaves_a_disk"].reason
    assert "left: a disk" in verdicts["leaves_a_disk"].reason
    assert verdicts["after_a_disk_is_left"].outcome == "pass"


def test_known_failure_is_an_xfail(verdicts: Verdicts) -> None:
    result = verdicts["known_failure"]
    assert (result.outcome, result.reason) == ("xfail", "known since 7.3")


def test_fixed_known_failure_does_not_pass(verdicts: Verdicts) -> None:
    assert verdicts["fixed_known_failure"].outcome == "fail"


def test_parameters_are_part_of_the_name(verdicts: Verdicts) -> None:
    assert {name for name in verdicts if name.startswith("takes")} == {
        "takes_values(1)",
        "takes_values(-1)",
    }


def test_panic_is_a_crash_with_the_kernel_log(verdicts: Verdicts) -> None:
    result = verdicts["panics"]
    assert result.outcome == "crash"
    assert "panicked" in result.reason
    assert "sysrq triggered crash" in result.kernel_log


def test_endless_command_is_a_timeout(verdicts: Verdicts) -> None:
    result = verdicts["hangs"]
    assert result.outcome == "timeout"
    assert "timed out after" in result.reason


@pytest.mark.parametrize(
    ("before", "after"), [("panics", "after_a_panic"), ("hangs", "after_a_hang")]
)
def test_test_after_a_broken_guest_gets_a_new_one(
    verdicts: Verdicts, before: str, after: str
) -> None:
    assert verdicts[after].outcome == "pass"
    assert verdicts[before].guest != verdicts[after].guest


def test_events_between_two_tests_are_recorded(ready: BootEnv, tmp_path: Path) -> None:
    """A dead guest is replaced, and a splat is not lost if the next test is skipped."""
    run = run_suite(tmp_path, BETWEEN, conftest=PAUSE)
    results = {test.id.removeprefix("mine/"): test for test in run.tests}
    assert {name: test.outcome for name, test in results.items()} == {
        "dies_afterwards": "pass",
        "finds_it_dead": "crash",
        "gets_another": "pass",
        "would_be_skipped": "fail",
        "is_skipped": "skip",
    }
    assert results["finds_it_dead"].guest != results["gets_another"].guest
    assert "WARNING: drivers/block/mine.c:12" in results["would_be_skipped"].kernel_log


def test_tests_of_a_dead_worker_are_lost(ready: BootEnv, tmp_path: Path) -> None:
    run = run_suite(tmp_path, DIES, "serial,ssh")
    for console in ("serial", "ssh"):
        outcomes = {test.id: test.outcome for test in run.tests if test.console == console}
        assert outcomes == {
            "mine/first": "pass",
            "mine/kills_its_worker": "lost",
            "mine/never_starts": "lost",
        }
    assert not run.ok


def test_driver_that_cannot_be_loaded_fails_every_test(ready: BootEnv, tmp_path: Path) -> None:
    """Such a guest lacks every capability, but its tests must not be skipped."""
    run = run_suite(tmp_path, NO_MODULES, modules_of="7.2-debian")
    assert [test.outcome for test in run.tests] == ["fail", "fail"]
    assert all("cannot load null_blk" in test.reason for test in run.tests)
