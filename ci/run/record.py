# SPDX-License-Identifier: GPL-2.0-or-later
"""The run record: `results/<run>/run.json`, with JUnit XML beside it (docs/run-record.md).

It is written at the end of a run. Before that, and after a run was killed, the outcomes are in the
journal (ci.run.journal), of which ci.run.past_run makes a record.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import msgspec

from blockyard.ci import output
from blockyard.ci.run import upgrade
from blockyard.ci.run.circumstances import (
    BlktestsCheckout,
    Host,
    KernelOptions,
    Selected,
    Tool,
    UsedAccelerator,
)
from blockyard.kernel.artifact import KernelInfo
from blockyard.kernel.host import store, untrusted
from blockyard.kernel.host.described import about
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import settings
from blockyard.tests.harness.outcomes import BAD, Boot, CaseResult, Outcome

BYTES = 256 << 20  # limit for a record or a journal; 500 tests take 200 KB
# errors of decoding a file of another kind, or a malicious one
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
SCHEMA = 2  # raise it when a field changes its meaning or goes, and extend ci.run.upgrade
_NO_XML = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ./inv test or ./inv blktests."""

    schema: Annotated[int, about("2")] = SCHEMA
    run: Annotated[str, about("the folder's name")]
    started: Annotated[str, about("UTC, ISO 8601")]
    seconds: Annotated[float, about("wall time of the tests, without building")]
    arguments: Annotated[
        tuple[str, ...], about("words of the command line; secrets of URLs are hidden")
    ] = ()
    tool: Annotated[Tool, about("the Blockyard that made it")]
    host: Annotated[Host, about("the machine that it was made on")]
    qemu: Annotated[str, about("version of QEMU's Debian package in the tool root")] = ""
    accelerator: Annotated[UsedAccelerator, about("what ran the guests")]
    kernel: Annotated[KernelInfo, about("the kernel's `kernel.json`")]
    kernel_options: Annotated[KernelOptions, about("which kernel was requested")]
    guest_packages: Annotated[dict[str, str], about("Debian package in the guests → version")] = {}
    selection: Annotated[Selected, about("which tests were requested")]
    upstream: Annotated[BlktestsCheckout | None, about("of `./inv blktests`: the checkout")] = None
    obsolete_failures: Annotated[
        tuple[str, ...], about("known failures that hold for no kernel any more, for people")
    ] = ()
    booted: Annotated[bool, about("whether any guest came up")] = True
    boots: Annotated[tuple[Boot, ...], about("the guests that came up with the driver loaded")] = ()
    interrupted: Annotated[
        bool, about("whether the run ended before its tests; those that did not report are `lost`")
    ] = False
    under_way: Annotated[tuple[str, ...], about("tests that ran then: `id[slot]`")] = ()
    resumed: Annotated[tuple[str, ...], about("when the run was taken up again, UTC")] = ()
    trusted_tests: Annotated[
        tuple[str, ...], about("module folders whose own tests ran without a sandbox")
    ] = ()
    tests: Annotated[
        tuple[CaseResult, ...], about("one object per test, driver, console and topology")
    ]

    @property
    def ok(self) -> bool:
        """Whether nothing failed, crashed, timed out or was lost."""
        return bool(self.tests) and not any(test.outcome in BAD for test in self.tests)

    def count(self, driver: str) -> Counter[Outcome]:
        """How many tests of a driver had each outcome."""
        return Counter(test.outcome for test in self.tests if test.driver == driver)


def utc(seconds: float) -> str:
    """A time since the epoch in the record's format."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def check_writable() -> None:
    """Raises Failure when results cannot be written; call it before anything is built."""
    folder = settings().results_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        raise _not_writable(settings().results_dir, error) from None


def _not_writable(path: Path, error: OSError) -> Failure:
    return Failure(
        f"cannot write to {path}: {error.strerror}",
        hint="set BLOCKYARD_RESULTS to a writable folder",
    )


def new_directory(kernel: str) -> Path:
    """Makes a new folder for a run, with time and kernel in its name; raises Failure."""
    name = re.sub(r"[^\w.-]+", "-", kernel).strip("-")[-40:]
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = settings().results_dir / f"{stamp}-{name}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise _not_writable(path, error) from None
    return path


def write(run: Run, directory: Path) -> Path:
    """Writes run.json and junit.xml, points results/latest to them, returns run.json's path.

    When the disk is full or gone, they are written to another folder, which is printed.
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
    for parent in (Path(tempfile.gettempdir()), settings().cache_dir):
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"blockyard-{run.run}-", dir=parent))
            path = _write(run, folder)
            (folder / "guests").symlink_to(directory / "guests")
        except OSError:
            continue
        note(f"cannot write to {directory} ({error.strerror}): the record is {path}")
        return path
    note(f"cannot write a record to {directory} ({error.strerror}), nor to any other folder")
    return directory / "run.json"


def _point(latest: Path, directory: Path) -> None:
    """Points the link results/latest to a run, atomically; another kind of file stays."""
    aside = latest.with_name(f".latest-{directory.name}")
    try:
        if latest.exists() and not latest.is_symlink():
            note(f"{latest} is not changed: it is not a symbolic link")
            return
        aside.symlink_to(directory.name)
        aside.replace(latest)
    except OSError as error:
        note(f"cannot point {latest} to this run: {error.strerror}")


def read(file: Path) -> Run:
    """The run in a run.json of this schema or an older one.

    Raises UsageError for a file of an unknown schema or with invalid content.
    """
    data = untrusted.read_input(file, "the run record", BYTES)
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema == SCHEMA:
            return msgspec.json.decode(data, type=Run)
        if schema == 1:
            return msgspec.convert(upgrade.run(msgspec.json.decode(data, type=dict)), Run)
    except UNREADABLE as error:
        raise UsageError(f"{file} is not a run record: {error}") from None
    raise UsageError(
        f"{file} is a run record of schema {schema}, expected 1 to {SCHEMA}",
        hint="a newer Blockyard wrote it: update this one",
    )


class _Schema(msgspec.Struct):
    schema: int


def junit(run: Run) -> bytes:
    """The run as JUnit XML: a test suite per driver, console and topology."""
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
    if test.rerun:
        properties = ElementTree.SubElement(case, "properties")
        again = test.rerun.translate(_NO_XML)
        ElementTree.SubElement(properties, "property", name="rerun", value=again)
    if tag:
        verdict = ElementTree.SubElement(
            case, tag, type=test.outcome, message=test.reason.translate(_NO_XML)
        )
        verdict.text = test.kernel_log.translate(_NO_XML)
