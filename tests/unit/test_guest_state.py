# SPDX-License-Identifier: GPL-2.0-or-later
"""State that a test leaves behind, from the guest's state before and after it."""

from blockyard.tests.harness.guest_state import differences, short

BEFORE = frozenset({"disk vda", "module null_blk 0", "cpus 0-1", "queue vda/queue/nr_requests 64"})


def test_unchanged_state() -> None:
    assert differences(BEFORE, BEFORE) == []


def test_new_and_missing_state_is_listed() -> None:
    after = (BEFORE - {"cpus 0-1"}) | {"cpus 0", "disk by1"}
    assert differences(BEFORE, after) == [
        "left: the CPUs that are online 0",
        "left: a disk by1",
        "missing: the CPUs that are online 0-1",
    ]


def test_short_state_omits_queue_settings() -> None:
    assert BEFORE - short(BEFORE) == {"queue vda/queue/nr_requests 64"}


def test_unknown_kind_of_state_is_listed_as_it_is() -> None:
    assert differences(frozenset(), frozenset({"oddity 1"})) == ["left: oddity 1"]
