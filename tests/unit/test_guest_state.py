# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test left behind: the guest's state before and after."""

from blockyard.tests.harness.guest_state import differences, short

BEFORE = frozenset({"disk vda", "module null_blk 0", "cpus 0-1", "queue vda/queue/nr_requests 64"})


def test_nothing_changed() -> None:
    assert differences(BEFORE, BEFORE) == []


def test_what_is_new_and_what_is_gone_is_told() -> None:
    after = (BEFORE - {"cpus 0-1"}) | {"cpus 0", "disk by1"}
    assert differences(BEFORE, after) == [
        "left: the CPUs that are online 0",
        "left: a disk by1",
        "missing: the CPUs that are online 0-1",
    ]


def test_settings_of_queues_are_for_a_thorough_look() -> None:
    assert BEFORE - short(BEFORE) == {"queue vda/queue/nr_requests 64"}


def test_what_is_not_named_is_told_as_it_is() -> None:
    assert differences(frozenset(), frozenset({"oddity 1"})) == ["left: oddity 1"]
