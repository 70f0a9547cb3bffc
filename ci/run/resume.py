# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv test --resume`: go on with a run that was interrupted, where its journal ends.

What was found out counts only when everything that it depends on is as it was: the options, the
kernel, the modules, the guest's files, the accelerator, the tests and Blockyard's own code.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.ci.run import journal
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.journal import Header, Past, Planned
from blockyard.ci.run.record import UNREADABLE, Run
from blockyard.ci.run.selection import Selection
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import redact, store, untrusted
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.kernel.spec import KernelSpec
from blockyard.modules.folder import skipped

LATEST = "latest"  # the newest one with the same options
DIGEST_LENGTH = 4  # hex digits
# What outcomes depend on of Blockyard itself.
SUITES = ("tests/harness", "tests/lib", "tests/suites", "tests/blktests")
CODE = ("ci", "images", "kernel", "modules", *SUITES)
CODE_FILES = ("tests/*.py", "tests/*.toml", "pyproject.toml", "requirements.lock")


@dataclass(frozen=True)
class Interrupted:
    """A run that is to be taken up again."""

    directory: Path
    past: Past


def asked(choice: KernelSpec, wanted: Selection) -> dict[str, str]:
    """The options of `./inv test` as a record of them, by name."""
    scope = wanted.scope
    return {
        "kernel": _without_secrets(choice.kernel),
        "variant": choice.variant,
        "fragment": _paths(choice.fragments),
        "toolchain": choice.toolchain,
        "compiler": choice.compiler,
        "module": _paths(choice.modules),
        "series": _paths(choice.series),
        "series-version": "" if choice.series_version is None else str(choice.series_version),
        "driver": ",".join(scope.drivers),
        "console": ",".join(scope.consoles),
        "suite": ",".join([*wanted.suites, *(["smoke"] if scope.smoke else [])]),
        "k": wanted.expression,
        "topology": scope.topology.name,
        "start": scope.start,
        "budget": scope.budget,
        "trust-tests": "yes" if wanted.trust_tests else "",
        "pytest": shlex.join(wanted.arguments),
        "seed": "" if wanted.seed is None else str(wanted.seed),
    }


def _without_secrets(text: str) -> str:
    """A kernel's name without the secrets of its URL; another URL with others is another name.

    The digest is too short to find a password by it. Should two URLs share one, their kernels have
    different keys, which are compared as well.
    """
    shown = redact.text(text)
    if shown == text:
        return text
    return f"{shown} (digest {hashlib.sha256(os.fsencode(text)).hexdigest()[:DIGEST_LENGTH]})"


def _paths(paths: Iterable[Path]) -> str:
    return ",".join(str(path.absolute()) for path in paths)


def inputs(ready: BootEnv, wanted: Selection) -> dict[str, str]:
    """What the outcomes of a run depend on besides its options, for people by name."""
    return {
        "the kernel": ready.kernel.info.key,
        "the modules from outside the tree": _entry(ready.files.modules),
        "the guest root": _entry(ready.files.root),
        "the initramfs": _entry(ready.files.initramfs),
        "the tool root with QEMU": ready.tools.path.name,
        "the accelerator": ready.accelerator.name,
        "the topology": store.digest(wanted.scope.topology),
        "Blockyard": _blockyard(),
        "the folders of the modules": store.digest(list(map(_content, wanted.folders))),
    }


def _content(folder: str) -> str:
    """A hash of all that a module's own tests may be made of, import or read.

    That of a folder which cannot be read, or is too large, is another one each time.
    """
    state = hashlib.sha256()
    try:
        for entry in untrusted.regular_files(Path(folder), _no_source):
            found = entry.link or untrusted.sha256(Path(folder), entry.name)
            state.update(store.digest([entry.name, bool(entry.link), found]).encode())
    except BlockyardError:  # no reason to refuse the run, only to go on with it later
        state.update(os.urandom(32))
    return state.hexdigest()[: store.KEY_LENGTH]


def _no_source(name: str) -> bool:
    return name == "__pycache__" or skipped(name)


def _entry(path: Path) -> str:
    """A file's name in the cache, wherever that is."""
    return f"{path.parent.name}/{path.name}"


@functools.cache
def _blockyard() -> str:
    """A hash of Blockyard's own code and data."""
    return _digest(PROJECT, _code())


def _code() -> list[Path]:
    files = [path for folder in CODE for path in (PROJECT / folder).rglob("*")]
    files += [path for pattern in CODE_FILES for path in PROJECT.glob(pattern)]
    return sorted(path for path in files if "__pycache__" not in path.parts)


def _digest(base: Path, files: Iterable[Path]) -> str:
    """A hash of the regular files among those."""
    state = hashlib.sha256()
    for path in files:
        name = str(path.relative_to(base))
        if path.is_file() and not path.is_symlink():
            state.update(msgspec.json.encode([name, untrusted.sha256(base, name)]))
    return state.hexdigest()[: store.KEY_LENGTH]


def planned(names: Mapping[str, CaseId]) -> tuple[Planned, ...]:
    """The tests of a run for its journal."""
    return tuple(
        Planned(
            name=str(one),
            id=one.id,
            suite=one.suite,
            driver=one.slot.driver,
            console=one.slot.console,
            topology=one.slot.topology,
            features=one.features,
        )
        for one in names.values()
    )


def find(which: str, options: Mapping[str, str]) -> Interrupted:
    """The interrupted run that is meant: a name in the results, a folder, or LATEST.

    Raises UsageError when there is none, when its options were others, or when it goes on now.
    """
    if which != LATEST:
        folder = settings().results_dir / which if "/" not in which else Path(which)
        found = _interrupted(folder.resolve())
        if not found:
            raise UsageError(f"{folder} has no run that was interrupted")
        if journal.is_going_on(found.directory):
            raise journal.going_on(found.directory)
        if different := _differences(found.past.header.asked, options):
            told = "; ".join(f"--{name} was {was or 'empty'}" for name, was in different.items())
            raise UsageError(f"{folder.name} was another run: {told}", hint="give the same options")
        return found
    others = []
    for folder in sorted(settings().results_dir.glob(f"*/{journal.FILE}"), reverse=True):
        header = journal.read_header(folder)
        if not header or folder.parent.is_symlink() or not _open(folder.parent):
            continue
        if journal.is_going_on(folder.parent):
            continue
        if not _differences(header.asked, options) and (found := _interrupted(folder.parent)):
            return found
        others.append(folder.parent.name)
    hint = f"with other options: {', '.join(others[:3])}" if others else "./inv test begins one"
    raise UsageError("no run with these options was interrupted", hint=hint)


def _open(folder: Path) -> bool:
    """Whether a run has no record yet, or one that says that it was interrupted."""
    try:
        data = untrusted.read(folder, "run.json")
        return msgspec.json.decode(data, type=Run).interrupted
    except (Failure, *UNREADABLE):
        return True


def _interrupted(folder: Path) -> Interrupted | None:
    path = folder / journal.FILE
    if not path.is_file() or not _open(folder):
        return None
    return Interrupted(folder, journal.read(path))


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """What was otherwise: name → how it was."""
    names = [*before, *(name for name in now if name not in before)]
    return {name: before.get(name, "") for name in names if before.get(name) != now.get(name)}


def check(earlier: Interrupted, now: Header) -> None:
    """Raises Failure when outcomes of then would say nothing about now."""
    before = earlier.past.header
    different = list(_differences(before.inputs, now.inputs))
    if not different and {one.name for one in before.tests} != {one.name for one in now.tests}:
        different = ["the tests"]
    if different:
        raise Failure(
            f"cannot go on with {earlier.directory.name}: {', '.join(different)} changed since",
            hint="run all tests: without --resume",
        )
