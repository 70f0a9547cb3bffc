# SPDX-License-Identifier: GPL-2.0-or-later
"""Versions of Linux, and ranges of them such as ``>=6.12,<7.3``."""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from blockyard.kernel.host.errors import UsageError


def release(version: str) -> str:
    """Major and minor number: ``7.3`` for ``7.3.4``, ``7.3.0-rc7`` and ``7.3.4+deb13-amd64``."""
    match = re.match(r"\d+\.\d+", version)
    return match[0] if match else "0"


def within(version: str, kernels: str) -> bool:
    """Whether a kernel's version is in a range; only major and minor number count.

    A release candidate has the interfaces of its release, and a point release does not change them.
    """
    return SpecifierSet(kernels).contains(release(version))


def check_range(kernels: str, where: str) -> None:
    """Raise UsageError for an invalid range; `where` is the file or field that has it."""
    try:
        SpecifierSet(kernels)
    except InvalidSpecifier:
        raise UsageError(
            f"{where}: invalid range of kernels {kernels!r}", hint="write it as '>=6.12,<7.3'"
        ) from None


def at_least(version: str, minimum: str) -> bool:
    """Whether a tool's version, such as ``1.85.1`` or Debian's ``1:19.0-63``, reaches a minimum."""
    return _numbers(version) >= _numbers(minimum)


def _numbers(version: str) -> list[int]:
    upstream = version.rpartition(":")[2]  # without the epoch
    numbers = [int(number) for number in re.findall(r"\d+", upstream)]
    while numbers and not numbers[-1]:  # 1.85.0 equals 1.85
        numbers.pop()
    return numbers
