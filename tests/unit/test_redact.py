# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets in URLs and headers are hidden in messages."""

from __future__ import annotations

import time

import pytest

from blockyard.kernel.host import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:S3CRET@host/linux.git#main", "https://***@host/linux.git#main"),
        ("https://S3CRET@host/linux.git", "https://***@host/linux.git"),
        ("HTTPS://me:S3CRET@host:8443/x", "HTTPS://***@host:8443/x"),
        ("https://me:S3CRET@more@host/x", "https://***@host/x"),
        ("https://me:S3/CRET@host/x", "https://***@host/x"),
        (
            "https://host/x.tar?private_token=S3CRET&h=v7",
            "https://host/x.tar?private_token=***&h=v7",
        ),
        ("https://host/x.tar?S3CRET", "https://host/x.tar?***"),
        ("https://host/x?X-Amz-Signature=S3CRET#v7", "https://host/x?X-Amz-Signature=***#v7"),
        ("ssh://git:S3CRET@host/x", "ssh://git:***@host/x"),
        (
            "fatal: Authentication failed for 'https://me:S3CRET@host/x'",
            "fatal: Authentication failed for 'https://***@host/x'",
        ),
        ("> Authorization: Basic S3CRET=", "> Authorization: Basic ***"),
        ("http://a:S3CRET@h/ and ftp://b:S3CRET@i/", "http://***@h/ and ftp://***@i/"),
    ],
)
def test_secret_is_hidden(text: str, shown: str) -> None:
    assert redact.text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "7.3",
        "/path/linux#v7.2",
        "git@host:linux.git#main",
        "ssh://git@host/linux.git#main",
        "https://host/linux.git#user@branch",
        "https://host/~user@x/linux.git",
        "https://git.example.org/snapshot/linux.tar.gz?h=master",
    ],
)
def test_other_text_is_unchanged(text: str) -> None:
    assert redact.text(text) == text


def test_long_text_is_read_in_linear_time() -> None:
    started = time.monotonic()
    redact.text("a" * 400_000 + "://" + "@:/?&" * 100_000)
    redact.text("authorization:" * 50_000)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://me:a%40b@host:1/x?y#z", ("https://host:1/x?y#z", "me", "a@b")),
        ("https://TOKEN@host/x", ("https://host/x", "TOKEN", "")),
        ("https://host/x", ("https://host/x", "", "")),
    ],
)
def test_split_separates_the_user(url: str, parts: tuple[str, str, str]) -> None:
    split = redact.split(url)
    assert (split.url, split.user, split.password) == parts
