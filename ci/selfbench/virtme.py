# SPDX-License-Identifier: GPL-2.0-or-later
"""``virtme-ng``: our ``./inv boot --run true`` against ``vng -- true``.

Both boot the same kernel, configured with the additions that virtme-ng needs (``virtme.config``),
with the same CPUs and memory. virtme-ng runs in a small Debian (``virtme_root.toml``), which is its
guest's root, too. It runs with its fastest options: virtio-fs, its init in Rust, no search for
modules.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blockyard.ci.run import boot_env
from blockyard.ci.selfbench import peers, timing
from blockyard.ci.selfbench.commands import inv
from blockyard.ci.selfbench.timing import Context
from blockyard.ci.selfbench.values import Measurement
from blockyard.images.hardware.topology import DEFAULT
from blockyard.images.machine.qemu import PACKAGE
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot, load_spec, make_root
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import BIND, Sandbox

NAME = "virtme-ng"
FRAGMENT = peers.HERE / "virtme.config"
PROGRAMS = {"vng": "virtme_ng.run", "virtme-run": "virtme.commands.run"}
LIMIT = 0.4
TIMEOUT_S = 300.0  # one boot


def virtme(context: Context) -> Measurement:
    """Wall time of both commands."""
    spec = replace(context.spec, fragments=(*context.spec.fragments, FRAGMENT))
    accel = context.ready.accelerator.name
    ready = boot_env.ready(spec, accel)
    root = _root(ready.tools)
    peer = peers.installed(NAME, root, PROGRAMS)
    log = store.directory("logs") / "selfbench-virtme-ng.log"
    log.unlink(missing_ok=True)
    sandbox = Sandbox(
        root.root,
        read_only={"peer": peer, "bzImage": ready.kernel.bzimage},
        devices=ready.accelerator.devices,
        environment=peers.environment(),
    )
    argv = sandbox.argv(["vng", *options(accel), "--", "true"])
    command = ["boot", *spec.options, "--accel", accel, "--start", "boot", "--run", "true"]
    pairs = timing.alternate(
        lambda: inv(command),
        lambda: run(argv, log=log, doing="vng", timeout_s=TIMEOUT_S),
        context.runs,
        warm_up=True,
    )
    against = f"{NAME} {peers.version(NAME)}: vng {' '.join(options(accel))} -- true"
    return timing.compared(NAME, pairs, against, LIMIT)


def _root(tools: ToolRoot) -> ToolRoot:
    """The root that virtme-ng runs in; making it takes half a minute and 300 MB."""
    spec = load_spec(peers.HERE / "virtme_root.toml")

    def make(path: Path) -> None:
        with step("making a root for virtme-ng"):
            make_root(spec, path)

    root = ToolRoot(store.get("roots", spec.key, "virtme-ng's root", make))
    ours, theirs = (qemu_root.versions[PACKAGE] for qemu_root in (tools, root))
    if ours != theirs:
        note(f"the versions of QEMU differ: ours {ours}, virtme-ng's {theirs}")
    return root


def options(accel: str) -> list[str]:
    """vng's options for its fastest start on an accelerator."""
    arguments = ["--run", f"{BIND}/bzImage", "--skip-modules"]
    arguments += ["--cpus", str(DEFAULT.cpus), "--memory", f"{DEFAULT.memory_mib}M"]
    return arguments if accel == "kvm" else [*arguments, "--disable-kvm"]
