# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints a report as a table of medians, or as JSON with every value."""

from __future__ import annotations

from blockyard.ci import output
from blockyard.ci.report import terminal
from blockyard.ci.report.table import Column, table
from blockyard.ci.selfbench.values import Report
from blockyard.kernel.host.progress import note

COLUMNS = ("measured", "runs", "ours", "reference", "figure", "limit")


def show(report: Report, *, as_json: bool) -> None:
    """Prints the report as JSON, or as a table."""
    if as_json:
        print(output.as_json(report))
        return
    head = [Column(name, right=name != COLUMNS[0]) for name in COLUMNS]
    rows = [
        [
            measurement.name,
            str(len(measurement.ours)),
            measurement.shown(measurement.our_median),
            measurement.shown(measurement.reference_median),
            measurement.shown_figure(measurement.figure),
            measurement.shown_figure(measurement.limit),
        ]
        for measurement in report.measurements
    ]
    terminal.print_table(table(head, rows))
    for measurement in report.measurements:
        if measurement.against:
            note(f"{measurement.name}: the reference is {measurement.against}")
    note(f"medians; kernel {report.kernel}, {report.accelerator}")
