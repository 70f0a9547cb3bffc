# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses the accelerator that runs guests on this host.

``/dev/kvm`` can exist without KVM working, so KVM is tested by booting a guest, with a short
deadline. The result is cached until the host boots again or QEMU's version changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.images.errors import GuestError
from blockyard.kernel.host import store
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure, unknown
from blockyard.kernel.host.progress import note, step

KVM = "/dev/kvm"
PROBE_SCALE = 0.5  # a guest is up within 2 s under KVM, so half of the usual limit is generous
SCALES = {"kvm": 1.0, "tcg": 5.0}  # TCG runs this kernel's boot 4 to 5 times slower than KVM


@dataclass(frozen=True)
class Accelerator:
    """How QEMU executes the guest's instructions."""

    name: str  # kvm or tcg
    reason: str  # why it was chosen, for people
    scale: float  # factor for deadlines; 1 for KVM

    @property
    def devices(self) -> list[str]:
        """Paths of the host's device nodes that QEMU needs for it."""
        return [KVM] if self.name == "kvm" else []


class Verdict(msgspec.Struct, frozen=True):
    """Result of probing whether KVM can run a guest."""

    works: bool
    reason: str  # for people


def check(name: str) -> None:
    """Raises UsageError when the name is not auto, kvm or tcg."""
    if name not in (known := ("auto", *SCALES)):
        raise unknown("accelerator", name, known)


def choose(name: str, qemu_version: str, probe: Callable[[Accelerator], None]) -> Accelerator:
    """The accelerator for a name: auto, kvm or tcg.

    probe: boots a guest with an accelerator, raises GuestError when that fails. Raises Failure for
    ``kvm`` where KVM does not work; only ``auto`` falls back to TCG.
    """
    check(name)
    if name == "tcg":
        return Accelerator("tcg", "requested", SCALES["tcg"])
    verdict = _verdict(qemu_version, probe)
    if verdict.works:
        return Accelerator("kvm", verdict.reason, SCALES["kvm"])
    if name == "kvm":
        raise Failure(
            f"KVM does not work on this machine: {verdict.reason}",
            hint="use ./inv test --accel tcg: it needs no KVM and is several times slower",
        )
    return Accelerator("tcg", f"KVM does not work: {verdict.reason}", SCALES["tcg"])


def known(qemu_version: str) -> Verdict | None:
    """The verdict on KVM as far as it is known without a probe; None when a probe is needed."""
    if not Path(KVM).exists():
        return Verdict(False, f"no {KVM}")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Verdict(False, f"no permission to open {KVM} (is the user in the group kvm?)")
    try:
        return msgspec.json.decode(until_next_boot(qemu_version).read_bytes(), type=Verdict)
    except BROKEN_FILE:
        return None


def until_next_boot(*key: str) -> Path:
    """The path of a cache file for a fact that is true until the host boots again."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return store.path_of("accelerator") / store.digest(boot_id, *key)


def _verdict(qemu_version: str, probe: Callable[[Accelerator], None]) -> Verdict:
    if (verdict := known(qemu_version)) is None:
        verdict = _try_kvm(probe)
        store.keep(until_next_boot(qemu_version), msgspec.json.encode(verdict))
    return verdict


def _try_kvm(probe: Callable[[Accelerator], None]) -> Verdict:
    with step("booting a guest to test KVM"):
        try:
            probe(Accelerator("kvm", "trial", PROBE_SCALE))
            return Verdict(True, "it ran a guest")
        except GuestError as error:
            why = f"a guest did not run ({type(error).__name__}: {error.what.splitlines()[0]})"
    # If the kernel does not boot without KVM either, this raises its error: KVM is not the cause.
    with step("booting the same guest without KVM"):
        probe(Accelerator("tcg", "trial", SCALES["tcg"]))
    note(f"{KVM} exists but does not work: {why}")
    return Verdict(False, why)
