# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs that resemble real ones: real files with parts cut, doubled or replaced by odd words.

Random bytes never get past a reader's first line, so each input is a real file with a few changes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

# Typical troublemakers: encodings, escapes, numbers without bounds, nesting, control bytes.
ODD = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\x1b]0;x\x07",
    b"\xe2\x80\xae",
    b"::error::x",
    b"##[error]x",
    b"9" * 400,
    b"-1",
    b"1e999",
    b"nan",
    b"0x",
    b"=",
    b'"',
    b"'''",
    b"\\",
    b"[" * 300,
    b"{a=" * 100,
    b"../../etc/shadow",
    b"/dev/zero",
    b"$(id)",
    b"%s%n",
    b"a" * 5000,
    b" " * 5000,
    b"\n" * 500,
    b"From a  " * 200,
    b"=?utf-8?b?" * 50,
)


@st.composite
def changed(draw: st.DrawFn, samples: Sequence[bytes], extra: Sequence[bytes] = ()) -> bytes:
    """A sample with up to five changes: a piece is doubled or replaced, or an odd word inserted."""
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 3, 20, 200))))
        piece = draw(
            st.one_of(
                st.sampled_from((*ODD, *extra)),
                st.binary(max_size=8),
                st.just(data[start:end] * 2),
                st.sampled_from(samples).map(operator.itemgetter(slice(end - start))),
            )
        )
        data = data[:start] + piece + data[end:]
    return data


def contents(folder: Path, pattern: str) -> tuple[bytes, ...]:
    """The contents of all files that match a pattern, as samples."""
    return tuple(path.read_bytes() for path in sorted(folder.glob(pattern)))
