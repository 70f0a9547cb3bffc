# SPDX-License-Identifier: GPL-2.0-or-later
"""The examples in docs/api.md work as written."""

from __future__ import annotations

import re

import pytest

from blockyard.api import Guest
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.settings import PROJECT

PAGE = PROJECT / "docs" / "api.md"
PART = re.compile(r"(?P<title>[^\n]+)\n.*?```python\n(?P<code>.*?)```", re.DOTALL)
PARTS = [PART.match(part) for part in PAGE.read_text().split("\n## ")[1:]]
EXAMPLES = {part["title"]: part["code"] for part in PARTS if part and "guest" in part["code"]}


def test_page_has_four_examples() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("title", [title for title in EXAMPLES if "boot(" in EXAMPLES[title]])
def test_example_that_boots_a_guest_works(title: str) -> None:
    exec(compile(EXAMPLES[title], f"{PAGE}: {title}", "exec"), {})


@pytest.mark.parametrize("title", [title for title in EXAMPLES if "boot(" not in EXAMPLES[title]])
def test_example_in_a_guest_works(title: str, ready: BootEnv, shared_guest: Machine) -> None:
    guest = Guest(shared_guest, ready.kernel)
    code = f"import blockyard\n{EXAMPLES[title]}"
    exec(compile(code, f"{PAGE}: {title}", "exec"), {"guest": guest})
