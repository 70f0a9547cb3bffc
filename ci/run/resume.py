# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv test --resume`: continues an interrupted run where its journal ends.

Earlier outcomes count only if nothing that they depend on has changed: the options, the kernel,
the modules, the guest's files, the accelerator, the tests and Blockyard's own code.
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
from blockyard.ci.run.record import UNREADABLE
from blockyard.ci.run.selection import Selection
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import redact, store, untrusted
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.kernel.spec import KernelSpec
from blockyard.modules.folder import skipped

LATEST = "latest"  # the newest run with the same options
DIGEST_LENGTH = 4  # hex digits
# Files of Blockyard that outcomes depend on.
SUITES = ("tests/harness", "tests/lib", "tests/suites", "tests/blktests")
CODE = ("ci", "images", "kernel", "modules", *SUITES)
CODE_FILES = ("tests/*.py", "tests/*.toml", "pyproject.toml", "requirements.lock")


@dataclass(frozen=True)
class Interrupted:
    """An interrupted run, which is to be resumed."""

    directory: Path
    past: Past


def options(spec: KernelSpec, selected: Selection) -> dict[str, str]:
    """The options of `./inv test`, by name, for the journal."""
    scope = selected.scope
    return {
        "kernel": _without_secrets(spec.kernel),
        "variant": spec.variant,
        "fragment": _paths(spec.fragments),
        "toolchain": spec.toolchain,
        "compiler": spec.compiler,
        "module": _paths(spec.modules),
        "series": _paths(spec.series),
        "series-version": "" if spec.series_version is None else str(spec.series_version),
        "driver": ",".join(scope.drivers),
        "console": ",".join(scope.consoles),
        "suite": ",".join([*selected.suites, *(["smoke"] if scope.smoke else [])]),
        "k": selected.expression,
        "topology": scope.topology.name,
        "start": scope.start,
        "budget": scope.budget,
        "trust-tests": "yes" if selected.trust_tests else "",
        "pytest": shlex.join(selected.arguments),
        "seed": "" if selected.seed is None else str(selected.seed),
    }


def _without_secrets(text: str) -> str:
    """A kernel's name with a digest in place of the secrets in its URL.

    The digest is too short to search for a password. If two URLs share a digest, their kernels
    still have different keys, which are compared as well.
    """
    shown = redact.text(text)
    if shown == text:
        return text
    return f"{shown} (digest {hashlib.sha256(os.fsencode(text)).hexdigest()[:DIGEST_LENGTH]})"


def _paths(paths: Iterable[Path]) -> str:
    return ",".join(str(path.absolute()) for path in paths)


def inputs(ready: BootEnv, selected: Selection) -> dict[str, str]:
    """Hashes of what outcomes depend on besides the options, by a name for people."""
    return {
        "the kernel": ready.kernel.info.key,
        "the modules from outside the tree": _entry(ready.files.modules),
        "the guest root": _entry(ready.files.root),
        "the initramfs": _entry(ready.files.initramfs),
        "the tool root with QEMU": ready.tools.path.name,
        "the accelerator": ready.accelerator.name,
        "the topology": store.digest(selected.scope.topology),
        "Blockyard": _blockyard(),
        "the folders of the modules": store.digest(list(map(_content, selected.folders))),
    }


def _content(folder: str) -> str:
    """A hash of all files in a module's folder, which its own tests may import or read.

    For a folder that cannot be read, or is too large, it is a random value.
    """
    state = hashlib.sha256()
    try:
        for entry in untrusted.regular_files(Path(folder), _no_source):
            content = entry.link or untrusted.sha256(Path(folder), entry.name)
            state.update(store.digest([entry.name, bool(entry.link), content]).encode())
    except BlockyardError:  # the run can go on, but cannot be resumed
        state.update(os.urandom(32))
    return state.hexdigest()[: store.KEY_LENGTH]


def _no_source(name: str) -> bool:
    return name == "__pycache__" or skipped(name)


def _entry(path: Path) -> str:
    """A file's path in its folder of the cache."""
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
    """A hash of names and contents of the regular files among these."""
    state = hashlib.sha256()
    for path in files:
        name = str(path.relative_to(base))
        if path.is_file() and not path.is_symlink():
            state.update(msgspec.json.encode([name, untrusted.sha256(base, name)]))
    return state.hexdigest()[: store.KEY_LENGTH]


def planned(names: Mapping[str, CaseId]) -> tuple[Planned, ...]:
    """The tests of a run, for its journal."""
    return tuple(
        Planned(
            name=str(test),
            id=test.id,
            suite=test.suite,
            driver=test.slot.driver,
            console=test.slot.console,
            topology=test.slot.topology,
            features=test.features,
        )
        for test in names.values()
    )


def find(which: str, options: Mapping[str, str]) -> Interrupted:
    """An interrupted run; which: its name in the results, its folder, or LATEST.

    Raises UsageError when there is none, when its options were different, or when it is running.
    """
    return _latest(options) if which == LATEST else _named(which, options)


def _named(which: str, options: Mapping[str, str]) -> Interrupted:
    folder = settings().results_dir / which if "/" not in which else Path(which)
    run = _interrupted(folder.resolve())
    if not run:
        raise UsageError(f"{folder} has no interrupted run")
    if journal.is_running(run.directory):
        raise journal.still_running(run.directory)
    if different := _differences(run.past.header.requested, options):
        was = "; ".join(f"--{name} was {value or 'empty'}" for name, value in different.items())
        raise UsageError(f"{folder.name} had different options: {was}", hint="use the same options")
    return run


def _latest(options: Mapping[str, str]) -> Interrupted:
    others = []
    for path in sorted(settings().results_dir.glob(f"*/{journal.FILE}"), reverse=True):
        folder, header = path.parent, journal.read_header(path)
        if not header or folder.is_symlink() or not _open(folder) or journal.is_running(folder):
            continue
        if not _differences(header.requested, options) and (run := _interrupted(folder)):
            return run
        others.append(folder.name)
    hint = "./inv test starts a new run"
    if others:
        hint = f"interrupted runs with other options: {', '.join(others[:3])}"
    raise UsageError("there is no interrupted run with these options", hint=hint)


class _End(msgspec.Struct):
    """What any schema of a record says about the run's end."""

    interrupted: bool


def _open(folder: Path) -> bool:
    """Whether a run has no record, or a record of an interrupted run."""
    try:
        data = untrusted.read(folder, "run.json")
        return msgspec.json.decode(data, type=_End).interrupted
    except (Failure, *UNREADABLE):
        return True


def _interrupted(folder: Path) -> Interrupted | None:
    path = folder / journal.FILE
    if not path.is_file() or not _open(folder):
        return None
    return Interrupted(folder, journal.read(path))


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The entries that differ: name → earlier value, empty for none."""
    names = [*before, *(name for name in now if name not in before)]
    return {name: before.get(name, "") for name in names if before.get(name) != now.get(name)}


def check(earlier: Interrupted, now: Header) -> None:
    """Raises Failure when anything that outcomes depend on has changed since the run."""
    before = earlier.past.header
    different = list(_differences(before.inputs, now.inputs))
    if not different and {test.name for test in before.tests} != {test.name for test in now.tests}:
        different = ["the tests"]
    if different:
        raise Failure(
            f"cannot resume {earlier.directory.name}: changed since then: {', '.join(different)}",
            hint="run all tests, without --resume",
        )
