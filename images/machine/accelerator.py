# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator runs guests here: believed only after it ran one.

``/dev/kvm`` can be there and be of no use, so KVM is tried with a real guest and a short
deadline. The verdict is kept for as long as it can hold: this boot of the host, this QEMU.
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
PROBE_SCALE = 0.5  # a guest that KVM runs is up within 2 s; half of the usual limit is generous
SCALES = {"kvm": 1.0, "tcg": 5.0}  # TCG runs this kernel's boot 4 to 5 times slower than KVM


@dataclass(frozen=True)
class Accelerator:
    """What runs the guest's instructions, and what is known of it."""

    name: str  # kvm or tcg
    reason: str  # why it was chosen, for people
    scale: float  # how much longer than KVM's a deadline has to be

    @property
    def devices(self) -> list[str]:
        """The host's device nodes that QEMU needs for it."""
        return [KVM] if self.name == "kvm" else []


class Verdict(msgspec.Struct, frozen=True):
    """What a probe found."""

    works: bool
    reason: str


def check(wanted: str) -> None:
    """Raises UsageError for a name that is no accelerator's."""
    if wanted not in (known := ("auto", *SCALES)):
        raise unknown("accelerator", wanted, known)


def choose(wanted: str, qemu_version: str, probe: Callable[[Accelerator], None]) -> Accelerator:
    """The accelerator for `wanted`: auto, kvm or tcg.

    probe boots a guest with the accelerator it is given and raises GuestError when that fails.
    Raises Failure for ``kvm`` where KVM does not work, and never falls back then.
    """
    check(wanted)
    if wanted == "tcg":
        return Accelerator("tcg", "asked for", SCALES["tcg"])
    verdict = _verdict(qemu_version, probe)
    if verdict.works:
        return Accelerator("kvm", verdict.reason, SCALES["kvm"])
    if wanted == "kvm":
        raise Failure(
            f"KVM does not work on this machine: {verdict.reason}",
            hint="./inv test --accel tcg runs without it, several times slower",
        )
    return Accelerator("tcg", f"KVM does not work: {verdict.reason}", SCALES["tcg"])


def known(qemu_version: str) -> Verdict | None:
    """What is known of KVM without trying it; None when only a trial would tell."""
    if not Path(KVM).exists():
        return Verdict(False, f"no {KVM}")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Verdict(False, f"no right to open {KVM} (is the user in the group kvm?)")
    try:
        return msgspec.json.decode(until_next_boot(qemu_version).read_bytes(), type=Verdict)
    except BROKEN_FILE:
        return None


def until_next_boot(*of: str) -> Path:
    """A file for what holds until the host boots again."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return store.place("accelerator") / store.digest(boot_id, *of)


def _verdict(qemu_version: str, probe: Callable[[Accelerator], None]) -> Verdict:
    if (verdict := known(qemu_version)) is None:
        verdict = _try_kvm(probe)
        store.keep(until_next_boot(qemu_version), msgspec.json.encode(verdict))
    return verdict


def _try_kvm(probe: Callable[[Accelerator], None]) -> Verdict:
    with step("trying KVM with a guest"):
        try:
            probe(Accelerator("kvm", "trial", PROBE_SCALE))
            return Verdict(True, "it ran a guest")
        except GuestError as error:
            why = f"a guest did not run ({type(error).__name__}: {error.what.splitlines()[0]})"
    # A kernel that does not boot at all says nothing about KVM: raises what is wrong with it.
    with step("checking the same guest without KVM"):
        probe(Accelerator("tcg", "trial", SCALES["tcg"]))
    note(f"{KVM} is there and does not work: {why}")
    return Verdict(False, why)
