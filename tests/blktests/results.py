# SPDX-License-Identifier: GPL-2.0-or-later
"""What upstream's ``check`` left behind after one test, and what that means in our words.

``check`` writes a file of ``key<TAB>value`` lines per test, device and condition
(``<where>/<group>/<number>``), with the output that was not the expected one (``.out.bad``) and the
kernel log in which it found something (``.dmesg``) beside it. The reasons of a test that was not
run are only printed. Nothing here touches a guest.
"""

from __future__ import annotations

import difflib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from blockyard.kernel.host.errors import Failure
from blockyard.tests.harness.outcomes import Lacking, SkipReason
from blockyard.tests.harness.upstream import UpstreamTest

LOG = "check.log"  # what `check` printed
STATUS = "check.status"  # its exit code
EXPECTED = "expected"  # the output that the test is to have
EXIT_STATUS = "exit_status"  # of the tests' own functions: where<TAB>status lines, see config.bash
MISSING = "missing"  # attributes that a stand-in for null_blk has not, see shim.bash
LINES = 20  # of a difference or an output in a reason
_NOT_RUN = re.compile(r"\[not run\]\s*$")
# What a shell says of an attribute that it cannot write to, and upstream of a value.
_WRITTEN = re.compile(r"/sys/kernel/config/[^/\s]+/[^/\s]+/(\w+):")
_REFUSED = re.compile(r"Writing (\S+) into /sys/kernel/config/[^/\s]+/[^/\s]+/(\w+) failed")
_TIMES = re.compile(r"^ {4}[\w ./-]+?(\s{2,}|\t)")  # a table of measured values, not a reason


@dataclass(frozen=True)
class Verdict:
    """What became of a test."""

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
    """A test on one device and condition."""

    where: str  # the device's name or "nodev", with the condition after an underscore
    status: str  # pass, fail or "not run"
    reason: str = ""  # of a failure: output, exit, dmesg or kmemleak
    exit_status: int = 0  # of the test's own function
    output: str = ""  # when it is not the expected one
    kernel_log: str = ""  # when upstream found something in it


@dataclass(frozen=True)
class Results:
    """Everything that one call of ``check`` with one test gave."""

    test: str
    parts: tuple[Part, ...]
    expected: str  # output
    printed: str
    status: int  # exit code of ``check``
    missing: tuple[str, ...] = ()  # attributes that the stand-in for null_blk has not

    @property
    def skip_reasons(self) -> tuple[str, ...]:
        """Why something was not run, as printed; each reason once."""
        return tuple(dict.fromkeys(_skip_reasons(self.printed)))


def read(test: str, archive: bytes) -> Results:
    """The results in a tar; raises Failure when it is none."""
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
    """Name → content. Nothing is unpacked: names in a guest's tar are not to be trusted."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            return {
                member.name.removeprefix("./"): content.read().decode(errors="replace")
                for member in tar
                # a sparse one is as large as it says it is, whatever came
                if member.isreg() and not member.issparse() and (content := tar.extractfile(member))
            }
    except tarfile.TarError as error:
        raise Failure(f"blktests: the guest gave no results: {error}") from None


def _part(where: str, name: str, files: Mapping[str, str], statuses: Mapping[str, str]) -> Part:
    lines = (line.split("\t", 1) for line in files[name].splitlines() if "\t" in line)
    values = dict(lines)
    told = statuses.get(where) or values.get("exit_status", "0")
    return Part(
        where=where,
        status=values.get("status", "nothing"),
        reason=values.get("reason", ""),
        exit_status=int(told) if told.isdecimal() else 1,
        output=files.get(f"{name}.out.bad", ""),
        kernel_log=files.get(f"{name}.dmesg", ""),
    )


def _skip_reasons(printed: str) -> Iterator[str]:
    within = False
    for line in printed.splitlines():
        if not line.startswith("    "):
            within = bool(_NOT_RUN.search(line))
        elif within and not _TIMES.match(line):
            yield line.strip()


def judge(
    results: Results, test: UpstreamTest, disk: str, driver: str, attributes: Sequence[str] = ()
) -> Verdict:
    """What the results say of a driver.

    disk: the one that the test was given, empty for none. attributes: those of a driver that
    stands in for null_blk; a test that wants another one was not run, whatever came of it.
    """
    if attributes and (lack := _lack(results, attributes)):
        what, lacks = lack
        return _skipped("driver", what, f"{driver} {lacks}")
    # upstream makes a disk with null_blk when the one that it was given does not fit
    parts = [part for part in results.parts if not disk or _is_on(part, disk)]
    bad = [part for part in parts if _failed(part)]
    if bad:
        words = (_words(part, results.expected, several=len(parts) > 1) for part in bad)
        return Verdict("fail", "\n".join(words), "\n".join(part.kernel_log for part in bad))
    if any(part.status == "pass" for part in parts):
        return Verdict("pass")
    if reasons := results.skip_reasons:
        # its name is a matter of chance, and reports bring equal reasons together
        named = (one.replace(f"/dev/{disk} ", "the disk ") if disk else one for one in reasons)
        return _skipped("test", "", *named)
    if test.on_a_disk and results.parts:
        return _skipped("test", "", f"{test.name} runs on disks of its own, not on {disk}")
    told = f"check told nothing of the test, exit code {results.status}"
    return Verdict("fail", f"{told}\n{_shortened(results.printed)}".strip())


def _is_on(part: Part, disk: str) -> bool:
    return part.where == disk or part.where.startswith(f"{disk}_")


def _failed(part: Part) -> bool:
    """Also where ``check`` lost the exit status of a test whose output is as expected."""
    return part.status not in ("pass", "not run") or (
        part.status == "pass" and part.exit_status > 0
    )


def _lack(results: Results, attributes: Sequence[str]) -> tuple[str, str] | None:
    """What the stand-in for null_blk lacks for the test, as SkipReason.what and in words.

    Besides what the test asked for: attributes that it wrote to at once, and values refused.
    """
    output = "\n".join(part.output for part in results.parts)
    written = [name for name in _WRITTEN.findall(output) if name not in attributes]
    if missing := dict.fromkeys([*results.missing, *written]):
        return f"attribute:{','.join(missing)}", f"has no attribute {', '.join(missing)}"
    refused = (f"{name}={value}" for value, name in _REFUSED.findall(output) if name != "power")
    if values := dict.fromkeys(refused):
        return f"value:{','.join(values)}", f"refuses {', '.join(values)}"
    return None


def _words(part: Part, expected: str, *, several: bool) -> str:
    where = f"{part.where}: " if several else ""
    if part.status == "pass":
        return f"{where}exit status {part.exit_status}, which check lost"
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
        return f"{where}upstream found something in the kernel log"
    return f"{where}{part.reason or part.status}"


def _shortened(text: str) -> str:
    lines = text.splitlines()
    rest = [f"... {len(lines) - LINES} lines more"] if len(lines) > LINES else []
    return "\n".join([*lines[:LINES], *rest])
