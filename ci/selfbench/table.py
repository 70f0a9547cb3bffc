# SPDX-License-Identifier: GPL-2.0-or-later
"""A report for people, or as JSON with every single value."""

from __future__ import annotations

from blockyard.ci import output
from blockyard.ci.report import terminal
from blockyard.ci.report.table import Column, table
from blockyard.ci.selfbench.values import Report
from blockyard.kernel.host.progress import note

COLUMNS = ("measured", "runs", "ours", "reference", "figure", "limit")


def show(report: Report, *, as_json: bool) -> None:
    """Prints the report: JSON, or a table."""
    if as_json:
        print(output.as_json(report))
        return
    head = [Column(name, right=name != COLUMNS[0]) for name in COLUMNS]
    rows = [
        [
            one.name,
            str(len(one.ours)),
            one.shown(one.our_median),
            one.shown(one.reference_median),
            one.shown_figure(one.figure),
            one.shown_figure(one.limit),
        ]
        for one in report.measurements
    ]
    terminal.print_table(table(head, rows))
    for one in report.measurements:
        if one.against:
            note(f"{one.name}: the reference is {one.against}")
    note(f"medians; kernel {report.kernel}, {report.accelerator}")
