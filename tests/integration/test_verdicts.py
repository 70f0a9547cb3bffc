# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run says of tests that go wrong, with suites made for it."""

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
    raise AssertionError("not to be run")


@needs("attribute:no_such_attribute")
def test_needs_a_capability(driver):
    raise AssertionError("not to be run")


def test_skips_itself(driver):
    pytest.skip("in its own words")


def test_leaves_a_disk(driver):
    driver.create({})


def test_after_a_disk_was_left(driver):
    assert driver.console.run(f"ls {driver.configfs} | grep ^by").output == ""


@pytest.mark.xfail(reason="known since 7.3")
def test_known_failure(driver):
    assert not "mended"


@pytest.mark.xfail(reason="known since 7.3", strict=True)
def test_known_failure_that_was_mended(driver):
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


def test_never_begun(driver):
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
    config.addinivalue_line("markers", "late: begins after something happened in the guest")
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
wanted = selection.Selection(scope, tuple(selection.suites()))
ready = boot_env.ready(KernelSpec(kernel))
modules = boot_env.ready(KernelSpec(modules_of)).files.modules
ready = dataclasses.replace(ready, files=dataclasses.replace(ready.files, modules=modules))
run.run(ready, wanted, len(consoles))
"""


def run_suite(
    folder: Path,
    text: str,
    consoles: str = "serial",
    modules_of: str = KERNEL,
    conftest: str = "",
) -> record.Run:
    """Runs a suite as ./inv test does, with the modules of a kernel; returns its record."""
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


def test_every_test_has_a_result_of_its_own(verdicts: Verdicts) -> None:
    assert len(verdicts) == VERDICTS.count("\ndef test_") + 1


def test_a_pass(verdicts: Verdicts) -> None:
    result = verdicts["passes"]
    assert (result.outcome, result.reason, result.kernel_log) == ("pass", "", "")


def test_a_splat_fails_a_test_that_passed(verdicts: Verdicts) -> None:
    result = verdicts["warns"]
    assert result.outcome == "fail"
    assert "WARNING: drivers/block/mine.c:12" in result.reason
    assert "WARNING: drivers/block/mine.c:12" in result.kernel_log


def test_a_splat_is_quoted_when_the_test_failed_too(verdicts: Verdicts) -> None:
    result = verdicts["fails_and_warns"]
    assert result.outcome == "fail"
    assert "one is not two" in result.reason
    assert "WARNING: drivers/block/mine.c:12" in result.kernel_log


def test_the_next_test_is_not_blamed_for_it(verdicts: Verdicts) -> None:
    assert verdicts["after_a_warning"].outcome == "pass"


def test_a_failure_says_why(verdicts: Verdicts) -> None:
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
def test_a_skip_says_what_is_missing(
    verdicts: Verdicts, name: str, lacking: Lacking, what: str, text: str
) -> None:
    result = verdicts[name]
    assert (result.outcome, result.reason) == ("skip", text)
    assert result.skip == SkipReason(lacking=lacking, what=what, text=text)


def test_what_a_test_leaves_behind_fails_it_alone(verdicts: Verdicts) -> None:
    assert verdicts["leaves_a_disk"].outcome == "fail"
    assert "left: a configfs directory" in verdicts["leaves_a_disk"].reason
    assert "left: a disk" in verdicts["leaves_a_disk"].reason
    assert verdicts["after_a_disk_was_left"].outcome == "pass"


def test_a_known_failure(verdicts: Verdicts) -> None:
    result = verdicts["known_failure"]
    assert (result.outcome, result.reason) == ("xfail", "known since 7.3")


def test_a_known_failure_that_was_mended_is_no_pass(verdicts: Verdicts) -> None:
    assert verdicts["known_failure_that_was_mended"].outcome in ("fail", "xpass")


def test_parameters_are_part_of_the_name(verdicts: Verdicts) -> None:
    assert {name for name in verdicts if name.startswith("takes")} == {
        "takes_values(1)",
        "takes_values(-1)",
    }


def test_a_panic_is_a_crash_with_its_log(verdicts: Verdicts) -> None:
    result = verdicts["panics"]
    assert result.outcome == "crash"
    assert "panicked" in result.reason
    assert "sysrq triggered crash" in result.kernel_log


def test_a_command_without_an_end_is_a_time_out(verdicts: Verdicts) -> None:
    result = verdicts["hangs"]
    assert result.outcome == "timeout"
    assert "timed out after" in result.reason


@pytest.mark.parametrize(
    ("before", "after"), [("panics", "after_a_panic"), ("hangs", "after_a_hang")]
)
def test_the_next_test_gets_a_fresh_guest(verdicts: Verdicts, before: str, after: str) -> None:
    assert verdicts[after].outcome == "pass"
    assert verdicts[before].guest != verdicts[after].guest


def test_what_happens_between_two_tests_is_told(ready: BootEnv, tmp_path: Path) -> None:
    """A guest that died is replaced; a complaint of the kernel is not lost in a skip."""
    run = run_suite(tmp_path, BETWEEN, conftest=PAUSE)
    found = {test.id.removeprefix("mine/"): test for test in run.tests}
    assert {name: test.outcome for name, test in found.items()} == {
        "dies_afterwards": "pass",
        "finds_it_dead": "crash",
        "gets_another": "pass",
        "would_be_skipped": "fail",
        "is_skipped": "skip",
    }
    assert found["finds_it_dead"].guest != found["gets_another"].guest
    assert "WARNING: drivers/block/mine.c:12" in found["would_be_skipped"].kernel_log


def test_a_worker_that_dies_loses_its_tests(ready: BootEnv, tmp_path: Path) -> None:
    run = run_suite(tmp_path, DIES, "serial,ssh")
    for console in ("serial", "ssh"):
        outcomes = {test.id: test.outcome for test in run.tests if test.console == console}
        assert outcomes == {
            "mine/first": "pass",
            "mine/kills_its_worker": "lost",
            "mine/never_begun": "lost",
        }
    assert not run.ok


def test_a_driver_that_cannot_be_loaded_fails_every_test(ready: BootEnv, tmp_path: Path) -> None:
    """A guest without its driver lacks every capability: none of its tests may be a skip."""
    run = run_suite(tmp_path, NO_MODULES, modules_of="7.2-debian")
    assert [test.outcome for test in run.tests] == ["fail", "fail"]
    assert all("cannot load null_blk" in test.reason for test in run.tests)
