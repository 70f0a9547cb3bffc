# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest gets of a checkout: a tar of its scripts and of the helper programs.

The programs are compiled in the tool root, in a copy, without network: a checkout is the user's,
and nothing of it runs on the host or is written to. The guest's Debian is that of the tool root, so
they run there. One that does not compile is left out: upstream skips its tests and says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed
from kernel.host.process import run
from kernel.host.progress import note, step
from kernel.host.sandbox import BIND, Sandbox
from tests.upstream.checkout import FOLDERS, Checkout

RECIPE = 1  # raise it when the same checkout gives another archive
TAKEN = ("check", *FOLDERS)  # of a checkout


def digest(checkout: Checkout) -> str:
    """Names the content of a checkout."""
    return store.digest("blktests", RECIPE, list(_content(checkout.folder)))


def packed(checkout: Checkout, tools: ToolRoot) -> Path:
    """The tar, from the cache or made now (a few seconds)."""
    key = store.digest(digest(checkout), tools.path.name)

    def make(path: Path) -> None:
        copy = path / "blktests"
        copy.mkdir()
        for name in TAKEN:
            _copy(checkout.folder / name, copy / name)
        _compile(copy, tools, store.directory("logs") / f"blktests-{key}.log")
        with tarfile.open(path / "blktests.tar", "w") as tar:
            tar.add(copy, ".", filter=_plain)
        store.remove(copy)

    return store.get("blktests", key, "upstream blktests", make) / "blktests.tar"


def _content(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Name, mode and hash of each file that is taken; of a link where it leads."""
    for name in TAKEN:
        top = folder / name
        for path in [top, *sorted(top.rglob("*"))]:
            if path.is_symlink():
                yield str(path.relative_to(folder)), -1, str(path.readlink())
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                yield str(path.relative_to(folder)), path.stat().st_mode & 0o777, content


def _copy(source: Path, target: Path) -> None:
    """Links stay links: they lead to nothing of the host's in the guest."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, ignore=_special)
    elif source.exists():
        shutil.copy2(source, target, follow_symlinks=False)


def _special(folder: str, names: list[str]) -> list[str]:
    """Pipes, sockets and devices, which a copy would wait at."""
    paths = [Path(folder, name) for name in names]
    return [one.name for one in paths if one.exists() and not (one.is_file() or one.is_dir())]


def _compile(copy: Path, tools: ToolRoot, log: Path) -> None:
    log.unlink(missing_ok=True)
    sandbox = Sandbox(tools.root, writable={"blktests": copy})
    sources = copy / "src"
    for folder in (sources, *(path for path in sources.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # the user's may be read-only
    for program in _programs(sources):  # those that are there were made for the user's own system
        program.unlink(missing_ok=True)
    argv = ["make", "-C", f"{BIND}/blktests/src", "--keep-going"]
    argv += [f"-j{os.cpu_count() or 1}", "CC=gcc", "CXX=clang++"]  # the tool root has no g++
    doing = "compiling the helper programs of blktests"
    with step(doing, log=log), contextlib.suppress(Failed):
        run(sandbox.argv(argv), log=log, doing=doing)
    if names := ", ".join(not_built(sources)):
        note(f"blktests: not built, so that tests of them are skipped: {names} (log: {log})")


def not_built(folder: Path) -> list[str]:
    """The programs that there are sources for in a folder, and that are not there."""
    return sorted(path.name for path in _programs(folder) if not path.is_file())


def _programs(folder: Path) -> list[Path]:
    sources = [path for kind in ("c", "cpp") for path in folder.rglob(f"*.{kind}")]
    return [path.with_suffix("") for path in sources]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member
