# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of upstream's ``check`` for one test, and the verdict on them.

``check`` writes a file of ``key<TAB>value`` lines per test, device and condition
(``<where>/<group>/<number>``). Beside it are the output if it is not the expected one
(``.out.bad``) and the kernel log if ``check`` found a problem in it (``.dmesg``). Why a test was
not run is only printed. Nothing here uses a guest.
"""

from __future__ import annotations

import difflib
import io
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from blockyard.kernel.host.errors import Failure
from blockyard.tests.harness.outcomes import Lacking, SkipReason
from blockyard.tests.harness.upstream import UpstreamTest

LOG = "check.log"  # what `check` printed
STATUS = "check.status"  # its exit code
EXPECTED = "expected"  # the expected output of the test
EXIT_STATUS = "exit_status"  # of test functions, as lines of where<TAB>status; see config.bash
MISSING = "missing"  # attributes that a stand-in for null_blk lacks; see shim.bash
LINES = 20  # of a diff or an output in a reason
_NOT_RUN = re.compile(r"\[not run\]\s*$")
# Messages of the shell for an attribute that cannot be written, and of upstream for a value.
_WRITTEN = re.compile(r"/sys/kernel/config/[^/\s]+/[^/\s]+/(\w+):")
_REFUSED = re.compile(r"Writing (\S+) into /sys/kernel/config/[^/\s]+/[^/\s]+/(\w+) failed")
_TIMES = re.compile(r"^ {4}[\w ./-]+?(\s{2,}|\t)")  # a line of measured values, not a reason


@dataclass(frozen=True)
class Verdict:
    """Outcome of a test, with the reason and the kernel log of a failure."""

    outcome: Literal["pass", "fail", "skip"]
    reason: str = ""
    kernel_log: str = ""
    skip: SkipReason | None = None


def _skipped(lacking: Lacking, what: str, *reasons: str) -> Verdict:
    first, *others = reasons
    skip = SkipReason(lacking=lacking, what=what, text=first, more=len(others))
    return Verdict("skip", "; ".join(reasons), skip=skip)


@dataclass(frozen=True)
class Part:
    """Result of a test on one device under one condition."""

    where: str  # device name or "nodev", followed by an underscore and the condition if any
    status: str  # pass, fail or "not run"
    reason: str = ""  # of a failure: output, exit, dmesg or kmemleak
    exit_status: int = 0  # of the test function
    output: str = ""  # only if it is not the expected one
    kernel_log: str = ""  # only if upstream found a problem in it


@dataclass(frozen=True)
class Results:
    """All results of one call of ``check`` for one test."""

    test: str
    parts: tuple[Part, ...]
    expected: str  # output
    printed: str  # by ``check``
    status: int  # exit code of ``check``
    missing: tuple[str, ...] = ()  # attributes that the stand-in for null_blk lacks

    @property
    def skip_reasons(self) -> tuple[str, ...]:
        """Printed reasons why the test was not run, without duplicates."""
        return tuple(dict.fromkeys(_skip_reasons(self.printed)))


def read(test: str, archive: bytes) -> Results:
    """Read the results from a tar; raises Failure if it is invalid."""
    files = _files(archive)
    statuses = dict(
        line.split("\t", 1) for line in files.get(EXIT_STATUS, "").splitlines() if "\t" in line
    )
    parts = [
        _part(where.removesuffix(f"/{test}"), where, files, statuses)
        for where in sorted(files)
        if where.endswith(f"/{test}")
    ]
    status = files.get(STATUS, "").strip()
    return Results(
        test=test,
        parts=tuple(parts),
        expected=files.get(EXPECTED, ""),
        printed=files.get(LOG, ""),
        status=int(status) if status.isdecimal() else 1,
        missing=tuple(dict.fromkeys(files.get(MISSING, "").split())),
    )


def _files(archive: bytes) -> dict[str, str]:
    """Name → content. Nothing is unpacked, because names in a guest's tar are untrusted."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            return {
                member.name.removeprefix("./"): content.read().decode(errors="replace")
                for member in tar
                # a sparse file may claim any size
                if member.isreg() and not member.issparse() and (content := tar.extractfile(member))
            }
    except tarfile.TarError as error:
        raise Failure(f"blktests: cannot read the results of the guest: {error}") from None


def _part(where: str, name: str, files: Mapping[str, str], statuses: Mapping[str, str]) -> Part:
    lines = (line.split("\t", 1) for line in files[name].splitlines() if "\t" in line)
    values = dict(lines)
    exit_status = statuses.get(where) or values.get("exit_status", "0")
    return Part(
        where=where,
        status=values.get("status", "nothing"),
        reason=values.get("reason", ""),
        exit_status=int(exit_status) if exit_status.isdecimal() else 1,
        output=files.get(f"{name}.out.bad", ""),
        kernel_log=files.get(f"{name}.dmesg", ""),
    )


def _skip_reasons(printed: str) -> Iterator[str]:
    not_run = False
    for line in printed.splitlines():
        if not line.startswith("    "):
            not_run = bool(_NOT_RUN.search(line))
        elif not_run and not _TIMES.match(line):
            yield line.strip()


def judge(
    results: Results, test: UpstreamTest, disk: str, driver: str, attributes: Collection[str] = ()
) -> Verdict:
    """The verdict of a test on a driver.

    disk: the name of the test's disk, empty for none. attributes: those of a driver that stands in
    for null_blk; a test that uses other attributes counts as skipped.
    """
    if attributes and (missing := _missing(results, attributes)):
        what, text = missing
        return _skipped("driver", what, f"{driver} {text}")
    # upstream creates a null_blk disk if the test's disk is unsuitable
    parts = [part for part in results.parts if not disk or _is_on(part, disk)]
    bad = [part for part in parts if _failed(part)]
    if bad:
        reasons = (_describe(part, results.expected, several=len(parts) > 1) for part in bad)
        return Verdict("fail", "\n".join(reasons), "\n".join(part.kernel_log for part in bad))
    if any(part.status == "pass" for part in parts):
        return Verdict("pass")
    if printed := results.skip_reasons:
        # disk names vary, and reports group equal reasons
        neutral = (line.replace(f"/dev/{disk} ", "the disk ") if disk else line for line in printed)
        return _skipped("test", "", *neutral)
    if test.on_a_disk and results.parts:
        return _skipped("test", "", f"{test.name} runs on disks of its own, not on {disk}")
    text = f"check reported no result, exit code {results.status}"
    return Verdict("fail", f"{text}\n{_shortened(results.printed)}".strip())


def _is_on(part: Part, disk: str) -> bool:
    return part.where == disk or part.where.startswith(f"{disk}_")


def _failed(part: Part) -> bool:
    """Whether a part failed; also true if ``check`` ignored the exit status of the test."""
    return part.status not in ("pass", "not run") or (
        part.status == "pass" and part.exit_status > 0
    )


def _missing(results: Results, attributes: Collection[str]) -> tuple[str, str] | None:
    """What the stand-in for null_blk lacks for the test, as SkipReason.what and as text.

    Attributes that the test asked for or wrote to, and values that the driver refused.
    """
    output = "\n".join(part.output for part in results.parts)
    written = [name for name in _WRITTEN.findall(output) if name not in attributes]
    if missing := dict.fromkeys([*results.missing, *written]):
        return f"attribute:{','.join(missing)}", f"has no attribute {', '.join(missing)}"
    refused = (f"{name}={value}" for value, name in _REFUSED.findall(output) if name != "power")
    if values := dict.fromkeys(refused):
        return f"value:{','.join(values)}", f"refuses {', '.join(values)}"
    return None


def _describe(part: Part, expected: str, *, several: bool) -> str:
    where = f"{part.where}: " if several else ""
    if part.status == "pass":
        return f"{where}exit status {part.exit_status}, ignored by check"
    if part.reason == "output":
        head = f"{where}not the expected output, exit status {part.exit_status}"
        difference = difflib.unified_diff(
            expected.splitlines(), part.output.splitlines(), "expected", "output", lineterm="", n=1
        )
        shown = _shortened("\n".join(difference))
        return f"{head}\n{shown}"
    if part.reason == "exit":
        return f"{where}exit status {part.exit_status}"
    if part.reason == "dmesg":
        return f"{where}upstream found a problem in the kernel log"
    return f"{where}{part.reason or part.status}"


def _shortened(text: str) -> str:
    lines = text.splitlines()
    rest = [f"... {len(lines) - LINES} more lines"] if len(lines) > LINES else []
    return "\n".join([*lines[:LINES], *rest])
