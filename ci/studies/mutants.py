# SPDX-License-Identifier: GPL-2.0-or-later
"""Proof by planted bugs: drivers with one bug each, and which test catches it.

A mutant is a patch in `tests/mutants/<driver>/`, a realistic bug. Its driver is built alone, put
into the guests in the place of the kernel's own, and tested by the suites. A mutant is caught by a
test that is bad with it and was not bad without: the baseline is the same driver, built the same
way from no patch.
"""

from __future__ import annotations

import email
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from blockyard.ci.run import boot_env, record, run, selection
from blockyard.ci.run.selection import SubRun
from blockyard.images.files import guest_files
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.config import variants
from blockyard.kernel.config.variants import PLAIN
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, UsageError, unknown
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources.series import Patch
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan, rebuilt
from blockyard.modules.external import ModuleBuildEnv
from blockyard.tests.harness.outcomes import BAD, CaseResult, Outcome

REPORT = "mutants.json"  # in the folder of a run
FOLDER = PROJECT / "tests" / "mutants"
LICENSE = "GPL-2.0"  # the kernel's: a patch of its files is under it
FIELDS = {"SPDX-License-Identifier", "Variant", "Suites"}


@dataclass(frozen=True)
class Mutant:
    """A planted bug."""

    name: str  # driver/bug
    about: str  # what is wrong then
    variant: str  # of the kernel in which it can show
    patch: Patch
    suites: tuple[str, ...] = ()  # where one would look for it: they are run first

    @property
    def driver(self) -> str:
        """Whose bug it is."""
        return self.name.partition("/")[0]


class Catch(msgspec.Struct, frozen=True):
    """A test that is bad with a mutant and is not without."""

    test: str  # its id, with the hardware that it asked for
    outcome: Outcome
    reason: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one mutant."""

    mutant: str
    about: str
    variant: str
    caught_by: tuple[Catch, ...] = ()
    problem: str = ""  # why it could not be tried: that is not caught
    seconds: float = 0.0
    record: str = ""  # the folder of its run records


class NeverFailed(msgspec.Struct, frozen=True):
    """A test that ran with some mutant and caught none, whatever its parameters and hardware."""

    test: str
    about: tuple[str, ...]  # the features that it is there for


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all mutants."""

    kernel: str  # uname -r
    date: str  # UTC
    accelerator: str
    verdicts: tuple[Verdict, ...]
    every_test: bool  # whether mutants were run to the end, so that all catching tests are known
    baseline_failures: tuple[str, ...] = ()  # tests that are bad without a bug, and so catch none
    never_failed: tuple[NeverFailed, ...] = ()  # only with every_test

    @property
    def caught(self) -> int:
        """How many mutants some test noticed."""
        return sum(bool(verdict.caught_by) for verdict in self.verdicts)

    @property
    def ok(self) -> bool:
        """Whether all of them were."""
        return self.caught == len(self.verdicts)


def read(path: Path) -> Mutant:
    """The mutant in a file: header fields, an empty line, what is wrong, one diff.

    Raises UsageError for a file that says less, or something else.
    """
    mail = email.message_from_string(path.read_text())
    body = str(mail.get_payload())
    diff = body[found.start() :] if (found := re.search(r"^--- ", body, re.MULTILINE)) else ""
    about = " ".join(body.removesuffix(diff).split())
    fields = {str(name): str(value) for name, value in mail.items()}
    variant = fields.get("Variant", PLAIN)
    if fields.get("SPDX-License-Identifier") != LICENSE or not fields.keys() <= FIELDS:
        raise UsageError(
            f"{path}: the header of a mutant is SPDX-License-Identifier: {LICENSE} and, if need "
            "be, Variant and Suites"
        )
    if variant not in variants.names():
        raise unknown("variant", variant, variants.names())
    if not about or not diff:
        raise UsageError(f"{path}: a mutant says in words what is wrong, then comes its diff")
    name = f"{path.parent.name}/{path.stem}"
    suites = fields.get("Suites", "")
    first = selection.parse_names("suite", suites, tuple(selection.suites())) if suites else ()
    return Mutant(name, about, variant, Patch(name, diff.encode()), first)


def mutants(driver: str = "", pattern: str = "") -> tuple[Mutant, ...]:
    """The mutants of some drivers (comma-separated) whose names match; an empty choice: all.

    pattern: a part of the name, or one with * and ?. Raises UsageError when there are none.
    """
    known = sorted({path.parent.name for path in FOLDER.glob("*/*.patch")})
    drivers = selection.parse_names("driver", driver, known)
    wanted = pattern if set(pattern) & set("*?") else f"*{pattern}*"
    found = tuple(
        mutant
        for mutant in map(read, sorted(FOLDER.glob("*/*.patch")))
        if mutant.driver in drivers and fnmatchcase(mutant.name, wanted)
    )
    if not found:
        raise UsageError(f"no mutant matches {pattern!r}", hint=f"they are in {FOLDER}")
    return found


@dataclass(frozen=True)
class Conditions:
    """How mutants are tried."""

    kernel: str
    accel: str
    workers: int  # guests side by side
    suite: str = ""  # comma-separated; empty: all
    every_test: bool = False  # also after one has caught the mutant


@dataclass
class MutationRun:
    """One variant of the kernel, and what its drivers did without a bug."""

    conditions: Conditions
    variant: str
    directory: Path
    baselines: dict[str, record.Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choice = self.choice = KernelSpec(self.conditions.kernel, self.variant).checked()
        self.ready: BootEnv = boot_env.ready(choice, self.conditions.accel)
        self._tree: Tree = plan.build_spec(choice, self.ready.tools).tree
        kernel, tools = self.ready.kernel, self.ready.tools
        self._maker: ModuleBuildEnv = plan.module_build_env(choice, kernel, tools)

    def baseline(self, driver: str) -> record.Run:
        """The run of a driver without a patch; made once."""
        if driver not in self.baselines:
            trial = SubRun(self.directory / driver / f"baseline-{self.variant}")
            baseline = self._try(driver, [], trial)
            if not baseline.count(driver)["pass"]:
                raise Failure(
                    f"no test of {driver} passes without a bug, so none can catch one",
                    log=trial.directory / "run.json",
                )
            passed = baseline.count(driver)["pass"]
            note(f"{driver} without a bug: {passed} tests pass, {baseline.seconds:.0f} s")
            self.baselines[driver] = baseline
        return self.baselines[driver]

    def run(self, mutant: Mutant) -> Iterator[record.Run]:
        """The runs of a mutant; unless every test is wanted, they end at the first catch.

        A test that is bad without a bug catches none, and is left out. One that is skipped may:
        what a driver does not promise can be what a bug makes it do.
        """
        every_test = self.conditions.every_test
        good = [test for test in self.baseline(mutant.driver).tests if test.outcome not in BAD]
        first = [test for test in good if test.suite in mutant.suites and not every_test]
        others = [test for test in good if test not in first]
        directory = self.directory / mutant.name
        for name, tests in (("first", first), ("others", others)):
            if tests:
                only = frozenset(test.key for test in tests)
                trial = SubRun(directory / name, only, stop=not every_test)
                yield self._try(mutant.driver, [mutant.patch], trial)

    def module(self, driver: str, patches: Sequence[Patch]) -> Path:
        """The driver's modules, built with patches; see modules.rebuilt."""
        kernel, tools = self.ready.kernel, self.ready.tools
        known = manifest.load(driver)
        return rebuilt.rebuilt(known, kernel, self._tree, patches, tools, self._maker)

    def _try(self, driver: str, patches: Sequence[Patch], trial: SubRun) -> record.Run:
        kernel, tools = self.ready.kernel, self.ready.tools
        module = self.module(driver, patches)
        ready = replace(self.ready, files=guest_files(kernel, tools, [module]))
        trial.directory.mkdir(parents=True)
        wanted = selection.select(driver, "serial", self.conditions.suite, spend="quick")
        what = " ".join([driver, *(f"with {patch.name}" for patch in patches)])
        note(f"testing {what} on kernel {kernel.info.name}")  # at once: pytest captures a timer's
        return run.run(ready, wanted, self.conditions.workers, self.choice, trial)[0]


def catches(finished: record.Run) -> tuple[Catch, ...]:
    """The tests of a mutant's run that are bad: none of them was without the bug.

    One that was lost has seen nothing.
    """
    return tuple(
        Catch(_words(*test.key), test.outcome, " ".join(test.reason.split()))
        for test in finished.tests
        if test.outcome in BAD and test.outcome != "lost"
    )


def _words(test: str, hardware: str) -> str:
    return f"{test} on {hardware}" if hardware else test


def examine(wanted: Sequence[Mutant], conditions: Conditions) -> Report:
    """Tries the mutants one after the other; what came of them is kept as it comes."""
    directory = record.new_directory("mutants")
    laboratories: dict[str, MutationRun] = {}
    verdicts: list[Verdict] = []
    ran: list[CaseResult] = []
    for number, mutant in enumerate(wanted, start=1):
        if not (laboratory := laboratories.get(mutant.variant)):
            laboratory = MutationRun(conditions, mutant.variant, directory)
            laboratories[mutant.variant] = laboratory
        verdict, tests = _examine(laboratory, mutant)
        verdicts.append(verdict)
        ran += tests
        note(f"[{number}/{len(wanted)}] {mutant.name}: {outcome(verdict)} {verdict.seconds:.0f} s")
        baselines = [one for each in laboratories.values() for one in each.baselines.values()]
        report = Report(
            kernel=laboratory.ready.kernel.info.release,
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            accelerator=laboratory.ready.accelerator.name,
            verdicts=tuple(verdicts),
            every_test=conditions.every_test,
            baseline_failures=tuple(
                sorted({one for run in baselines for one in _baseline_failures(run)})
            ),
            never_failed=tuple(never_failed(ran)) if conditions.every_test else (),
        )
        store.write(directory / REPORT, msgspec.json.format(msgspec.json.encode(report)))
    note(f"what came of them is also in {directory / REPORT}")
    return report


def never_failed(tests: Iterable[CaseResult]) -> Iterator[NeverFailed]:
    """The test functions, by name, of which no test was bad with any mutant."""
    features: dict[str, dict[str, None]] = {}
    caught = set()
    for test in tests:
        function = test.id.partition("(")[0]
        if test.outcome in BAD:
            caught.add(function)
        if test.outcome != "skip":
            features.setdefault(function, {}).update(dict.fromkeys(test.features))
    for function in sorted(features.keys() - caught):
        yield NeverFailed(function, tuple(features[function]))


def _baseline_failures(baseline: record.Run) -> Iterator[str]:
    for test in baseline.tests:
        if test.outcome in BAD:
            yield f"{_words(*test.key)} [{test.driver}]: {' '.join(test.reason.split())}"


def _examine(laboratory: MutationRun, mutant: Mutant) -> tuple[Verdict, list[CaseResult]]:
    """What came of a mutant, and of the tests that were run on it."""
    verdict = Verdict(mutant=mutant.name, about=mutant.about, variant=mutant.variant)
    caught_by: tuple[Catch, ...] = ()
    ran: list[CaseResult] = []
    try:
        laboratory.module(mutant.driver, [mutant.patch])  # sooner than the long baseline
    except Failure as error:
        return msgspec.structs.replace(verdict, problem=str(error)), []
    laboratory.baseline(mutant.driver)  # one that cannot be is no mutant's problem
    begun = time.monotonic()
    try:
        for finished in laboratory.run(mutant):
            ran += finished.tests
            if caught_by := catches(finished):
                break
    except Failure as error:
        return msgspec.structs.replace(verdict, problem=str(error)), []
    lost = [test for test in ran if test.outcome == "lost"]
    problem = f"{len(lost)} tests were lost: {lost[0].reason}" if lost and not caught_by else ""
    verdict = msgspec.structs.replace(
        verdict,
        caught_by=caught_by,
        problem=problem,
        seconds=round(time.monotonic() - begun, 1),
        record=str(laboratory.directory / mutant.name),
    )
    return verdict, ran


def outcome(verdict: Verdict) -> str:
    """In a few words."""
    if verdict.problem:
        return f"not tried: {verdict.problem.splitlines()[0]}"
    if not verdict.caught_by:
        return "missed"
    first, *others = verdict.caught_by
    more = f" and {len(others)} more" if others else ""
    return f"caught by {first.test}{more}"
