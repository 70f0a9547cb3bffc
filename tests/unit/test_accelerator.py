# SPDX-License-Identifier: GPL-2.0-or-later
"""Which accelerator is chosen, and when the choice is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.images.errors import BootTimeout, GuestPanicked
from blockyard.images.machine import accelerator
from blockyard.images.machine.accelerator import Accelerator, choose
from blockyard.kernel.host.errors import Failure, UsageError

QEMU = "1:10.0.2+ds-2"


class Probe:
    """A probe without a guest: only the accelerators in `working` boot."""

    def __init__(self, *working: str) -> None:
        self.working = working
        self.tried: list[str] = []

    def __call__(self, candidate: Accelerator) -> None:
        self.tried.append(candidate.name)
        if candidate.name not in self.working:
            raise BootTimeout("the guest did not come up in 15 s\nsecond line")


@pytest.fixture(autouse=True)
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of /dev/kvm, so that all hosts give the same result."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "KVM", str(device))
    return device


def test_kvm_is_chosen_if_it_runs_a_guest() -> None:
    chosen = choose("auto", QEMU, Probe("kvm", "tcg"))
    assert (chosen.name, chosen.scale) == ("kvm", 1.0)
    assert "ran a guest" in chosen.reason


def test_broken_kvm_is_replaced_by_tcg_with_the_reason() -> None:
    chosen = choose("auto", QEMU, Probe("tcg"))
    assert (chosen.name, chosen.scale) == ("tcg", 5.0)
    assert "BootTimeout: the guest did not come up in 15 s" in chosen.reason
    assert "second line" not in chosen.reason


def test_missing_kvm_is_not_probed(kvm: Path) -> None:
    kvm.unlink()
    probe = Probe("kvm", "tcg")
    chosen = choose("auto", QEMU, probe)
    assert (chosen.name, chosen.reason) == ("tcg", f"KVM does not work: no {kvm}")
    assert probe.tried == []


def test_requested_kvm_is_never_replaced(kvm: Path) -> None:
    with pytest.raises(Failure, match="KVM does not work on this machine"):
        choose("kvm", QEMU, Probe("tcg"))
    kvm.unlink()
    with pytest.raises(Failure, match=f"no {kvm}"):
        choose("kvm", QEMU, Probe("kvm", "tcg"))


def test_requested_tcg_needs_no_probe() -> None:
    probe = Probe()
    assert choose("tcg", QEMU, probe) == Accelerator("tcg", "requested", 5.0)
    assert probe.tried == []


def test_unknown_accelerator_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown accelerator 'kmv'") as caught:
        choose("kmv", QEMU, Probe())
    assert caught.value.exit_code == 2
    assert "did you mean kvm" in caught.value.hint


class TestCachedChoice:
    @pytest.mark.parametrize("working", [("kvm", "tcg"), ("tcg",)])
    def test_second_choice_does_not_probe(self, working: tuple[str, ...]) -> None:
        first = choose("auto", QEMU, Probe(*working))
        again = Probe()
        assert choose("auto", QEMU, again) == first
        assert again.tried == []

    def test_another_qemu_is_probed_again(self) -> None:
        choose("auto", QEMU, Probe("tcg"))
        assert choose("auto", "1:11.0", Probe("kvm", "tcg")).name == "kvm"

    def test_damaged_record_is_ignored(self, cache: Path) -> None:
        choose("auto", QEMU, Probe("tcg"))
        (record,) = (cache / "accelerator").iterdir()
        record.write_bytes(b"{")
        assert choose("auto", QEMU, Probe("kvm", "tcg")).name == "kvm"

    def test_nothing_is_recorded_if_the_kernel_boots_nowhere(self, cache: Path) -> None:
        def probe(candidate: Accelerator) -> None:
            raise GuestPanicked(f"panic on {candidate.name}")

        with pytest.raises(GuestPanicked, match="panic on tcg"):
            choose("auto", QEMU, probe)
        assert list((cache / "accelerator").glob("*")) == []

    def test_nothing_is_recorded_after_an_interrupted_probe(self, cache: Path) -> None:
        def probe(candidate: Accelerator) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            choose("auto", QEMU, probe)
        assert list((cache / "accelerator").glob("*")) == []
