# SPDX-License-Identifier: GPL-2.0-or-later
"""Arithmetic and table of ./inv dev.selfbench. Nothing is timed here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from blockyard.ci import selfbench
from blockyard.ci.run import circumstances
from blockyard.ci.selfbench import fleet, peers, timing, virtme
from blockyard.ci.selfbench.table import show
from blockyard.ci.selfbench.timing import Elapsed
from blockyard.ci.selfbench.values import DECIMALS, Measurement, Report
from blockyard.kernel.config.fragments import read_fragment
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.spec import KernelSpec

BOOT = Measurement(
    name="boot",
    unit="s",
    ours=(1.3, 9.0, 1.2),
    reference=(1.0, 1.04, 7.0),
    against="QEMU",
    ratio=True,
    limit=1.25,
)
ROUND_TRIP = Measurement(
    name="round-trip-serial", unit="ms", ours=(12.04, 12.0), reference=(11.1,), limit=15.0
)
MEMORY = Measurement(name="memory", unit="MiB", ours=(151.4,))
REPORT = Report(
    host=circumstances.Host("host", "6.1.0", 2, 24064),
    kernel="7.3",
    accelerator="tcg",
    measurements=(BOOT, ROUND_TRIP, MEMORY),
)


def test_ratio_is_that_of_the_medians() -> None:
    assert BOOT.our_median == 1.3
    assert BOOT.reference_median == 1.04
    assert BOOT.figure == 1.25


def test_figure_without_a_ratio_is_our_median() -> None:
    assert ROUND_TRIP.figure == pytest.approx(12.02)
    assert MEMORY.reference_median is None
    assert MEMORY.figure == 151.4


def test_value_has_a_unit_and_ratio_has_none() -> None:
    assert BOOT.shown(BOOT.our_median) == "1.30 s"
    assert BOOT.shown_figure(BOOT.figure) == "1.25"
    assert ROUND_TRIP.shown_figure(ROUND_TRIP.limit) == "15.0 ms"
    assert MEMORY.shown_figure(MEMORY.limit) == "-"


def test_small_ratio_keeps_two_digits() -> None:
    assert BOOT.shown_figure(0.0048) == "0.0048"


def test_table_has_a_row_per_measurement(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    show(REPORT, as_json=False)
    captured = capsys.readouterr()
    rows = [" ".join(line.split()) for line in captured.out.splitlines() if line.strip(" \u2500")]
    assert rows == [
        "measured runs ours reference figure limit",
        "boot 3 1.30 s 1.04 s 1.25 1.25",
        "round-trip-serial 2 12.0 ms 11.1 ms 12.0 ms 15.0 ms",
        "memory 1 151 MiB - 151 MiB -",
    ]
    assert "boot: the reference is QEMU" in captured.err
    assert "kernel 7.3, tcg" in captured.err


def test_json_has_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    show(REPORT, as_json=True)
    assert msgspec.json.decode(capsys.readouterr().out, type=Report) == REPORT


def test_sides_alternate_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    pairs = timing.alternate(
        lambda: order.append("ours"), lambda: order.append("reference"), 2, warm_up=True
    )
    assert order == ["ours", "reference"] * 3
    assert len(pairs) == 2


def test_wall_times_are_split_by_side() -> None:
    pairs = [(Elapsed(1.0, 0.1), Elapsed(2.0, 0.2)), (Elapsed(3.0, 0.3), Elapsed(4.0, 0.4))]
    assert timing.wall_s(pairs) == ((1.0, 3.0), (2.0, 4.0))


def test_unknown_measurement_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown measurement 'bot'"):
        selfbench.measure(KernelSpec(), "auto", "boot,bot", 5)


def test_zero_runs_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--runs 0"):
        selfbench.measure(KernelSpec(), "auto", "", 0)


def test_default_measurements_exist() -> None:
    assert set(selfbench.DEFAULT_WHAT) <= set(selfbench.MEASUREMENTS)
    assert set(DECIMALS) >= {measurement.unit for measurement in REPORT.measurements}


def test_field_of_smaps_rollup_is_read(tmp_path: Path) -> None:
    file = tmp_path / "smaps_rollup"
    file.write_text("55d0-7fff ---p 00000000 00:00 0   [rollup]\nRss:  9000 kB\nPss:    8192 kB\n")
    assert fleet.kib(file, "Pss") == 8192
    with pytest.raises(Failure, match="has no Swap"):
        fleet.kib(file, "Swap")


def test_only_descendant_guests_are_found(tmp_path: Path) -> None:
    """This process starts bwrap, which starts QEMU; a QEMU of another parent does not count."""
    for pid, parent, name in [
        (10, 1, "python"),
        (11, 10, "bwrap"),
        (7, 11, "qemu-system-x86"),
        (20, 1, "qemu-system-x86"),
    ]:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "status").write_text(f"Name:\t{name}\nPid:\t{pid}\nPPid:\t{parent}\n")
    assert fleet.below(10, "qemu-system-x86", tmp_path) == [tmp_path / "7"]
    assert fleet.NAME == "qemu-system-x86"


@pytest.mark.parametrize("name", ["virtme-ng", "labgrid"])
def test_packages_of_a_peer_are_pinned_by_hash(name: str) -> None:
    text = (peers.HERE / f"{name}.lock").read_text()
    assert peers.version(name)
    pins = [line for line in text.splitlines() if "==" in line]
    assert len(pins) == text.count("--hash=sha256:")


def test_fragment_for_virtme_ng_is_valid() -> None:
    """It is passed like a user's fragment."""
    assert read_fragment(virtme.FRAGMENT)
    spec = KernelSpec(fragments=(virtme.FRAGMENT,))
    assert str(virtme.FRAGMENT) in spec.options


def test_virtme_ng_uses_the_same_accelerator() -> None:
    assert "--disable-kvm" in virtme.options("tcg")
    assert "--disable-kvm" not in virtme.options("kvm")
