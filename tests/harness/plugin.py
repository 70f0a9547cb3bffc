# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin that runs the suites against guests.

Every test runs once per slot (driver, console, and topology if it requests some). The plugin boots
or reuses the slot's guest, checks the test's requirements and marks the kernel log. After the test
it scans the test's part of the log, even if the test failed. The results are a user property of
pytest's report, which pytest-xdist also carries from its workers.

`./inv test` names this plugin and its plan on pytest's command line. In a driver's own repository
ci/pytest_plugin.py makes the plan and registers the plugin. A test that uses none of the fixtures
here is an ordinary test there.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from blockyard.images.console.console import Console
from blockyard.images.errors import GuestError
from blockyard.images.log.splats import Splat, excerpts
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host import log
from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness import outcomes, requirements
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.guests import Guest, Guests, NotServed, Slot
from blockyard.tests.harness.outcomes import SkipReason
from blockyard.tests.harness.plan import Plan
from blockyard.tests.harness.plan import read as read_plan
from blockyard.tests.harness.portions import Portions, scheduler
from blockyard.tests.harness.requirements import Skipped

# in pytest's configuration: the plan of the run, and the folder that guests' folders are made in
PLAN = pytest.StashKey[Plan]()
DIRECTORY = pytest.StashKey[Path]()
SLOT = "blockyard_slot"  # the fixture that is parametrized
PROPERTY = "blockyard"  # the user property: outcome, reason, kernel_log, guest of one phase

MARKS = (
    "blockyard_needs(*capabilities, program, symbol): skip the test where these are missing",
    "blockyard_topology(*topologies): run the test once on each of these topologies",
    "blockyard_feature(*names): the driver features that the test covers",
    "blockyard_smoke: a smoke test",
    "blockyard_third_party: a third-party test, which may change the guest's state",
)

_manifests = pytest.StashKey[dict[str, Manifest]]()  # of the drivers, by name
_guests = pytest.StashKey[Guests]()
_guest = pytest.StashKey[Guest]()
_suspect = pytest.StashKey[bool]()
_failed = pytest.StashKey[bool]()
_boot_reported = pytest.StashKey[Guest]()  # the last guest whose boot was reported
_last = pytest.StashKey[bool]()


class SplatFound(Exception):
    """The kernel log has a warning, Oops or the like from the time of a test."""

    def __init__(self, splats: list[Splat]) -> None:
        super().__init__("; ".join(map(str, splats)))
        self.kernel_log = excerpts(splats)


class StateLeak(Exception):
    """A test changed the guest's state: it left a disk, a directory, a setting."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that `./inv test` gives to its pytest."""
    parser.addoption("--blockyard-plan", help="the plan of the run (written by ./inv test)")
    parser.addoption(
        "--blockyard-directory", help="the folder of the run; default: where the plan is"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Reads the plan of `./inv test`, whose tests all run in guests."""
    # pytest captures stderr during tests; what -v prints is for the user
    capture = config.pluginmanager.getplugin("capturemanager")
    log.inherit(capture.global_and_fixture_disabled if capture else contextlib.nullcontext)
    for line in MARKS:
        config.addinivalue_line("markers", line)
    if not __debug__:  # helpers of tests fail by assertions
        raise pytest.UsageError("Python runs with -O, which removes assertions")
    if PLAN in config.stash:
        return
    path = config.getoption("--blockyard-plan", None)
    if not path:
        raise pytest.UsageError(
            "the suites are run by ./inv test, a driver's tests by pytest --blockyard-module DIR"
        )
    config.stash[PLAN] = read_plan(Path(path))
    config.stash[DIRECTORY] = Path(config.getoption("--blockyard-directory") or Path(path).parent)
    config.pluginmanager.register(EveryTest())


class EveryTest:
    """A pytest plugin for the suites: each test runs in a guest, even without our fixtures."""

    @pytest.fixture(autouse=True)
    def in_a_guest(self, guest: Guest) -> None:
        """Makes each test use a guest, so that its kernel log is scanned."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Raises UsageError for tests without a slot, such as those of unittest."""
        if others := [item.nodeid for item in items if not hasattr(item, "callspec")]:
            items.clear()  # pytest goes on with them in spite of the error
            raise pytest.UsageError(
                f"{others[0]} cannot be run in a guest: expected a plain function or a method of a "
                "plain class"
            )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Shuts down the last guest."""
    log.inherit()
    if guests := config.stash.get(_guests, None):
        guests.discard()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrizes each test that uses a fixture of ours with its slots."""
    plan = metafunc.config.stash[PLAN]
    if SLOT not in metafunc.fixturenames:
        return
    if "upstream_test" in metafunc.fixturenames:
        metafunc.parametrize((SLOT, "upstream_test"), list(_upstream(plan)))
        return
    known = metafunc.config.stash.setdefault(_manifests, {})
    for name in plan.scope.drivers if not known else ():
        known[name] = plan.manifest(name)
    marker = metafunc.definition.get_closest_marker("blockyard_topology")
    hardware = marker.args if marker else ("",)
    slots = [
        Slot(driver, console, topology)
        for driver in plan.drivers_of(metafunc.definition.path.parent)
        for console in plan.scope.consoles
        for topology in (hardware if known[driver].on_hardware else ("",))
    ]
    metafunc.parametrize(SLOT, slots, ids=str)


def _upstream(plan: Plan) -> Iterator[object]:
    """Parameters of tests/blktests: each upstream test on the slots of drivers that it fits."""
    for driver in plan.scope.drivers:
        manifest = plan.manifest(driver)
        for slot in (Slot(driver, console) for console in plan.scope.consoles):
            for test in plan.scope.upstream.tests if plan.scope.upstream else ():
                if test.fits(manifest):
                    yield pytest.param(slot, test, id=f"{slot}-{test.name}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts tests by slot, so that each slot boots one guest; the order is otherwise kept."""
    plan = config.stash[PLAN]
    # a test whose driver was not selected has a placeholder of pytest's for its slot
    items[:] = [item for item in items if not _has_empty_slot(item)]
    if plan.scope.smoke:
        items[:] = [item for item in items if _is_smoke(item, plan)]
    items.sort(key=lambda item: str(slot_of(item) or ""))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Sends tests of one slot to one worker, so that they share a guest."""
    return scheduler(config, log, Portions(config.stash[PLAN].slot_names()))


def slot_of(item: pytest.Item) -> Slot | None:
    """The slot of a collected test; None for an ordinary test, which has none."""
    callspec = getattr(item, "callspec", None)
    slot = callspec.params.get(SLOT) if callspec else None
    return slot if isinstance(slot, Slot) else None


def _has_empty_slot(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return bool(callspec and SLOT in callspec.params and not slot_of(item))


def _is_smoke(item: pytest.Item, plan: Plan) -> bool:
    """Whether it is marked as a smoke test, or is a driver's own test."""
    return bool(item.get_closest_marker("blockyard_smoke") or plan.owner(item.path.parent))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Records whether another test follows in the same guest."""
    item.stash[_last] = nextitem is None or slot_of(nextitem) != slot_of(item)


@pytest.fixture
def guest(request: pytest.FixtureRequest, blockyard_slot: Slot) -> Iterator[Guest]:
    """The slot's guest; its kernel log and state are checked after the test."""
    slot = blockyard_slot
    config = request.config
    if _guests not in config.stash:
        worker = getattr(config, "workerinput", {}).get("workerid", "")
        if config.stash[PLAN].own:  # they share no guest with the suites
            worker = f"own-{worker}"
        config.stash[_guests] = Guests(config.stash[PLAN], config.stash[DIRECTORY], worker)
    guests = config.stash[_guests]
    try:
        guests.check(slot)
        guest = guests.get(slot, request.node.name)
    except NotServed as error:
        raise Skipped(error.reason, error.details) from None
    request.node.stash[_guest] = guest
    try:
        unmet = requirements.unmet(request.node, guest.driver)
        if unmet and not request.node.stash[_last]:
            _skip(guest, unmet)
        guest.begin(request.node.name)
    except (GuestError, SplatFound):
        guests.discard()
        raise
    try:
        if unmet:
            raise Skipped(unmet)
        yield guest
    finally:
        _check_guest(guests, guest, request.node)


def _skip(guest: Guest, reason: SkipReason) -> NoReturn:
    """Skips a test. Raises SplatFound for a splat since the last test, which would be lost."""
    if splats := guest.splats():
        raise SplatFound(splats)
    raise Skipped(reason)


def _check_guest(guests: Guests, guest: Guest, item: pytest.Item) -> None:
    """Scans the test's part of the kernel log and compares the guest's state.

    Raises SplatFound, StateLeak or a GuestError; such a guest is discarded. After a failed test,
    all settings of the guest are compared, and it is kept when none has changed.
    """
    if item.session.exitstatus == pytest.ExitCode.INTERRUPTED:  # the test was cut short
        guests.discard()
        return
    left: list[str] = []
    trouble: Exception | None = None
    end = None
    failed = item.stash.get(_failed, False)
    last = item.stash[_last]
    if not item.stash.get(_suspect, False):
        try:
            left, end = guest.end(item.name, thorough=failed, last=last)
        except Exception as error:
            trouble = error
    splats = guest.splats(end)
    if trouble or splats or left or last or end is None:
        guests.discard()
        splats += guest.splats()
    if isinstance(trouble, GuestError):
        trouble.kernel_log = excerpts(splats) or trouble.kernel_log
        raise trouble
    if splats:
        raise SplatFound(splats) from trouble
    if trouble:
        raise trouble
    if left and not failed and not item.get_closest_marker("blockyard_third_party"):
        raise StateLeak(f"the test left the guest in another state: {'; '.join(left)}")


@pytest.fixture
def driver(guest: Guest) -> Driver:
    """The driver under test, loaded."""
    return guest.driver


@pytest.fixture
def machine(guest: Guest) -> Machine:
    """The guest's virtual machine: kernel log, consoles, QEMU's monitor."""
    return guest.machine


@pytest.fixture
def console(driver: Driver) -> Console:
    """The console of this test, serial or ssh, which runs commands in the guest."""
    return driver.console


@pytest.fixture
def patient_console(driver: Driver) -> Iterator[None]:
    """Lets the test's commands wait for the driver's own timeouts (`requirements.waits`)."""
    with driver.console.may_wait():
        yield


@pytest.fixture
def blockyard_plan(request: pytest.FixtureRequest) -> Plan:
    """The plan of this run."""
    return request.config.stash[PLAN]


@pytest.fixture
def blockyard_directory(request: pytest.FixtureRequest) -> Path:
    """The folder of this run."""
    return request.config.stash[DIRECTORY]


@pytest.fixture
def budget(blockyard_plan: Plan) -> Budget:
    """How long loads run in this run, and how often tests repeat something."""
    return Budget(blockyard_plan.scope.budget)


@pytest.fixture
def disk(driver: Driver) -> Iterator[Disk]:
    """A disk of the driver, with default attributes."""
    with driver.disk() as disk:
        yield disk


@pytest.fixture
def data_disk(driver: Driver) -> Iterator[Disk]:
    """A disk of the driver from which data that was written can be read back."""
    with driver.disk(**driver.persistent_attributes()) as disk:
        yield disk


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the user property of a phase, and where the guest's logs are."""
    report = yield
    if slot_of(item) is None:  # an ordinary test beside those of a driver
        return report
    facts: dict[str, Any] = {"outcome": "fail" if report.failed else "pass"}
    guest = item.stash.get(_guest, None)
    if guests := item.config.stash.get(_guests, None):
        facts["booted"] = guests.booted
    if guest:
        facts["guest"] = guest.name
        if item.config.stash.get(_boot_reported, None) is not guest:
            item.config.stash[_boot_reported] = guest
            facts["boot"] = msgspec.to_builtins(guest.boot)
        if report.failed:
            folder = item.config.stash[DIRECTORY] / guest.name
            report.sections.append(("guest", f"logs of the guest: {folder}"))
    if hasattr(report, "wasxfail"):
        outcome = "xfail" if report.skipped else "xpass"
        facts |= {"outcome": outcome, "reason": report.wasxfail}
    elif report.skipped:
        facts |= {"outcome": "skip", **_skip_facts(report, call)}
    elif call.excinfo is not None:
        item.stash[_failed] = True
        errors = _causes(call.excinfo.value)
        # the guest is discarded when the test's part of the log has been scanned
        item.stash[_suspect] = any(isinstance(error, GuestError) for error in errors)
        logs = [log for error in errors if (log := getattr(error, "kernel_log", ""))]
        if item.stash[_suspect] and guest and not logs:
            logs = [guest.machine.log.tail()]
        facts |= {
            "outcome": functools.reduce(outcomes.worse, map(outcomes.of_exception, errors)),
            "reason": "\n".join(dict.fromkeys(_reason(error) for error in errors)),
            "kernel_log": logs[0] if logs else "",
            "splat": any(isinstance(error, SplatFound) for error in errors),
        }
    elif report.failed:
        facts["reason"] = report.longreprtext
    report.user_properties.append((PROPERTY, facts))
    return report


def _causes(error: BaseException) -> list[BaseException]:
    """The errors of a phase. Errors of several finalizers are a group in pytest."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in _causes(inner)]
    return [error]


def _skip_facts(report: pytest.TestReport, call: pytest.CallInfo[None]) -> dict[str, Any]:
    """The reason of a skip as text and as the fields of `SkipReason`."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, Skipped):
        return {"reason": str(error.msg), "skip": msgspec.to_builtins(error.reason)}
    text = "skipped"
    if isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    first = text.partition("\n")[0]
    return {"reason": text, "skip": {"lacking": "test", "text": first}}


def _reason(error: BaseException) -> str:
    what = getattr(error, "what", None) or str(error)
    if isinstance(error, AssertionError):
        return what or "an assertion failed"
    plain = isinstance(error, (GuestError, SplatFound, StateLeak, outcomes.GuestUnavailable))
    return what if plain else f"{type(error).__name__}: {what}"
