# SPDX-License-Identifier: GPL-2.0-or-later
"""Run upstream's ``check`` in a guest, one test at a time.

The checkout is unpacked once per guest, into memory. It is unchanged unless a driver stands in for
null_blk: then null_blk's names are replaced by the driver's, and `shim.bash` is sourced at the end
of ``common/null_blk``.
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
FILE_LIMIT = "1M"  # of a result file; they all have to fit into the guest's memory
BLOCKED_S = 100.0  # some tests wait for time-outs of a driver, twice 30 s for NVMe
SETTLE_S = 120  # on top of the time limit of a test, for a guest of scale 1


class Needs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requirements of a test that it does not check itself."""

    symbols: tuple[str, ...] = ()  # of the kernel configuration, without CONFIG_
    cpus: int = 1  # of the guest
    persistent: bool = False  # its disk must keep its data
    programs: tuple[str, ...] = ()  # in the guest, or paths below the checkout


@dataclass(frozen=True)
class UpstreamRun:
    """One run of a test."""

    archive: bytes  # a tar of its result files
    results: Results
    disk: str  # name of the disk that the test got; empty for none


def stands_in(driver: Driver) -> bool:
    """Whether the tests of null_blk run on this driver instead, as its counterpart."""
    return driver.name != NULL_BLK and driver.manifest.counterpart == NULL_BLK


def needs() -> dict[str, Needs]:
    """`needs.toml`: test → its requirements."""
    return msgspec.toml.decode(NEEDS.read_bytes(), type=dict[str, Needs])


def unmet(test: UpstreamTest, driver: Driver, cpus: int) -> SkipReason | None:
    """The first requirement of `needs.toml` that is not met; None if all are."""
    required, kernel = needs().get(test.name, Needs()), driver.kernel
    for symbol in required.symbols:
        if kernel.config.get(symbol, "n") == "n":
            return without_symbol(driver, symbol)
    if required.cpus > cpus:
        text = f"the guest has {cpus} CPUs, the test needs {required.cpus}"
        return SkipReason(lacking="hardware", what=f"cpus:{required.cpus}", text=text)
    if required.persistent and "persistent" not in driver.capabilities:
        storing = [f"attribute:{name}" for name in driver.persistent_attributes()]
        missing = [capability for capability in storing if capability not in driver.capabilities]
        return missing_capability(driver, (missing or ["persistent"])[0])
    for program in required.programs:
        if not driver.has_program(f"{FOLDER}/{program}" if "/" in program else program):
            return without_program(program)
    return None


def run(driver: Driver, test: UpstreamTest, upstream: Upstream) -> UpstreamRun:
    """Run a test of an unpacked checkout.

    Raises errors of the console, such as CommandTimedOut for a test that does not end.
    """
    console = driver.console
    with given_disk(driver, test) as disk:
        configure(console, disk, upstream)
        script = call(SCRIPTS, "run_check", FOLDER, OUTPUT, CONFIG, FILE_LIMIT, test.name)
        limit_s = SETTLE_S + 3 * upstream.seconds
        result = console.run(script, limit_s, blocked_s=BLOCKED_S)
    archive = result.whole()
    return UpstreamRun(archive, results.read(test.name, archive), disk)


def unpack(driver: Driver, archive: Path) -> bool:
    """Unpack the checkout in the guest; return False if it was unpacked before."""
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
        variables = {
            "blockyard_driver": driver.name,
            "blockyard_module": module,
            "blockyard_attributes": f" {' '.join(sorted(driver.attributes))} ",
        }
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
        console.put("".join([*lines, (HERE / "shim.bash").read_text()]).encode(), SHIM)
        console.check(call(SCRIPTS, "stand_in", FOLDER, disks.path, module, SHIM))
    return True


def _show_config(driver: Driver, console: Console) -> None:
    """Upstream reads the kernel configuration; add it where there is no /proc/config.gz."""
    path = f"/boot/config-{driver.kernel.info.release}"
    if console.run("test -e /proc/config.gz").exit_code:
        console.check("mkdir -p /boot")
        console.put(driver.kernel.path / "config", path)


def configure(console: Console, disk: str, upstream: Upstream) -> None:
    """Write upstream's configuration; disk: name of the test's disk, or empty."""
    devices = f"TEST_DEVS=(/dev/{disk})\n" if disk else ""
    limits = f"OUTPUT={OUTPUT}\nTIMEOUT={upstream.seconds}\n"
    console.put((devices + limits + (HERE / "config.bash").read_text()).encode(), CONFIG)


@contextlib.contextmanager
def given_disk(driver: Driver, test: UpstreamTest) -> Iterator[str]:
    """Yield the name of the disk for a test; empty for a test that creates its own."""
    if not test.on_a_disk or "disk" not in driver.capabilities:
        yield ""
        return
    if not driver.configfs:
        disks = driver.disks()
        yield disks[0].name if disks else ""
        return
    disk = driver.create(_disk_attributes(driver, test))
    try:
        yield disk.name
    finally:
        _remove(driver, disk)


def _disk_attributes(driver: Driver, test: UpstreamTest) -> dict[str, str]:
    if test.group == "zbd" and "attribute:zoned" in driver.capabilities:
        return {"size": str(2 * DISK_MIB), "zoned": "1", "zone_size": "4"}
    attributes = {"size": str(DISK_MIB)}
    attributes |= driver.persistent_attributes() if "persistent" in driver.capabilities else {}
    return attributes | ({"discard": "1"} if "attribute:discard" in driver.capabilities else {})


def _remove(driver: Driver, disk: Disk) -> None:
    with contextlib.suppress(CommandFailed):  # the test has removed it
        driver.remove(disk)
