# SPDX-License-Identifier: GPL-2.0-or-later
"""The tar of a checkout for guests: upstream's scripts and its compiled helper programs.

The programs are compiled in the tool root's sandbox, in a copy, without network: the checkout is
the user's, so it is not changed and nothing of it runs on the host. Guests have the same Debian
release as the tool root, so the programs run there. A program that does not compile is omitted;
upstream skips its tests and says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.limits import MODULE_S, build_limits
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.untrusted import open_regular
from blockyard.tests.blktests import tree
from blockyard.tests.blktests.checkout import FOLDERS, Checkout

RECIPE = 3  # raise it when the same checkout gives a different archive
KIND = "blktests"  # of the cache's entry
TAR = "blktests.tar"
PACKED = ("check", *FOLDERS)  # the parts of a checkout that go into the archive


def digest(checkout: Checkout) -> str:
    """A hash of the packed files of a checkout; raises UsageError for one that is too large."""
    return store.digest("blktests", RECIPE, list(_content(checkout.folder)))


def packed(checkout: Checkout, tools: ToolRoot) -> str:
    """The key of the tar in the cache; builds it if needed, which takes a few seconds."""
    key = store.digest(digest(checkout), tools.path.name)

    def make(path: Path) -> None:
        copy = path / "blktests"
        copy.mkdir()
        tree.copy(checkout.folder, PACKED, copy)
        _compile(copy, tools, store.directory("logs") / f"blktests-{key}.log")
        with tarfile.open(path / TAR, "w") as tar:
            tar.add(copy, ".", filter=_plain)
        store.remove(copy)

    store.get(KIND, key, "upstream blktests", make)
    return key


def tar_of(key: str) -> Path:
    """The path of the tar with a key in this machine's cache."""
    return store.path_of(KIND) / key / TAR


def _content(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, kind and SHA-256 of each packed file; for a link its target."""
    for entry in tree.entries(folder, PACKED):
        if entry.link:
            yield entry.name, "link", entry.link
        else:
            with open_regular(folder, entry.name) as file:
                content = hashlib.sha256(file.read(tree.FILE_BYTES)).hexdigest()
            yield entry.name, "program" if entry.executable else "file", content


def _compile(copy: Path, tools: ToolRoot, log: Path) -> None:
    log.unlink(missing_ok=True)
    limits = build_limits().within(MODULE_S)
    sandbox = Sandbox(tools.root, writable={"blktests": copy}, limits=limits, supervised=True)
    sources = copy / "src"
    for program in _programs(sources):  # existing ones were built for the user's system
        program.unlink(missing_ok=True)
    argv = ["make", "-C", f"{BIND}/blktests/src", "--keep-going"]
    argv += [f"-j{os.cpu_count() or 1}", "CC=gcc", "CXX=clang++"]  # the tool root has no g++
    doing = "compiling the helper programs of blktests"
    with step(doing, log=log), contextlib.suppress(Failure):
        run(sandbox.argv(argv), log=log, doing=doing, limits=limits, outputs=[copy])
    if names := ", ".join(not_built(sources)):
        note(f"blktests: {names} did not compile, tests that need them are skipped (log: {log})")


def not_built(folder: Path) -> list[str]:
    """Names of the programs whose sources are in a folder but which do not exist."""
    return sorted(path.name for path in _programs(folder) if not path.is_file())


def _programs(folder: Path) -> list[Path]:
    sources = [path for kind in ("c", "cpp") for path in folder.rglob(f"*.{kind}")]
    return [path.with_suffix("") for path in sources]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The member without owner and time; None for special files and files that are too large."""
    if not (member.isreg() or member.isdir() or member.issym()) or member.size > tree.FILE_BYTES:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member
