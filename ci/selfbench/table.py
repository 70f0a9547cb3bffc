# SPDX-License-Identifier: GPL-2.0-or-later
"""A report for people, or as JSON with every single value."""

from __future__ import annotations

from blockyard.ci import output
from blockyard.ci.selfbench.values import Report
from blockyard.kernel.host.progress import note

COLUMNS = ("measured", "runs", "ours", "bare", "figure", "limit")


def show(report: Report, *, as_json: bool) -> None:
    """Prints the report: JSON, or a table."""
    if as_json:
        print(output.as_json(report))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "measured" else "right")
    for one in report.measurements:
        table.add_row(
            one.name,
            str(len(one.ours)),
            one.shown(one.our_median),
            one.shown(one.bare_median),
            one.shown_figure(one.figure),
            one.shown_figure(one.limit),
        )
    output.print_table(table)
    for one in report.measurements:
        if one.against:
            note(f"{one.name}: bare is {one.against}")
    note(f"medians; kernel {report.kernel}, {report.accelerator}")
