# SPDX-License-Identifier: GPL-2.0-or-later
"""C objects of one build kept for the next, by the tool root's ccache.

A build can write anything into a folder that ccache may write to, also an object that another
tree would then link. So trees do not share one folder: what is built of Debian's own sources has
one, and whatever else a user names has one of its own. Of Debian's they all read, and cannot write.
ccache can layer folders so only as remote storage, hence the storage of the sandbox's own is off.

ccache works in depend mode: it hashes the source, the options and the headers that the compiler's
-MMD listed, and nothing is preprocessed. Files that are no headers are not listed, so what takes in
such files is kept out by `scripts/cached-compiler`. The compiler itself is told by its version.
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

DEBIAN = "debian"  # the folder of what is built of Debian's own sources
SCRIPTS = PROJECT / "kernel" / "scripts"
COMPILERS = ("clang", "gcc")
# What takes in a file that is no header: assembly in strings, and C's own (patterns of grep -F).
EMBEDDING = "\n".join([".incbin", "#embed", "# embed"])
TRIM_S = 300
STATISTICS = ".ccache-statistics"  # in the output tree: a line of ccache's for each call


@dataclass(frozen=True)
class Objects:
    """The folders of the cache's `ccache` that a build's C objects are kept in, by name."""

    own: str  # read and written
    others: tuple[str, ...] = ()  # read

    def sandbox(self, sandbox: Sandbox, toolchain: Toolchain) -> Sandbox:
        """The sandbox of a build with the folders, ccache's settings and the scripts in it."""
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
        """The command inside that sandbox that runs `make`."""
        return ["sh", f"{BIND}/cached-make", *make]


def take_hits(out: Path) -> int:
    """How many objects ccache had, of the make that ended last in an output tree.

    What runs ccache can write to its statistics, too: the number is for information only.
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
    """Where the objects of a build are kept; None when ccache is off or not in the toolchain.

    fragments: the user's own, those of drivers of his included. options: all that a user chose.
    """
    if toolchain.origin != PINNED or not settings().ccache_gb:
        return None
    # A tree that is more than Debian's, or a fragment (its strings reach make), is not Debian's.
    if isinstance(entry, DebianSource) and tree.pristine and not fragments:
        return Objects(DEBIAN)
    # The state of a directory or a branch changes, and what was kept of it before still serves.
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
    """Keeps all folders together to the setting `ccache_gb`; what was not read longest goes first.

    In the sandbox, as all that touches what builds wrote.
    """
    folder = store.directory("ccache")
    argv = ["ccache", "--trim-dir", f"{BIND}/ccache", "--trim-method", "mtime"]
    argv += ["--trim-max-size", f"{settings().ccache_gb * 1e6:.0f}k"]
    run(
        Sandbox(tools.root, writable={"ccache": folder}).argv(argv),
        log=store.directory("logs") / "ccache.log",
        doing="trimming what ccache keeps",
        timeout_s=TRIM_S,
    )
