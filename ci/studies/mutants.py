# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutation testing: plants one bug at a time in a driver, and finds the tests that catch it.

A mutant is a patch in `tests/mutants/<driver>/`, a realistic bug. Its driver is built alone,
replaces the kernel's own in the guests, and is tested by the suites. A test catches a mutant if it
fails with the mutant and passed in the baseline: the same driver, built the same way, unpatched.
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
    about: str  # what is wrong
    variant: str  # of the kernel, in which it can be caught
    patch: Patch
    suites: tuple[str, ...] = ()  # likely to catch it; they run first

    @property
    def driver(self) -> str:
        """The driver that it changes."""
        return self.name.partition("/")[0]


class Catch(msgspec.Struct, frozen=True):
    """A test that caught a mutant."""

    test: str  # its id, with the topology that it requests
    outcome: Outcome
    reason: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Result of testing a mutant."""

    mutant: str
    about: str
    variant: str
    caught_by: tuple[Catch, ...] = ()
    problem: str = ""  # why it was not tested; it then counts as not caught
    seconds: float = 0.0
    record: str = ""  # the folder of its run records


class NeverFailed(msgspec.Struct, frozen=True):
    """A test that ran with a mutant and caught none, with any parameters and hardware."""

    test: str
    about: tuple[str, ...]  # the features that it tests


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Results of all mutants."""

    kernel: str  # uname -r
    date: str  # UTC
    accelerator: str
    verdicts: tuple[Verdict, ...]
    every_test: bool  # whether all tests ran on each mutant, also after the first catch
    baseline_failures: tuple[str, ...] = ()  # tests that fail without a bug, so cannot catch one
    never_failed: tuple[NeverFailed, ...] = ()  # only with every_test

    @property
    def caught(self) -> int:
        """Number of mutants that a test caught."""
        return sum(bool(verdict.caught_by) for verdict in self.verdicts)

    @property
    def ok(self) -> bool:
        """Whether all mutants were caught."""
        return self.caught == len(self.verdicts)


def read(path: Path) -> Mutant:
    """Reads a mutant: header fields, an empty line, a description of the bug, a diff.

    Raises UsageError for a file in another form.
    """
    mail = email.message_from_string(path.read_text())
    body = str(mail.get_payload())
    diff = body[start.start() :] if (start := re.search(r"^--- ", body, re.MULTILINE)) else ""
    about = " ".join(body.removesuffix(diff).split())
    fields = {str(name): str(value) for name, value in mail.items()}
    variant = fields.get("Variant", PLAIN)
    if fields.get("SPDX-License-Identifier") != LICENSE or not fields.keys() <= FIELDS:
        raise UsageError(
            f"{path}: invalid header: expected SPDX-License-Identifier: {LICENSE}, optionally "
            "Variant and Suites"
        )
    if variant not in variants.names():
        raise unknown("variant", variant, variants.names())
    if not about or not diff:
        raise UsageError(f"{path}: expected a description of the bug, then a diff")
    name = f"{path.parent.name}/{path.stem}"
    suites = fields.get("Suites", "")
    first = selection.parse_names("suite", suites, tuple(selection.suites())) if suites else ()
    return Mutant(name, about, variant, Patch(name, diff.encode()), first)


def mutants(driver: str = "", pattern: str = "") -> tuple[Mutant, ...]:
    """The mutants whose driver and name match. driver: comma-separated names; empty: all.

    pattern: part of the name, or a glob with * and ?. Raises UsageError when none matches.
    """
    known = sorted({path.parent.name for path in FOLDER.glob("*/*.patch")})
    drivers = selection.parse_names("driver", driver, known)
    glob = pattern if set(pattern) & set("*?") else f"*{pattern}*"
    matching = tuple(
        mutant
        for mutant in map(read, sorted(FOLDER.glob("*/*.patch")))
        if mutant.driver in drivers and fnmatchcase(mutant.name, glob)
    )
    if not matching:
        raise UsageError(f"no mutant matches {pattern!r}", hint=f"mutants are in {FOLDER}")
    return matching


@dataclass(frozen=True)
class Conditions:
    """How mutants are tested."""

    kernel: str
    accel: str
    workers: int  # guests at the same time
    suite: str = ""  # comma-separated; empty: all
    every_test: bool = False  # go on after a test has caught the mutant


@dataclass
class MutationRun:
    """Runs mutants on one variant of the kernel; keeps the baseline of each driver."""

    conditions: Conditions
    variant: str
    directory: Path
    baselines: dict[str, record.Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = spec = KernelSpec(self.conditions.kernel, self.variant).checked()
        self.ready: BootEnv = boot_env.ready(spec, self.conditions.accel)
        self._tree: Tree = plan.build_spec(spec, self.ready.tools).tree
        kernel, tools = self.ready.kernel, self.ready.tools
        self._build_env: ModuleBuildEnv = plan.module_build_env(spec, kernel, tools)

    def baseline(self, driver: str) -> record.Run:
        """The run of the unpatched driver, made once. Raises Failure when no test passes."""
        if driver not in self.baselines:
            trial = SubRun(self.directory / driver / f"baseline-{self.variant}")
            baseline = self._try(driver, [], trial)
            if not baseline.count(driver)["pass"]:
                raise Failure(
                    f"no test of {driver} passes without a bug, so no test can catch one",
                    log=trial.directory / "run.json",
                )
            passed = baseline.count(driver)["pass"]
            note(f"{driver} without a bug: {passed} tests pass, {baseline.seconds:.0f} s")
            self.baselines[driver] = baseline
        return self.baselines[driver]

    def run(self, mutant: Mutant) -> Iterator[record.Run]:
        """Yields the runs of a mutant; without `every_test`, they end at the first catch.

        Leaves out tests that fail in the baseline. Skipped tests are run: a bug may make the driver
        do what it otherwise does not support.
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
        """Builds the driver with patches (modules.rebuilt); returns the folder of its modules."""
        kernel, tools = self.ready.kernel, self.ready.tools
        known = manifest.load(driver)
        return rebuilt.rebuilt(known, kernel, self._tree, patches, tools, self._build_env)

    def _try(self, driver: str, patches: Sequence[Patch], trial: SubRun) -> record.Run:
        kernel, tools = self.ready.kernel, self.ready.tools
        module = self.module(driver, patches)
        env = replace(self.ready, files=guest_files(kernel, tools, [module]))
        trial.directory.mkdir(parents=True)
        selected = selection.select(driver, "serial", self.conditions.suite, spend="quick")
        what = " ".join([driver, *(f"with {patch.name}" for patch in patches)])
        note(
            f"testing {what} on kernel {kernel.info.name}"
        )  # printed now: pytest would capture it later
        return run.run(env, selected, self.conditions.workers, self.spec, trial)[0]


def catches(finished: record.Run) -> tuple[Catch, ...]:
    """The bad tests of a mutant's run, except lost ones, which did not run to an end.

    All of them passed in the baseline.
    """
    return tuple(
        Catch(_words(*test.key), test.outcome, " ".join(test.reason.split()))
        for test in finished.tests
        if test.outcome in BAD and test.outcome != "lost"
    )


def _words(test: str, hardware: str) -> str:
    return f"{test} on {hardware}" if hardware else test


def examine(selected: Sequence[Mutant], conditions: Conditions) -> Report:
    """Tests the mutants one by one; writes the report so far after each of them."""
    directory = record.new_directory("mutants")
    by_variant: dict[str, MutationRun] = {}
    verdicts: list[Verdict] = []
    ran: list[CaseResult] = []
    for number, mutant in enumerate(selected, start=1):
        if not (mutation_run := by_variant.get(mutant.variant)):
            mutation_run = MutationRun(conditions, mutant.variant, directory)
            by_variant[mutant.variant] = mutation_run
        verdict, tests = _examine(mutation_run, mutant)
        verdicts.append(verdict)
        ran += tests
        note(
            f"[{number}/{len(selected)}] {mutant.name}: {outcome(verdict)} {verdict.seconds:.0f} s"
        )
        baselines = [run for variant in by_variant.values() for run in variant.baselines.values()]
        report = Report(
            kernel=mutation_run.ready.kernel.info.release,
            date=time.strftime("%Y-%m-%d", time.gmtime()),
            accelerator=mutation_run.ready.accelerator.name,
            verdicts=tuple(verdicts),
            every_test=conditions.every_test,
            baseline_failures=tuple(
                sorted({line for run in baselines for line in _baseline_failures(run)})
            ),
            never_failed=tuple(never_failed(ran)) if conditions.every_test else (),
        )
        store.write(directory / REPORT, msgspec.json.format(msgspec.json.encode(report)))
    note(f"report: {directory / REPORT}")
    return report


def never_failed(tests: Iterable[CaseResult]) -> Iterator[NeverFailed]:
    """Test functions that ran and failed with no mutant, by name."""
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


def _examine(mutation_run: MutationRun, mutant: Mutant) -> tuple[Verdict, list[CaseResult]]:
    """Tests a mutant; returns the verdict, and the results of its tests."""
    verdict = Verdict(mutant=mutant.name, about=mutant.about, variant=mutant.variant)
    caught_by: tuple[Catch, ...] = ()
    ran: list[CaseResult] = []
    try:
        mutation_run.module(mutant.driver, [mutant.patch])  # fails sooner than the long baseline
    except Failure as error:
        return msgspec.structs.replace(verdict, problem=str(error)), []
    mutation_run.baseline(mutant.driver)  # its failure ends the command, not this mutant only
    start_s = time.monotonic()
    try:
        for finished in mutation_run.run(mutant):
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
        seconds=round(time.monotonic() - start_s, 1),
        record=str(mutation_run.directory / mutant.name),
    )
    return verdict, ran


def outcome(verdict: Verdict) -> str:
    """The verdict for a table, such as ``caught by block/discard and 2 more``."""
    if verdict.problem:
        return f"not tested: {verdict.problem.splitlines()[0]}"
    if not verdict.caught_by:
        return "missed"
    first, *others = verdict.caught_by
    more = f" and {len(others)} more" if others else ""
    return f"caught by {first.test}{more}"
