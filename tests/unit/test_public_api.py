# SPDX-License-Identifier: GPL-2.0-or-later
"""What the public API refuses before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

import blockyard
from blockyard.kernel.spec import KernelSpec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": "7.33"}, "unknown kernel '7.33'"),
        ({"kernel": "7.3", "variant": "debgu"}, "unknown variant 'debgu'"),
        ({"kernel": KernelSpec("7.3", variant="debgu")}, "unknown variant 'debgu'"),
        ({"kernel": KernelSpec("7.3"), "variant": "kasan"}, "a KernelSpec has the variant"),
        ({"kernel": KernelSpec("7.3"), "modules": ["/x"]}, "a KernelSpec has the variant"),
    ],
)
def test_invalid_kernel_is_a_usage_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(blockyard.UsageError, match=message), blockyard.boot(**arguments):
        pass
