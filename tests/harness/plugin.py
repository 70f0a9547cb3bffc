# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin that runs the suites against guests.

Every test is run once per slot (driver, console, and hardware if it asks for some). Around each
test the plugin boots or reuses the slot's guest, checks what the test needs, marks the kernel log,
and afterwards scans the test's part of the log, whatever else happened. What it found goes with
pytest's report as a user property, also across pytest-xdist's workers.

`./inv test` names this plugin and its plan on pytest's command line. In a driver's own repository
ci/pytest_plugin.py makes the plan and registers it; there a test without one of these fixtures is
an ordinary test.
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
from blockyard.images.log.splats import Splat
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host import log
from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness import outcomes, plan, requirements
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.guests import Guest, Guests, NotServed, Slot
from blockyard.tests.harness.outcomes import SkipReason
from blockyard.tests.harness.portions import Portions, scheduler
from blockyard.tests.harness.requirements import Skipped

# in pytest's configuration: the plan of the run, and the folder that guests' folders are made in
PLAN = pytest.StashKey[plan.Plan]()
DIRECTORY = pytest.StashKey[Path]()
SLOT = "blockyard_slot"  # the fixture that the tests' parameters are for
PROPERTY = "blockyard"  # the user property: outcome, reason, kernel_log, guest of one phase

MARKS = (
    "blockyard_needs(*capabilities, program, symbol): skip the test where these are missing",
    "blockyard_topology(*topologies): run the test once on each of these topologies",
    "blockyard_feature(*names): the features of a driver that the test is about",
    "blockyard_smoke: one of the tests that are run first",
    "blockyard_third_party: a test of others, which may leave the guest in another state",
)

_manifests = pytest.StashKey[dict[str, Manifest]]()  # of the drivers, by name
_guests = pytest.StashKey[Guests]()
_guest = pytest.StashKey[Guest]()
_ill = pytest.StashKey[bool]()
_failed = pytest.StashKey[bool]()
_boot_told = pytest.StashKey[Guest]()  # the last guest whose boot was reported
_last = pytest.StashKey[bool]()


class SplatFound(Exception):
    """The kernel complained during a test."""

    def __init__(self, splats: list[Splat]) -> None:
        super().__init__("; ".join(f"{splat.kind}: {splat.line}" for splat in splats))
        self.kernel_log = excerpts(splats)


class StateLeak(Exception):
    """A test left something in the guest."""


def excerpts(splats: list[Splat]) -> str:
    """The splats as the log has them."""
    return "\n\n".join(splat.excerpt for splat in splats)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that `./inv test` gives to its pytest."""
    parser.addoption("--blockyard-plan", help="the plan of the run (written by ./inv test)")
    parser.addoption(
        "--blockyard-directory", help="the folder of the run; default: where the plan is"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Reads the plan; the suites get a guest for each of their tests."""
    # pytest keeps what is written to stderr meanwhile; what -v prints is for the user
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
    config.stash[PLAN] = plan.read(Path(path))
    config.stash[DIRECTORY] = Path(config.getoption("--blockyard-directory") or Path(path).parent)
    config.pluginmanager.register(EveryTest())


class EveryTest:
    """A pytest plugin for the suites: each test is one of a driver, also without our fixtures."""

    @pytest.fixture(autouse=True)
    def in_a_guest(self, guest: Guest) -> None:
        """The test's guest is judged after it, whatever the test uses."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuses tests that get no slot, such as those of unittest."""
        if others := [item.nodeid for item in items if not hasattr(item, "callspec")]:
            items.clear()  # they are collected even so
            raise pytest.UsageError(f"{others[0]} is no plain function, so it tests no driver")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the guest that is left."""
    log.inherit()
    if guests := config.stash.get(_guests, None):
        guests.discard()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes one test per slot of each that uses a fixture of ours."""
    here = metafunc.config.stash[PLAN]
    if SLOT not in metafunc.fixturenames:
        return
    if "upstream_test" in metafunc.fixturenames:
        metafunc.parametrize((SLOT, "upstream_test"), list(_upstream(here)))
        return
    known = metafunc.config.stash.setdefault(_manifests, {})
    for name in here.scope.drivers if not known else ():
        known[name] = here.manifest(name)
    wanted = metafunc.definition.get_closest_marker("blockyard_topology")
    hardware = wanted.args if wanted else ("",)
    slots = [
        Slot(driver, console, topology)
        for driver in here.drivers_of(metafunc.definition.path.parent)
        for console in here.scope.consoles
        for topology in (hardware if known[driver].on_hardware else ("",))
    ]
    metafunc.parametrize(SLOT, slots, ids=str)


def _upstream(here: plan.Plan) -> Iterator[object]:
    """Each test of upstream's on the slots whose drivers it fits."""
    for driver in here.scope.drivers:
        manifest = here.manifest(driver)
        for slot in (Slot(driver, console) for console in here.scope.consoles):
            for test in here.scope.upstream.tests if here.scope.upstream else ():
                if test.fits(manifest):
                    yield pytest.param(slot, test, id=f"{slot}-{test.name}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One slot after the other, so that each needs one guest; else as they come."""
    here = config.stash[PLAN]
    # a test of a driver that was not chosen comes with a parameter that is not a slot
    items[:] = [item for item in items if not _has_empty_slot(item)]
    if here.scope.smoke:
        items[:] = [item for item in items if _is_first(item, here)]
    items.sort(key=lambda item: str(slot_of(item) or ""))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one slot go to a worker together, so that they share a guest."""
    return scheduler(config, log, Portions(config.stash[PLAN].slot_names()))


def slot_of(item: pytest.Item) -> Slot | None:
    """The slot of a collected test; None for an ordinary test, which has none."""
    callspec = getattr(item, "callspec", None)
    slot = callspec.params.get(SLOT) if callspec else None
    return slot if isinstance(slot, Slot) else None


def _has_empty_slot(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return bool(callspec and SLOT in callspec.params and not slot_of(item))


def _is_first(item: pytest.Item, here: plan.Plan) -> bool:
    """Whether it is a smoke test, or one of a driver's own."""
    return bool(item.get_closest_marker("blockyard_smoke") or here.owner(item.path.parent))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Notes whether another test follows in the same guest."""
    item.stash[_last] = nextitem is None or slot_of(nextitem) != slot_of(item)


@pytest.fixture
def guest(request: pytest.FixtureRequest, blockyard_slot: Slot) -> Iterator[Guest]:
    """The slot's guest, ready for one test; afterwards its kernel log is judged."""
    slot = blockyard_slot
    config = request.config
    if _guests not in config.stash:
        worker = getattr(config, "workerinput", {}).get("workerid", "")
        if config.stash[PLAN].own:  # a driver's own tests have guests of their own
            worker = f"own-{worker}"
        config.stash[_guests] = Guests(config.stash[PLAN], config.stash[DIRECTORY], worker)
    guests = config.stash[_guests]
    try:
        guests.check(slot)
        guest = guests.get(slot, request.node.name)
    except NotServed as problem:
        raise Skipped(problem.reason, problem.details) from None
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
        _judge(guests, guest, request.node)


def _skip(guest: Guest, reason: SkipReason) -> NoReturn:
    """Skips a test, unless the kernel has complained since the one before: no other would tell."""
    if splats := guest.splats():
        raise SplatFound(splats)
    raise Skipped(reason)


def _judge(guests: Guests, guest: Guest, item: pytest.Item) -> None:
    """Scans the test's part of the kernel log, whatever else happened, and raises what is wrong.

    A guest with which anything is wrong is given up. That of a test that failed may have been left
    half-way: it is looked at thoroughly, and kept when nothing is found.
    """
    if item.session.exitstatus == pytest.ExitCode.INTERRUPTED:  # half a test is not judged
        guests.discard()
        return
    left: list[str] = []
    trouble: Exception | None = None
    end = None
    failed = item.stash.get(_failed, False)
    last = item.stash[_last]
    if not item.stash.get(_ill, False):
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
    """The virtual machine of the guest: kernel log, consoles, QEMU's monitor."""
    return guest.machine


@pytest.fixture
def console(driver: Driver) -> Console:
    """The console of this test, serial or ssh: runs commands in the guest."""
    return driver.console


@pytest.fixture
def patient_console(driver: Driver) -> Iterator[None]:
    """Lets the test's commands wait for a driver's own time-outs (`requirements.waits`)."""
    with driver.console.may_wait():
        yield


@pytest.fixture
def blockyard_plan(request: pytest.FixtureRequest) -> plan.Plan:
    """What this run is to do."""
    return request.config.stash[PLAN]


@pytest.fixture
def blockyard_directory(request: pytest.FixtureRequest) -> Path:
    """The folder of this run."""
    return request.config.stash[DIRECTORY]


@pytest.fixture
def budget(blockyard_plan: plan.Plan) -> Budget:
    """How long this run's loads and repetitions take."""
    return Budget(blockyard_plan.scope.budget)


@pytest.fixture
def disk(driver: Driver) -> Iterator[Disk]:
    """A disk of the driver, with its defaults."""
    with driver.disk() as disk:
        yield disk


@pytest.fixture
def data_disk(driver: Driver) -> Iterator[Disk]:
    """A disk that keeps what is written to it."""
    with driver.disk(**driver.persistent_attributes()) as disk:
        yield disk


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the run has to know of a phase, and where the guest's logs are."""
    report = yield
    if slot_of(item) is None:  # an ordinary test beside those of a driver
        return report
    facts: dict[str, Any] = {"outcome": "fail" if report.failed else "pass"}
    guest = item.stash.get(_guest, None)
    if guests := item.config.stash.get(_guests, None):
        facts["booted"] = guests.booted
    if guest:
        facts["guest"] = guest.name
        if item.config.stash.get(_boot_told, None) is not guest:
            item.config.stash[_boot_told] = guest
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
        # the guest is given up after the test's part of the log has been looked at
        item.stash[_ill] = any(isinstance(error, GuestError) for error in errors)
        logs = [log for error in errors if (log := getattr(error, "kernel_log", ""))]
        if item.stash[_ill] and guest and not logs:
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
    """The errors of a phase: pytest puts those of several finalizers into a group."""
    if isinstance(error, BaseExceptionGroup):
        return [one for inner in error.exceptions for one in _causes(inner)]
    return [error]


def _skip_facts(report: pytest.TestReport, call: pytest.CallInfo[None]) -> dict[str, Any]:
    """The reason of a skip for people, and as a value in types of JSON."""
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
