# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that take several values: repeated, or with commas between the values.

A path may contain commas: text that exists as a path is one value. Elsewhere, as in a URL or a
branch, ``\\,`` is a comma that does not separate values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from blockyard.kernel.host.errors import UsageError


def paths(text: str) -> tuple[Path, ...]:
    """The paths in an option; empty for an empty text.

    Raises UsageError for a text without a path, and for one that can be read as one path or as
    several, all of which exist.
    """
    values = tuple(Path(value) for value in _values(text, _exists))
    if text and not values:
        raise UsageError(f"no path in {text!r}", hint="write paths with commas between them")
    return values


def kernels(texts: Iterable[str]) -> tuple[str, ...]:
    """The kernels in the values of --kernel, in order and without duplicates; they need not exist.

    Raises UsageError for a value without a kernel.
    """
    unique: dict[str, None] = {}
    for text in texts:
        names = [value.replace("\\,", ",") for value in _values(text, _is_kernel_path)]
        if not names:
            raise UsageError(
                f"no kernel in {text!r}", hint="./inv kernel.list shows the names of kernels"
            )
        unique |= dict.fromkeys(names)
    return tuple(unique)


def escaped(kernel: str) -> str:
    """A kernel's name as a value of --kernel; inverse of `kernels` for one name."""
    return kernel.replace(",", "\\,")


def one_kernel(texts: Sequence[str], command: str) -> str | None:
    """The kernel of a command that takes one kernel; None if no value was given.

    Raises UsageError for several kernels.
    """
    names = kernels(texts)
    if len(names) > 1:
        raise UsageError(
            f"{command} takes one kernel, not {len(names)}: {', '.join(names)}",
            hint="run it once for each; write a comma that is part of a name as \\,",
        )
    return names[0] if names else None


def _values(text: str, exists: Callable[[str], bool]) -> Iterator[str]:
    """The values between commas; of pieces that could be joined, the longest path that exists."""
    pieces = re.split(r"(?<!\\),", text)
    start = 0
    while start < len(pieces):
        end = next(
            (
                end
                for end in range(len(pieces), start + 1, -1)
                if exists(",".join(pieces[start:end]))
            ),
            start + 1,
        )
        count = end - start
        whole = ",".join(pieces[start:end])
        if count > 1 and all(exists(piece.strip()) for piece in pieces[start:end]):
            raise UsageError(
                f"{whole!r} is ambiguous: one path, or {count} paths with commas between them",
                hint=f"write ./{whole.replace(',', ',./')} for the {count} paths",
            )
        if count > 1 or whole.strip():
            yield whole if exists(whole) else whole.strip()
        start = end


def _exists(text: str) -> bool:
    return bool(text) and os.path.lexists(text)


def _is_kernel_path(text: str) -> bool:
    """Whether a directory, a tarball or a repository (before ``#REF``) exists under this name."""
    path, hash_, ref = text.partition("#")
    return _exists(text) or (bool(hash_) and "," not in ref and _exists(path))
