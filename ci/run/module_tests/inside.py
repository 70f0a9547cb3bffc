# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest inside an enclosure: started by module_tests.runner, it runs a module's test files.

It sets its resource limits before it imports anything of the module; they cannot be raised again.
Its reports go to a pipe that its workers do not have, as lines of JSON
(ci.run.module_tests.reports).
"""

from __future__ import annotations

import os
import sys

HERE = os.path.abspath(__file__)  # noqa: PTH100
# the folder of the package: blockyard/ci/run/module_tests/inside.py is five levels below it
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

PROCESSES = 4096  # with threads, of the user; root has no such limit
TEXT_LENGTH = 200_000  # characters of each text in a report


class Reporter:
    """The pytest plugin that writes the reports."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._file = open(descriptor, "wb", buffering=0)

    def write(self, line: own_reports.Line) -> None:
        """Writes one report."""
        self._file.write(msgspec.json.encode(line) + b"\n")

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        """Reports the file before its import, which may never end."""
        if isinstance(collector, pytest.Module):
            self.write(own_reports.Reading(str(collector.path)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Reports a file that cannot be imported, or skips itself."""
        if not report.passed:
            self.write(own_reports.Problem(_cut(str(report.longrepr))))

    def pytest_internalerror(self, excrepr: object) -> None:
        """Reports an error of pytest, a plugin or a conftest.py."""
        self.write(own_reports.Problem(_cut(str(excrepr)), defect=True))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Reports the tests, if they are only collected."""
        for item in session.items if session.config.option.collectonly else ():
            test = test_id(item)
            slot = test.slot
            names = test.name, slot.driver, slot.console, slot.topology
            self.write(own_reports.Test(item.nodeid, *names, test.features))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Reports the start of a test."""
        self.write(own_reports.Started(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Reports a phase of a test."""
        properties: dict[str, Any] = dict(report.user_properties)
        facts = None
        if fields := properties.get(PROPERTY):
            texts = {name: _cut(fields.get(name, "")) for name in ("reason", "kernel_log")}
            fields = fields | texts
            if skip := fields.get("skip"):
                fields["skip"] = {**skip, "text": _cut(skip["text"])}
            if boot := fields.get("boot"):
                warnings = [_cut(line) for line in boot["warnings"]]
                fields["boot"] = {**boot, "warnings": warnings}
            facts = msgspec.convert(fields, own_reports.Facts)
        text = _cut(report.longreprtext) if report.failed else ""
        when: Any = report.when
        self.write(
            own_reports.Phase(report.nodeid, when, report.outcome, report.duration, text, facts)
        )


def _cut(text: str) -> str:
    text = text.encode(errors="replace").decode()  # JSON has no lone surrogates
    if len(text) <= TEXT_LENGTH:
        return text
    return f"{text[: TEXT_LENGTH // 2]}\n...\n{text[-TEXT_LENGTH // 2 :]}"


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(ValueError, OSError):  # the limit is already lower
        resource.setrlimit(resource.RLIMIT_NPROC, (PROCESSES, PROCESSES))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # killed first, also its children


def main(path: str, descriptor: str) -> None:
    """Runs pytest as the orders in a file say; descriptor: of the pipe for the reports."""
    orders = msgspec.json.decode(Path(path).read_bytes(), type=own_reports.Orders)
    _limit(orders.memory)
    reports = Reporter(int(descriptor))
    code = pytest.main(list(orders.arguments), plugins=[reports])
    reports.write(own_reports.Finished(int(code)))


if __name__ == "__main__":
    main(*sys.argv[1:])
