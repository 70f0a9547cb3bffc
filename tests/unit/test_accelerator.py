# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator is believed, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.images.errors import BootTimeout, GuestPanicked
from blockyard.images.machine import accelerator
from blockyard.images.machine.accelerator import Accelerator, choose
from blockyard.kernel.host.errors import Failure, UsageError

QEMU = "1:10.0.2+ds-2"


class Probe:
    """Boots a guest in place of a machine: some accelerators work, others do not."""

    def __init__(self, *working: str) -> None:
        self.working = working
        self.tried: list[str] = []

    def __call__(self, candidate: Accelerator) -> None:
        self.tried.append(candidate.name)
        if candidate.name not in self.working:
            raise BootTimeout("the guest did not come up in 15 s\nsecond line")


@pytest.fixture(autouse=True)
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of /dev/kvm, so that every host gives the same answers."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "KVM", str(device))
    return device


def test_kvm_that_runs_a_guest_is_taken() -> None:
    found = choose("auto", QEMU, Probe("kvm", "tcg"))
    assert (found.name, found.scale) == ("kvm", 1.0)
    assert "ran a guest" in found.reason


def test_kvm_that_does_not_is_replaced_and_the_reason_told() -> None:
    found = choose("auto", QEMU, Probe("tcg"))
    assert (found.name, found.scale) == ("tcg", 5.0)
    assert "BootTimeout: the guest did not come up in 15 s" in found.reason
    assert "second line" not in found.reason


def test_a_host_without_kvm_is_not_probed(kvm: Path) -> None:
    kvm.unlink()
    probe = Probe("kvm", "tcg")
    found = choose("auto", QEMU, probe)
    assert (found.name, found.reason) == ("tcg", f"KVM does not work: no {kvm}")
    assert probe.tried == []


def test_kvm_that_was_asked_for_is_never_replaced(kvm: Path) -> None:
    with pytest.raises(Failure, match="KVM does not work on this machine"):
        choose("kvm", QEMU, Probe("tcg"))
    kvm.unlink()
    with pytest.raises(Failure, match=f"no {kvm}"):
        choose("kvm", QEMU, Probe("kvm", "tcg"))


def test_tcg_that_was_asked_for_needs_no_probe() -> None:
    probe = Probe()
    assert choose("tcg", QEMU, probe) == Accelerator("tcg", "asked for", 5.0)
    assert probe.tried == []


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="unknown accelerator 'kmv'") as caught:
        choose("kmv", QEMU, Probe())
    assert caught.value.exit_code == 2
    assert "did you mean kvm" in caught.value.hint


class TestVerdict:
    @pytest.mark.parametrize("working", [("kvm", "tcg"), ("tcg",)])
    def test_it_is_kept(self, working: tuple[str, ...]) -> None:
        first = choose("auto", QEMU, Probe(*working))
        again = Probe()
        assert choose("auto", QEMU, again) == first
        assert again.tried == []

    def test_another_qemu_is_tried_anew(self) -> None:
        choose("auto", QEMU, Probe("tcg"))
        assert choose("auto", "1:11.0", Probe("kvm", "tcg")).name == "kvm"

    def test_a_damaged_record_is_tried_anew(self, cache: Path) -> None:
        choose("auto", QEMU, Probe("tcg"))
        (record,) = (cache / "accelerator").iterdir()
        record.write_bytes(b"{")
        assert choose("auto", QEMU, Probe("kvm", "tcg")).name == "kvm"

    def test_a_kernel_that_boots_nowhere_says_nothing_about_kvm(self, cache: Path) -> None:
        def probe(candidate: Accelerator) -> None:
            raise GuestPanicked(f"panic on {candidate.name}")

        with pytest.raises(GuestPanicked, match="panic on tcg"):
            choose("auto", QEMU, probe)
        assert list((cache / "accelerator").glob("*")) == []

    def test_an_interrupted_probe_is_no_verdict(self, cache: Path) -> None:
        def probe(candidate: Accelerator) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            choose("auto", QEMU, probe)
        assert list((cache / "accelerator").glob("*")) == []
