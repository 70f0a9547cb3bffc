# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment that our runs get: what would bend them is taken out of the user's.

PYTHON* would change Python itself (PYTHONOPTIMIZE removes assertions, PYTHONPATH brings other
packages), PYTEST_* and COVERAGE_* what pytest does, INVOKE_* what invoke does, and git's own
variables which repository a command reads. `./inv` starts Python with -I, which reads none of
them; for the programs that it starts they are removed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

PREFIXES = ("PYTHON", "PYTEST_", "COVERAGE_", "COV_CORE_", "INVOKE_")
# `git rev-parse --local-env-vars`: what git itself removes before it enters another repository
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
# Python's own start of a child: the current folder and the user's packages are not searched.
OURS = {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1"}
# pytest and pytest-xdist set these themselves, for what they run
_OF_PYTEST = (
    "PYTEST_CURRENT_TEST",
    "PYTEST_VERSION",
    "PYTEST_XDIST_TESTRUNUID",
    "PYTEST_XDIST_WORKER",
    "PYTEST_XDIST_WORKER_COUNT",
)

_ignored: list[str] = []  # options for pytest that were set, until they were mentioned


def clean(environment: MutableMapping[str, str] = os.environ) -> None:
    """Takes out what bends Python, pytest, invoke and git; see the top of this file."""
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
    """A clean environment for a block, in a process that may have been started without `./inv`."""
    before = dict(os.environ)
    clean()
    try:
        yield
    finally:
        for name in OURS.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: text for name, text in before.items() if name not in os.environ})


def of_the_checkout() -> dict[str, str]:
    """The environment of programs that are to find our packages in the folder that they run in."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}


def mention_ignored() -> None:
    """One line for the user whose options for pytest do not count; nothing the second time."""
    if _ignored:
        from blockyard.kernel.host.progress import note

        note(f"ignored: {', '.join(sorted(_ignored))} (options of your own pytest runs)")
        _ignored.clear()
