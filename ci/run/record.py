# SPDX-License-Identifier: GPL-2.0-or-later
"""The run record: `results/<run>/run.json`, with JUnit XML beside it (docs/run-record.md).

It is written when a run ends. Until then, and when the run was killed, its journal (ci.run.journal)
has the outcomes, and ci.run.past_run makes a record of them.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from blockyard.ci import output
from blockyard.kernel.artifact import KernelInfo
from blockyard.kernel.config.variants import PLAIN
from blockyard.kernel.host import store, untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import settings
from blockyard.tests.harness import budget
from blockyard.tests.harness.outcomes import BAD, CaseResult, Outcome

BYTES = 256 << 20  # of a record or a journal; one of 500 tests has 200 KB
# what a file of another kind, or one that was made to break us, raises
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
SCHEMA = 1  # raise it when a field changes its meaning or goes
_NO_XML = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])


class Host(msgspec.Struct, frozen=True):
    """The machine that the run was made on."""

    name: str
    kernel: str  # uname -r
    cpus: int
    memory_mib: int


class UsedAccelerator(msgspec.Struct, frozen=True):
    """What ran the guests, and why it was chosen."""

    name: str
    reason: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ./inv test or ./inv blktests."""

    schema: int = SCHEMA
    run: str  # its folder's name
    started: str  # UTC, ISO 8601
    seconds: float
    host: Host
    accelerator: UsedAccelerator
    kernel: KernelInfo
    topology: str = "default"  # the guest's hardware: a file's name in images/topologies, or a path
    variant: str = PLAIN
    smoke: bool = False  # whether it was of the smoke tests, and not of whole suites
    budget: budget.Name = "default"
    upstream: str = ""  # the checkout of blktests whose tests were run, and its hash
    obsolete_failures: tuple[
        str, ...
    ] = ()  # known failures that hold for no kernel any more, in words
    booted: bool = True  # whether any guest came up
    interrupted: bool = False  # whether the run ended before its tests did
    under_way: tuple[str, ...] = ()  # the tests that it was at then
    resumed: tuple[str, ...] = ()  # when it was taken up again, UTC
    trusted_tests: tuple[str, ...] = ()  # modules' folders whose tests ran without a sandbox
    tests: tuple[CaseResult, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, crashed, timed out or was lost."""
        return bool(self.tests) and not any(test.outcome in BAD for test in self.tests)

    def count(self, driver: str) -> Counter[Outcome]:
        """How many tests of a driver had each outcome."""
        return Counter(test.outcome for test in self.tests if test.driver == driver)


def this_host() -> Host:
    """The machine at hand."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Host(platform.node(), platform.release(), os.cpu_count() or 1, memory)


def check_place() -> None:
    """Raises Failure when no results could be kept; to be asked before anything is built."""
    folder = settings().results_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        raise _no_place(settings().results_dir, error) from None


def _no_place(path: Path, error: OSError) -> Failure:
    return Failure(
        f"cannot write to {path}: {error.strerror}",
        hint="set BLOCKYARD_RESULTS to a directory that can be written to",
    )


def new_directory(kernel: str) -> Path:
    """A fresh folder for a run; two runs in the same second get two."""
    name = re.sub(r"[^\w.-]+", "-", kernel).strip("-")[-40:]
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = settings().results_dir / f"{stamp}-{name}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise _no_place(path, error) from None
    return path


def write(run: Run, directory: Path) -> Path:
    """Writes run.json and junit.xml and points results/latest there; returns run.json.

    When the disk is full or gone they are written elsewhere, and it is said where: what was found
    out is not lost for that.
    """
    try:
        path = _write(run, directory)
    except OSError as error:
        return _write_elsewhere(run, directory, error)
    _point(directory.parent / "latest", directory)
    return path


def _write(run: Run, directory: Path) -> Path:
    path = directory / "run.json"
    store.write(path, output.as_json(run).encode() + b"\n")
    try:
        store.write(directory / "junit.xml", junit(run))
    except OSError as error:
        note(f"no junit.xml in {directory}: {error.strerror}")
    return path


def _write_elsewhere(run: Run, directory: Path, error: OSError) -> Path:
    for place in (Path(tempfile.gettempdir()), settings().cache_dir):
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"blockyard-{run.run}-", dir=place))
            path = _write(run, folder)
            (folder / "guests").symlink_to(directory / "guests")
        except OSError:
            continue
        note(f"cannot write to {directory} ({error.strerror}): the record is {path}")
        return path
    note(f"cannot write to {directory} ({error.strerror}), nor elsewhere: there is no record")
    return directory / "run.json"


def _point(latest: Path, directory: Path) -> None:
    """Makes results/latest lead to a run, at once; what is no link of ours is left alone."""
    aside = latest.with_name(f".latest-{directory.name}")
    try:
        if latest.exists() and not latest.is_symlink():
            note(f"{latest} is left as it is: it is no link to a run")
            return
        aside.symlink_to(directory.name)
        aside.replace(latest)
    except OSError as error:
        note(f"{latest} does not lead to this run: {error.strerror}")


def read(file: Path) -> Run:
    """A run from its run.json; raises UsageError for a file of another schema or shape."""
    try:
        run = msgspec.json.decode(untrusted.read_input(file, "the run record", BYTES), type=Run)
    except UNREADABLE as error:
        raise UsageError(f"{file} is not a run record: {error}") from None
    if run.schema != SCHEMA:
        raise UsageError(f"{file} is a run record of schema {run.schema}, not {SCHEMA}")
    return run


def junit(run: Run) -> bytes:
    """The run as JUnit XML: a test suite per driver, console and hardware."""
    root = ElementTree.Element("testsuites", name="blockyard", time=f"{run.seconds:.3f}")
    groups: dict[str, list[CaseResult]] = {}
    for test in run.tests:
        groups.setdefault("-".join(test.where), []).append(test)
    for name, tests in groups.items():
        outcomes = Counter(test.outcome for test in tests)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(tests)),
            failures=str(outcomes["fail"]),
            errors=str(outcomes["crash"] + outcomes["timeout"] + outcomes["lost"]),
            skipped=str(outcomes["skip"] + outcomes["xfail"]),
            time=f"{sum(test.seconds for test in tests):.3f}",
        )
        for test in tests:
            _add_case(suite, name, test)
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _add_case(suite: ElementTree.Element, name: str, test: CaseResult) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=name, name=test.id, time=f"{test.seconds:.3f}"
    )
    tags = {"fail": "failure", "skip": "skipped", "xfail": "skipped"}
    tag = tags.get(test.outcome, "error" if test.outcome in BAD else "")
    if tag:
        verdict = ElementTree.SubElement(
            case, tag, type=test.outcome, message=test.reason.translate(_NO_XML)
        )
        verdict.text = test.kernel_log.translate(_NO_XML)
