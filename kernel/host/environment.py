# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes variables from the user's environment that would change what Blockyard's programs do.

PYTHON* changes Python itself (PYTHONOPTIMIZE removes assertions, PYTHONPATH adds packages),
PYTEST_* and COVERAGE_* change pytest, INVOKE_* changes invoke, and git's local variables select
another repository. `./inv` starts Python with -I, which ignores PYTHON*; for the programs that
Blockyard starts, all of them are removed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

PREFIXES = ("PYTHON", "PYTEST_", "COVERAGE_", "COV_CORE_", "INVOKE_")
# `git rev-parse --local-env-vars`: git itself removes these before it enters another repository
GIT = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
# Child Pythons search neither the current folder nor the user's site-packages.
OURS = {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
# pytest and pytest-xdist set these for the processes that they start
_OF_PYTEST = (
    "PYTEST_CURRENT_TEST",
    "PYTEST_VERSION",
    "PYTEST_XDIST_TESTRUNUID",
    "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT",
)

_ignored: list[str] = []  # removed PYTEST_* variables, until `mention_ignored` prints them


def clean(environment: MutableMapping[str, str] = os.environ) -> None:
    """Removes variables that affect Python, pytest, invoke and git; see the top of this file."""
    for name in list(environment):
        if OURS.get(name) == environment[name] or name in _OF_PYTEST:
            continue
        if name.startswith(PREFIXES) or name in GIT:
            del environment[name]
            if name.startswith("PYTEST_"):
                _ignored.append(name)
    environment.update(OURS)


@contextmanager
def cleaned() -> Iterator[None]:
    """Cleans os.environ for a block and restores it: for processes not started by `./inv`."""
    before = dict(os.environ)
    clean()
    try:
        yield
    finally:
        for name in OURS.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: text for name, text in before.items() if name not in os.environ})


def of_the_checkout() -> dict[str, str]:
    """The environment for programs that import our packages from their current folder."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}


def mention_ignored() -> None:
    """Prints, once, which of the user's PYTEST_* variables are ignored."""
    if _ignored:
        from blockyard.kernel.host.progress import note

        note(f"ignored: {', '.join(sorted(_ignored))} (options of your own pytest runs)")
        _ignored.clear()
