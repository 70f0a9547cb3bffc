# SPDX-License-Identifier: GPL-2.0-or-later
"""``blktests``: our tests against the upstream blktests that test the same.

The pairs are in ``blktests.toml``. Both sides run in guests of the same kind, one guest per driver;
boot time does not count. Times of our tests come from the run record, and include the scan of the
kernel log. The first test of a guest is not part of a pair, since its time includes the boot.
Upstream's tests are run by its own ``check``, as many as possible in one call. Tests with a time
limit get one second, about what our loads take; upstream's default is 30.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby

import msgspec

from blockyard.ci.run import boot_env, run, selection
from blockyard.ci.run.selection import Selection
from blockyard.ci.selfbench import timing
from blockyard.ci.selfbench.peers import HERE
from blockyard.ci.selfbench.timing import Context, Elapsed
from blockyard.ci.selfbench.values import Measurement
from blockyard.ci.studies.blktests import Options, selected
from blockyard.images.boot import boot
from blockyard.images.console.console import Console
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest
from blockyard.modules.driver import Driver
from blockyard.tests.blktests import archive, guest
from blockyard.tests.blktests.checkout import Checkout
from blockyard.tests.harness.upstream import Upstream, UpstreamTest

PAIRS = HERE / "blktests.toml"
FIRST = "block/read"  # the first test of each guest, not measured
LIMIT = 1 / 1.5  # our time / upstream's: 1.5 times as many tests per minute
SECONDS = 1
DEADLINE_S = 600.0


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tests of ours and of upstream that test the same."""

    about: str
    driver: str
    ours: tuple[str, ...]
    upstream: str


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pair: tuple[Pair, ...]


def pairs() -> tuple[Pair, ...]:
    """The pairs in ``blktests.toml``."""
    return msgspec.toml.decode(PAIRS.read_bytes(), type=_Table).pair


def check(spec: KernelSpec, tree: str) -> tuple[Checkout, Selection]:
    """The checkout and upstream's tests to run; raises UsageError without a checkout."""
    return selected(spec, Options(tree, tuple(pair.upstream for pair in pairs()), seconds=SECONDS))


def blktests(context: Context) -> Measurement:
    """Total time of all pairs, in seconds."""
    table = pairs()
    tree, theirs = check(context.spec, context.tree)
    assert theirs.scope.upstream is not None
    packed = archive.packed(tree, context.ready.tools)
    upstream = msgspec.structs.replace(theirs.scope.upstream, archive=packed)
    elapsed = [
        (Elapsed(_ours(context, table), 0), Elapsed(_theirs(context, table, upstream), 0))
        for _ in range(context.runs)
    ]
    measured = timing.compared("blktests", elapsed, "", LIMIT)
    medians = (measured.our_median, measured.reference_median or 0.0)
    rates = [f"{len(table) * 60 / seconds:.1f}" for seconds in medians]
    against = f"upstream's check: {rates[0]} of {len(table)} pairs a minute, upstream {rates[1]}"
    return msgspec.structs.replace(measured, against=against)


def _ours(context: Context, table: Sequence[Pair]) -> float:
    """Seconds that our tests of the pairs took; raises Failure unless all passed."""
    measured = {(test, pair.driver) for pair in table for test in pair.ours}
    drivers = ",".join(dict.fromkeys(pair.driver for pair in table))
    names = sorted({test.partition("/")[2] for test, _ in measured} | {FIRST.partition("/")[2]})
    ours = selection.select(drivers, "serial", expression=" or ".join(names), start="auto")
    finished, path = run.run(context.ready, ours, 1, context.spec)
    results = {(test.id, test.driver): test for test in finished.tests}
    for key in sorted(measured):
        if key not in results or results[key].outcome != "pass":
            raise Failure(f"{key[0]} of {key[1]} did not pass, so it cannot be measured ({path})")
    return round(sum(results[key].seconds for key in measured), 3)


def _theirs(context: Context, table: Sequence[Pair], upstream: Upstream) -> float:
    """Seconds that upstream's tests took in their guests; raises Failure unless all passed."""
    tests = {test.name: test for test in upstream.tests}
    seconds = 0.0
    for name, of_driver in groupby(table, key=lambda pair: pair.driver):
        chosen = [tests[pair.upstream] for pair in of_driver]
        with boot_env.guest_directory() as folder, boot(context.ready.setup(folder)) as booted:
            kernel = context.ready.kernel
            driver = Driver(manifest.load(name).on(kernel), kernel, booted.serial)
            driver.load()
            guest.unpack(driver, archive.tar_of(upstream.archive))
            # apart, since tests that make their own disks remove all others
            for on_a_disk in (True, False):
                calls = [test for test in chosen if test.on_a_disk == on_a_disk]
                if calls:
                    seconds += _check(driver, calls, upstream)
    return seconds


def _check(driver: Driver, tests: Sequence[UpstreamTest], upstream: Upstream) -> float:
    names = " ".join(test.name for test in tests)
    with guest.given_disk(driver, tests[0]) as disk:
        guest.configure(driver.console, disk, upstream)
        script = f"cd {guest.FOLDER} && ./check -c {guest.CONFIG} {names} < /dev/null"
        elapsed = timing.elapsed(partial(_passing, driver.console, script, len(tests)))
    return elapsed.wall_s


def _passing(console: Console, script: str, count: int) -> None:
    printed = console.run(script, DEADLINE_S).output
    if printed.count("[passed]") != count:
        raise Failure(f"not all of upstream's tests passed, so they cannot be measured:\n{printed}")
