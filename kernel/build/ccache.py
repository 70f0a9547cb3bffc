# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps the C objects of one build for the next, with the tool root's ccache.

A build can write anything into ccache's folder, including an object that another tree would then
link. So trees do not share one writable folder: builds of Debian's sources have one, and every
other source has its own. All builds can read Debian's folder, but other builds cannot write to it.
ccache can only layer folders as remote storage, so its local storage in the sandbox is off.

ccache works in depend mode: it hashes the source, the options and the headers that the compiler's
-MMD lists, without preprocessing. -MMD does not list other embedded files, so
`scripts/cached-compiler` compiles sources that embed files without ccache. ccache identifies the
compiler by its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blockyard.kernel import catalog
from blockyard.kernel.build.toolchain import PINNED, Toolchain
from blockyard.kernel.catalog import DebianSource, Entry, Git
from blockyard.kernel.host import redact, store, untrusted
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import run
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.kernel.sources.tree import Tree

DEBIAN = "debian"  # the folder for builds of Debian's sources
SCRIPTS = PROJECT / "kernel" / "scripts"
COMPILERS = ("clang", "gcc")
# What embeds a file that is not a header: in assembly strings and in C (patterns of grep -F).
EMBEDDING = "\n".join([".incbin", "#embed", "# embed"])
TRIM_S = 300  # time limit of a trim
STATISTICS = ".ccache-statistics"  # in the output tree: ccache writes a line for each call


@dataclass(frozen=True)
class Objects:
    """The folders below the cache's `ccache` for a build's C objects, by name."""

    own: str  # read and written
    others: tuple[str, ...] = ()  # read

    def sandbox(self, sandbox: Sandbox, toolchain: Toolchain) -> Sandbox:
        """Add the folders, ccache's settings and the scripts to the sandbox of a build."""
        writable = {"ccache/own": _folder(self.own)}
        read_only = {f"bin/{name}": SCRIPTS / "cached-compiler" for name in COMPILERS}
        read_only["cached-make"] = SCRIPTS / "cached-make"
        storage = [f"file:{BIND}/ccache/own|update-mtime=true"]
        for name in self.others:
            read_only[f"ccache/{name}"] = _folder(name)
            storage.append(f"file:{BIND}/ccache/{name}|read-only=true")
        environment = {
            "CCACHE_DEPEND": "1",
            "CCACHE_REMOTE_ONLY": "1",
            "CCACHE_REMOTE_STORAGE": " ".join(storage),
            "CCACHE_COMPILERCHECK": f"string:{store.digest(toolchain.versions)}",
            "CCACHE_SLOPPINESS": "time_macros",
            "CCACHE_DIR": "/tmp/ccache",
            "CCACHE_TEMPDIR": "/tmp/ccache/tmp",
            "CCACHE_STATSLOG": f"{BIND}/out/{STATISTICS}",
            "EMBEDDING": EMBEDDING,
        }
        return replace(
            sandbox,
            read_only={**sandbox.read_only, **read_only},
            writable={**sandbox.writable, **writable},
            environment={**sandbox.environment, **environment},
        )

    def argv(self, make: Sequence[str]) -> list[str]:
        """The command that runs `make` with ccache inside that sandbox."""
        return ["sh", f"{BIND}/cached-make", *make]


def take_hits(out: Path) -> int:
    """Return how many objects the last make in an output tree got from ccache.

    The build can write to the statistics, so the number is for information only.
    """
    if not untrusted.is_file(out, STATISTICS):
        return 0
    try:
        lines = untrusted.read(out, STATISTICS).splitlines()
        (out / STATISTICS).unlink()
    except (Failure, OSError):
        return 0
    return lines.count(b"direct_cache_hit")


def _folder(name: str) -> Path:
    return store.directory(f"ccache/{name}")


def objects(
    entry: Entry,
    tree: Tree,
    toolchain: Toolchain,
    fragments: Sequence[Path],
    options: Sequence[str],
) -> Objects | None:
    """The folders for the objects of a build; None if ccache is off or not in the toolchain.

    fragments: the user's, including those of his drivers. options: all that the user chose.
    """
    if toolchain.origin != PINNED or not settings().ccache_gb:
        return None
    # A patched tree is not Debian's; nor is a build with user fragments: their strings reach make.
    if isinstance(entry, DebianSource) and tree.pristine and not fragments:
        return Objects(DEBIAN)
    # A directory or a branch keeps its folder when it changes: most objects are still valid.
    if isinstance(entry, Git):
        what = f"{redact.text(_absolute(entry.repository))} {entry.ref}"
    else:
        what = tree.build_id or str(tree.origin)
    paths = [str(path.absolute()) for path in fragments]
    return Objects(store.digest("objects", what, options, paths), (DEBIAN,))


def _absolute(repository: str) -> str:
    path = catalog.expand_path(repository)
    return str(path) if catalog.is_folder(path) else repository


def trim(tools: ToolRoot) -> None:
    """Trim all folders to the setting `ccache_gb` in total, the least recently used objects first.

    This runs in the sandbox, since builds wrote the files.
    """
    folder = store.directory("ccache")
    argv = ["ccache", "--trim-dir", f"{BIND}/ccache", "--trim-method", "mtime"]
    argv += ["--trim-max-size", f"{settings().ccache_gb * 1e6:.0f}k"]
    run(
        Sandbox(tools.root, writable={"ccache": folder}).argv(argv),
        log=store.directory("logs") / "ccache.log",
        doing="trimming ccache's folders",
        timeout_s=TRIM_S,
    )
