# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of measurements: all are kept, and medians are compared."""

from __future__ import annotations

import statistics

import msgspec

from blockyard.ci.run import circumstances

# unit → decimals in the table
DECIMALS = {"s": 2, "ms": 1, "MiB": 0, "MiB/s": 2, "s/MiB": 4, "guests": 0}
SMALL_RATIO = 0.1  # smaller ratios are shown with four decimals


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a measurement, those of its reference, and a limit."""

    name: str
    unit: str  # of all values: a key of DECIMALS
    ours: tuple[float, ...]
    reference: tuple[float, ...] = ()  # the bare tool's, or the peer's
    against: str = ""  # what the reference is, for the notes below the table
    ratio: bool = False  # whether the figure is ours / reference, not ours
    limit: float | None = None  # of the figure

    @property
    def our_median(self) -> float:
        """Median of our values, in `unit`."""
        return statistics.median(self.ours)

    @property
    def reference_median(self) -> float | None:
        """Median of the reference's values, in `unit`; None without a reference."""
        return statistics.median(self.reference) if self.reference else None

    @property
    def figure(self) -> float:
        """The value to compare with the limit: the ratio of medians, or our median."""
        if self.ratio and self.reference_median:
            return self.our_median / self.reference_median
        return self.our_median

    def shown(self, value: float | None) -> str:
        """A value as text with its unit; "-" for None."""
        return "-" if value is None else f"{value:.{DECIMALS[self.unit]}f} {self.unit}"

    def shown_figure(self, value: float | None) -> str:
        """The figure or its limit as text; a ratio has no unit."""
        if not self.ratio or value is None:
            return self.shown(value)
        return f"{value:.2f}" if value >= SMALL_RATIO else f"{value:.4f}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements of one run."""

    host: circumstances.Host
    kernel: str
    accelerator: str
    measurements: tuple[Measurement, ...]
