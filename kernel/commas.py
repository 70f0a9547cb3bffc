# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that take several values: repeated, or with commas between the values.

A path may have commas itself: what exists as a path is one value. ``\\,`` is a comma that separates
nothing, for what cannot be looked up: the URL of a tarball, a branch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from blockyard.kernel.host.errors import UsageError


def paths(text: str) -> tuple[Path, ...]:
    """The paths in an option; empty for an empty text.

    Raises UsageError when a text is one path that is there, and several.
    """
    found = tuple(Path(value) for value in _values(text, _exists))
    if text and not found:
        raise UsageError(f"{text!r} names no path", hint="write paths with commas between them")
    return found


def kernels(texts: Iterable[str]) -> tuple[str, ...]:
    """The kernels in the values of --kernel, each once and in order; they need not exist.

    Raises UsageError when a value has none.
    """
    found: dict[str, None] = {}
    for text in texts:
        names = [value.replace("\\,", ",") for value in _values(text, _is_kernel_path)]
        if not names:
            raise UsageError(
                f"{text!r} names no kernel", hint="./inv kernel.list shows those that have a name"
            )
        found |= dict.fromkeys(names)
    return tuple(found)


def one_kernel(texts: Sequence[str], command: str) -> str | None:
    """The kernel of a command that takes one; None when no value was given."""
    names = kernels(texts)
    if len(names) > 1:
        raise UsageError(
            f"{command} takes one kernel, not {len(names)}: {', '.join(names)}",
            hint="run it once for each; a comma that is part of a name is written \\,",
        )
    return names[0] if names else None


def _values(text: str, exists: Callable[[str], bool]) -> Iterator[str]:
    """The values between commas; the longest one that exists counts."""
    pieces = re.split(r"(?<!\\),", text)
    at = 0
    while at < len(pieces):
        end = next(
            (end for end in range(len(pieces), at + 1, -1) if exists(",".join(pieces[at:end]))),
            at + 1,
        )
        whole = ",".join(pieces[at:end])
        if end > at + 1 and all(exists(piece.strip()) for piece in pieces[at:end]):
            raise UsageError(
                f"{whole!r} is one path, or {end - at} with commas between them: all are there",
                hint=f"write ./{whole.replace(',', ',./')} for the {end - at}",
            )
        if end > at + 1 or whole.strip():
            yield whole if exists(whole) else whole.strip()
        at = end


def _exists(text: str) -> bool:
    return bool(text) and os.path.lexists(text)


def _is_kernel_path(text: str) -> bool:
    """Whether it is a directory, a tarball, or a repository with ``#REF``."""
    path, hash_, ref = text.partition("#")
    return _exists(text) or (bool(hash_) and "," not in ref and _exists(path))
