# SPDX-License-Identifier: GPL-2.0-or-later
"""All that can go wrong with a guest: each fault has the outcome that docs/reliability.md lists.

Each fault ends within its time limit, with that outcome, and leaves neither processes nor files.
`./inv check --faults` runs only these tests and writes the table to docs/reliability.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from blockyard.ci.run import boot_env
from blockyard.images.machine.scratch import SCRATCH
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.integration import faults
from blockyard.tests.integration.conftest import KERNEL, FaultTable
from blockyard.tests.integration.faults.fault import Fault, Guests
from blockyard.tests.integration.processes import descendants, left

TROUBLE = PROJECT / "tests" / "integration" / "trouble"


@pytest.fixture(scope="module")
def env() -> BootEnv:
    """The kernel under test, with a module that misbehaves on request."""
    return boot_env.ready(KernelSpec(KERNEL, modules=(TROUBLE,)))


@pytest.mark.parametrize("fault", faults.all_faults(), ids=lambda fault: fault.body.__name__)
def test_fault(fault: Fault, env: BootEnv, tmp_path: Path, fault_table: FaultTable) -> None:
    before = descendants(os.getpid())
    started = time.monotonic()
    fault.body(Guests(env, tmp_path))
    seconds = time.monotonic() - started
    assert left(descendants(os.getpid()) - before) == set()
    assert [path for pattern in SCRATCH for path in tmp_path.rglob(pattern)] == []
    assert seconds < fault.within_s * env.accelerator.scale
    fault_table.append((fault.title, fault.outcome))
