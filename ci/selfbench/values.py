# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, as values: every single one is kept, medians are what is compared."""

from __future__ import annotations

import statistics

import msgspec

from blockyard.ci.run import circumstances

# unit → decimals in the table
DECIMALS = {"s": 2, "ms": 1, "MiB": 0, "MiB/s": 2, "s/MiB": 4, "guests": 0}
SMALL_RATIO = 0.1  # below it two decimals say too little


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing measured, and what it is compared with."""

    name: str
    unit: str  # of all values, of DECIMALS
    ours: tuple[float, ...]
    reference: tuple[float, ...] = ()  # the bare tool's, or the peer's
    against: str = ""  # what the other side is, where a word does not say it
    ratio: bool = False  # the figure is ours / reference; else it is ours
    limit: float | None = None  # of the figure

    @property
    def our_median(self) -> float:
        """Median of ours, in `unit`."""
        return statistics.median(self.ours)

    @property
    def reference_median(self) -> float | None:
        """Median of the other side, in `unit`; None when there is none."""
        return statistics.median(self.reference) if self.reference else None

    @property
    def figure(self) -> float:
        """What the limit is for: the ratio of the medians, or our median."""
        if self.ratio and self.reference_median:
            return self.our_median / self.reference_median
        return self.our_median

    def shown(self, value: float | None) -> str:
        """A value in words, with its unit."""
        return "-" if value is None else f"{value:.{DECIMALS[self.unit]}f} {self.unit}"

    def shown_figure(self, value: float | None) -> str:
        """The figure or its limit in words; a ratio has no unit."""
        if not self.ratio or value is None:
            return self.shown(value)
        return f"{value:.2f}" if value >= SMALL_RATIO else f"{value:.4f}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements of one run."""

    host: circumstances.Host
    kernel: str
    accelerator: str
    measurements: tuple[Measurement, ...]
