# SPDX-License-Identifier: GPL-2.0-or-later
"""Option ``--examples N``: inputs per property; ./inv check --hostile tries 20,000."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

DEFAULT = 60  # per property, in a plain ./inv check
LONGEST_MS = 10_000  # per input on a busy host; a regular expression that backtracks takes hours


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, default=DEFAULT, help="inputs per property")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "blockyard",
        max_examples=config.getoption("--examples", DEFAULT),
        deadline=LONGEST_MS,
        database=None,  # no files in the checkout; a failure prints its input
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    settings.load_profile("blockyard")
