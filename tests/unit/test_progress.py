# SPDX-License-Identifier: GPL-2.0-or-later
"""Text from a guest is shown without effect on terminals and CI runners; notes to stderr."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
import unicodedata

import pytest

from blockyard.kernel.host.progress import note, printable, printable_json
from blockyard.kernel.host.settings import PROJECT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext € 1:2::3", "plain\n\ttext € 1:2::3"),
        ("Größe 日本語 naïve 🙂 x##y [z]", "Größe 日本語 naïve 🙂 x##y [z]"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("over\rwritten\x9b31m\x7f\x00", "over\\x0dwritten\\x9b31m\\x7f\\x00"),
        ("one\n    ::error::from the guest", "one\n    \\x3a:error::from the guest"),
        ("::set-output name=a::b", "\\x3a:set-output name=a::b"),
        ("\u00a0\u3000::add-mask::x", "\u00a0\u3000\\x3a:add-mask::x"),
        ("log ##[error]from the guest", "log \\x23#[error]from the guest"),
        ("####[add-mask]x", "##\\x23#[add-mask]x"),
        ("##vso[task.setvariable]x", "\\x23#vso[task.setvariable]x"),
        ("a\u202eb\u2066c\u200fd\u061ce", "a\\u202eb\\u2066c\\u200fd\\u061ce"),
        ("a\u200bb\u2060c\ufeffd\u00ade", "a\\u200bb\\u2060c\\ufeffd\\xade"),
        ("a\u2028::b\u0085c", "a\\u2028::b\\x85c"),
        ("hidden \U000e0041\udc80", "hidden \\U000e0041\\udc80"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_every_control_and_bidi_character_is_escaped() -> None:
    allowed = "\n\t"
    for letter in map(chr, range(sys.maxunicode + 1)):
        hidden = unicodedata.category(letter) in ("Cc", "Zl", "Zp", "Cs")
        hidden |= unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF")
        hidden |= unicodedata.bidirectional(letter) in ("LRI", "RLI", "FSI", "PDI")
        if hidden and letter not in allowed:
            assert letter not in printable(letter), hex(ord(letter))


@pytest.mark.parametrize("text", [" " * 400_000, "#" * 400_000, "##a" * 130_000, "\n" * 400_000])
def test_long_text_is_read_in_linear_time(text: str) -> None:
    started = time.monotonic()
    assert printable(text) == text
    assert time.monotonic() - started < 5


def test_json_keeps_its_value() -> None:
    value = {"a": "\x7f\x9b \u202e ##[error] \U000e0041 ::x é", "b": ["##vso[x]"]}
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert text == printable(text)
    assert "é" in text


class Broken(io.StringIO):
    """A stream whose writes fail."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str, /) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF])
def test_note_that_cannot_be_written_is_ignored(number: int) -> None:
    note("text", Broken(number))


def test_note_to_a_closed_stream_is_ignored() -> None:
    stream = io.StringIO()
    stream.close()
    note("text", stream)


def test_stderr_is_silenced_when_its_pipe_breaks() -> None:
    """Also for child processes."""
    script = (
        "import os, subprocess, sys; from blockyard.kernel.host.progress import note\n"
        "read, write = os.pipe(); os.dup2(write, 2); os.close(read); os.close(write)\n"
        "note('one'); note('two'); print('still here')\n"
        "sys.exit(subprocess.run(['sh', '-c', 'echo child >&2']).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stdout) == (0, "still here\n")
