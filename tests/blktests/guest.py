# SPDX-License-Identifier: GPL-2.0-or-later
"""Running upstream's ``check`` in a guest, one test at a time.

The checkout is unpacked once per guest, into memory, and is upstream's own but for one case: where
a driver stands in for null_blk, the copy in the guest has null_blk's names replaced by the
driver's, and `shim.bash` at the end of its ``common/null_blk``.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.images.console.console import Console
from blockyard.images.console.script import call
from blockyard.images.errors import CommandFailed
from blockyard.kernel.host.errors import Failure
from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.modules.manifest import Configfs
from blockyard.tests.blktests import results
from blockyard.tests.blktests.results import Results
from blockyard.tests.harness.outcomes import SkipReason
from blockyard.tests.harness.requirements import missing_capability, without_program, without_symbol
from blockyard.tests.harness.upstream import NULL_BLK, Upstream, UpstreamTest

HERE = Path(__file__).parent
NEEDS = HERE / "needs.toml"
SCRIPTS = HERE / "guest.bash"
FOLDER = "/blktests"  # in the guest
OUTPUT = f"{FOLDER}/results"
CONFIG = f"{FOLDER}/config"
SHIM = "/run/blktests-shim"
DISK_MIB = 512
FILE_LIMIT = "1M"  # of a result; a guest's memory has to hold them all
BLOCKED_S = 100.0  # some wait for time-outs of drivers, twice 30 s for NVMe
SETTLE_S = 120  # besides the tests' own time limit, for a guest of scale 1


class Needs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a test needs and does not look for."""

    symbols: tuple[str, ...] = ()  # of the kernel's configuration, without CONFIG_
    cpus: int = 1  # of the guest
    persistent: bool = False  # the disk that it is given keeps its data
    programs: tuple[str, ...] = ()  # of the guest, or below the checkout


@dataclass(frozen=True)
class Ran:
    """One test that was run."""

    archive: bytes  # a tar of its results
    results: Results
    disk: str  # that it was given; empty for none


def stands_in(driver: Driver) -> bool:
    """Whether the driver is to be taken for null_blk."""
    return driver.name != NULL_BLK and driver.manifest.counterpart == NULL_BLK


def needs() -> dict[str, Needs]:
    """Those of `needs.toml`: name of a test → what it needs."""
    return msgspec.toml.decode(NEEDS.read_bytes(), type=dict[str, Needs])


def unmet(test: UpstreamTest, driver: Driver, cpus: int) -> SkipReason | None:
    """What the test needs without looking for it and does not have; None when it has all."""
    of_test, kernel = needs().get(test.name, Needs()), driver.kernel
    for symbol in of_test.symbols:
        if kernel.config.get(symbol, "n") == "n":
            return without_symbol(driver, symbol)
    if of_test.cpus > cpus:
        text = f"the guest has {cpus} CPUs, the test needs {of_test.cpus}"
        return SkipReason(lacking="hardware", what=f"cpus:{of_test.cpus}", text=text)
    if of_test.persistent and "persistent" not in driver.capabilities:
        missing = [f"attribute:{name}" for name in driver.store_attributes()]
        lacking = [one for one in missing if one not in driver.capabilities]
        return missing_capability(driver, (lacking or ["persistent"])[0])
    for program in of_test.programs:
        if not driver.has_program(f"{FOLDER}/{program}" if "/" in program else program):
            return without_program(program)
    return None


def attributes(driver: Driver) -> list[str]:
    """The attributes that its configfs disks have."""
    names = (one.partition(":") for one in sorted(driver.capabilities))
    return [name for kind, _, name in names if kind == "attribute"]


def run(driver: Driver, test: UpstreamTest, upstream: Upstream) -> Ran:
    """Runs a test where a checkout is unpacked.

    Raises what a console raises, CommandTimedOut for a test without an end.
    """
    console = driver.console
    with given_disk(driver, test) as disk:
        configure(console, disk, upstream)
        script = call(SCRIPTS, "run_check", FOLDER, OUTPUT, CONFIG, FILE_LIMIT, test.name)
        limit_s = SETTLE_S + 3 * upstream.seconds
        done = console.run(script, limit_s, blocked_s=BLOCKED_S)
    archive = done.whole()
    return Ran(archive, results.read(test.name, archive), disk)


def unpacked(driver: Driver, archive: Path) -> bool:
    """Brings the checkout into the guest, unless it is there; whether that was to be done."""
    console = driver.console
    if not console.run(f"test -x {FOLDER}/check").exit_code:
        return False
    script = f"mkdir -p {FOLDER} && tar -C {FOLDER} -xf -"
    result = console.run(script, timeout_s=60, stdin=archive.read_bytes())
    if result.exit_code:
        raise Failure(f"the guest cannot unpack blktests: {result.output.strip()}")
    _show_config(driver, console)
    console.run(call(SCRIPTS, "mount_all"))
    disks = driver.manifest.disks
    if stands_in(driver) and isinstance(disks, Configfs):
        module = driver.manifest.modules[-1]
        given = {
            "blockyard_driver": driver.name,
            "blockyard_module": module,
            "blockyard_attributes": f" {' '.join(attributes(driver))} ",
        }
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in given.items()]
        console.put("".join([*lines, (HERE / "shim.bash").read_text()]).encode(), SHIM)
        console.check(call(SCRIPTS, "stand_in", FOLDER, disks.path, module, SHIM))
    return True


def _show_config(driver: Driver, console: Console) -> None:
    """Upstream looks for the kernel's configuration; not every kernel shows it."""
    path = f"/boot/config-{driver.kernel.info.release}"
    if console.run("test -e /proc/config.gz").exit_code:
        console.check("mkdir -p /boot")
        console.put(driver.kernel.path / "config", path)


def configure(console: Console, disk: str, upstream: Upstream) -> None:
    """Writes upstream's configuration; disk: that of the tests which take one, or empty."""
    devices = f"TEST_DEVS=(/dev/{disk})\n" if disk else ""
    limits = f"OUTPUT={OUTPUT}\nTIMEOUT={upstream.seconds}\n"
    console.put((devices + limits + (HERE / "config.bash").read_text()).encode(), CONFIG)


@contextlib.contextmanager
def given_disk(driver: Driver, test: UpstreamTest) -> Iterator[str]:
    """The name of the disk that a test is given; empty for one that makes its own."""
    if not test.on_a_disk or "disk" not in driver.capabilities:
        yield ""
        return
    if not driver.configfs:
        there = driver.disks()
        yield there[0].name if there else ""
        return
    made = driver.create(_disk_attributes(driver, test))
    try:
        yield made.name
    finally:
        _remove(driver, made)


def _disk_attributes(driver: Driver, test: UpstreamTest) -> dict[str, str]:
    if test.group == "zbd" and "attribute:zoned" in driver.capabilities:
        return {"size": str(2 * DISK_MIB), "zoned": "1", "zone_size": "4"}
    found = {"size": str(DISK_MIB)}
    found |= driver.store_attributes() if "persistent" in driver.capabilities else {}
    return found | ({"discard": "1"} if "attribute:discard" in driver.capabilities else {})


def _remove(driver: Driver, disk: Disk) -> None:
    with contextlib.suppress(CommandFailed):  # the test has done it
        driver.remove(disk)
