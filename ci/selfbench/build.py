# SPDX-License-Identifier: GPL-2.0-or-later
"""``build``: a whole kernel, built by us and by bare make.

Ours configures, makes and collects, with an empty ccache; the reference is make alone, without
ccache, on a ready ``.config``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from blockyard.ci.selfbench import timing
from blockyard.ci.selfbench.timing import Context
from blockyard.ci.selfbench.values import Measurement
from blockyard.kernel import arch
from blockyard.kernel.build import build as builder
from blockyard.kernel.build.ccache import Objects
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.host import store
from blockyard.modules import plan

LIMIT = 1.03


def build(context: Context) -> Measurement:
    """Wall time of our build against make."""
    kernel = plan.build_spec(context.spec, context.ready.tools)
    # a separate output tree: others may build modules in the kernel's, or measure
    job = replace(kernel, tree=replace(kernel.tree, build_id=f"selfbench {os.getpid()}"))
    try:
        pairs = timing.alternate(lambda: _ours(job), lambda: _bare(job), context.runs)
    finally:
        store.remove(job.out)
    return timing.compared("build", pairs, "make bzImage modules", LIMIT)


def _ours(job: BuildSpec) -> None:
    """A full build, from an empty output tree and ccache to a cache entry."""
    store.remove(job.out)
    empty = replace(job, objects=Objects(f"selfbench-{job.key}") if job.objects else None)
    path = Path(tempfile.mkdtemp(prefix="kernel-", dir=store.directory("selfbench")))
    try:
        builder.make_kernel(empty, path)
    finally:
        store.remove(store.directory("ccache") / f"selfbench-{job.key}")
        store.remove(path)


def _bare(job: BuildSpec) -> None:
    """make with the same arguments, on the ``.config`` of our build."""
    config = (job.out / ".config").read_bytes()
    store.remove(job.out)
    job.out.mkdir()
    (job.out / ".config").write_bytes(config)
    job.make(arch.target().image.target, "modules", doing="the bare make failed")
