# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of all commands, in the order of `./inv --help`."""

from __future__ import annotations

import difflib
from functools import cache

from invoke.collection import Collection

from blockyard.ci.cli import compare, develop, guests, house, kernels, look
from blockyard.ci.cli.command import Command

COMMANDS: tuple[Command, ...] = (
    guests.test,
    guests.boot,
    guests.build,
    guests.init,
    look.doctor,
    look.explain,
    look.series,
    kernels.list_,
    kernels.fetch,
    kernels.update,
    kernels.diff,
    compare.parity,
    compare.blktests,
    compare.survey,
    house.collect,
    house.check,
    develop.check,
    develop.mutants,
    develop.selfbench,
    develop.docs,
    develop.graph,
)
ALIASES = {"check": "dev.check"}  # README's second command


def _assembled() -> Collection:
    root = Collection()
    folders: dict[str, Collection] = {}
    for path, command in known().items():
        folder, _, name = path.rpartition(".")
        inner = folders.setdefault(folder, Collection(folder)) if folder else root
        inner.add_task(command, name=name)
    for collection in folders.values():
        root.add_collection(collection)
    return root


@cache
def known() -> dict[str, Command]:
    """Name → command, aliases included."""
    commands = {command.path: command for command in COMMANDS}
    return commands | {name: commands[path] for name, path in ALIASES.items()}


def near(word: str) -> list[str]:
    """Names of commands that resemble `word`, at most three, for "did you mean"."""
    tails = {path.rpartition(".")[2]: path for path in known()}
    tail = word.rpartition(".")[2]
    if tail in tails:
        return [tails[tail]]
    similar = difflib.get_close_matches(word, known(), n=3, cutoff=0.6)
    similar += [tails[name] for name in difflib.get_close_matches(word, tails, n=3, cutoff=0.7)]
    return list(dict.fromkeys(similar))[:3]


def with_option(flag: str) -> list[str]:
    """Names of the commands that have an option, such as ``--kernel`` or ``-k``."""
    name = flag.lstrip("-")
    return [
        path
        for path, command in known().items()
        if name in {argument.names[0] for argument in command.get_arguments()}
    ]


namespace = _assembled()
