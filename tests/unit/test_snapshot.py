# SPDX-License-Identifier: GPL-2.0-or-later
"""Which host processors a snapshot can be resumed on."""

from __future__ import annotations

import pytest

from blockyard.images.machine.snapshot import _processor

CPUINFO = """\
processor	: 0
vendor_id	: GenuineIntel
model		: 167
model name	: Intel(R) Xeon(R) Processor
cpu MHz		: 2599.998
flags		: fpu vme de

processor	: 1
vendor_id	: GenuineIntel
cpu MHz		: 1200.000
"""


@pytest.mark.parametrize("change", [("2599.998", "800.001"), ("1200.000", "2600.000")])
def test_current_frequency_does_not_count(change: tuple[str, str]) -> None:
    assert _processor(CPUINFO.replace(*change)) == _processor(CPUINFO)


@pytest.mark.parametrize("change", [("Xeon", "Core"), ("167", "168"), ("fpu vme", "fpu")])
def test_other_processor_counts(change: tuple[str, str]) -> None:
    assert _processor(CPUINFO.replace(*change)) != _processor(CPUINFO)
