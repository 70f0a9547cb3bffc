# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest inside an enclosure: started by module_tests.runner, it runs a module's own test files.

It limits itself before it imports anything of the module's: what is limited once stays so. Its
reports go to a pipe that its workers do not have, as lines of JSON (ci.run.module_tests.reports).
"""

from __future__ import annotations

import os
import sys

HERE = os.path.abspath(__file__)  # noqa: PTH100
# what holds the package: blockyard/ci/run/module_tests/inside.py is five levels below it
ROOT = HERE.rsplit(os.sep, 5)[0]
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import contextlib  # noqa: E402
import resource  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import msgspec  # noqa: E402
import pytest  # noqa: E402

from blockyard.ci.run.case_id import test_id  # noqa: E402
from blockyard.ci.run.module_tests import reports as own_reports  # noqa: E402
from blockyard.tests.harness.plugin import PROPERTY  # noqa: E402

PROCESSES = 4096  # and threads, of an ordinary user; root has no such limit
TEXT_LENGTH = 200_000  # of one report's texts


class Reporter:
    """The pytest plugin that reports."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._file = open(descriptor, "wb", buffering=0)

    def write(self, line: own_reports.Line) -> None:
        """One line of it."""
        self._file.write(msgspec.json.encode(line) + b"\n")

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        """A file that never ends to be imported is known by its name."""
        if isinstance(collector, pytest.Module):
            self.write(own_reports.Reading(str(collector.path)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read, or skips itself."""
        if not report.passed:
            self.write(own_reports.Problem(_cut(str(report.longrepr))))

    def pytest_internalerror(self, excrepr: object) -> None:
        """A defect in pytest, a plugin or a conftest.py."""
        self.write(own_reports.Problem(_cut(str(excrepr)), defect=True))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The tests, when they are only collected."""
        for item in session.items if session.config.option.collectonly else ():
            test = test_id(item)
            slot = test.slot
            names = test.name, slot.driver, slot.console, slot.topology
            self.write(own_reports.Test(item.nodeid, *names, test.features))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self.write(own_reports.Begun(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test."""
        properties: dict[str, Any] = dict(report.user_properties)
        facts = None
        if found := properties.get(PROPERTY):
            found = found | {name: _cut(found.get(name, "")) for name in ("reason", "kernel_log")}
            if skip := found.get("skip"):
                found["skip"] = {**skip, "text": _cut(skip["text"])}
            if boot := found.get("boot"):
                texts = [_cut(line) for line in boot["warnings"]]
                found["boot"] = {**boot, "warnings": texts}
            facts = msgspec.convert(found, own_reports.Facts)
        text = _cut(report.longreprtext) if report.failed else ""
        when: Any = report.when
        self.write(
            own_reports.Phase(report.nodeid, when, report.outcome, report.duration, text, facts)
        )


def _cut(text: str) -> str:
    text = text.encode(errors="replace").decode()  # a lone surrogate is no JSON
    if len(text) <= TEXT_LENGTH:
        return text
    return f"{text[: TEXT_LENGTH // 2]}\n...\n{text[-TEXT_LENGTH // 2 :]}"


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(ValueError, OSError):  # it is lower already
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the first to go, children included


def main(path: str, descriptor: str) -> None:
    """Does what the orders in a file say."""
    orders = msgspec.json.decode(Path(path).read_bytes(), type=own_reports.Orders)
    _limit(orders.memory)
    reports = Reporter(int(descriptor))
    code = pytest.main(list(orders.arguments), plugins=[reports])
    reports.write(own_reports.Ended(int(code)))


if __name__ == "__main__":
    main(*sys.argv[1:])
