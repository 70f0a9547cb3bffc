# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel tree in a tarball: a file, or a URL whose sha256 is given.

It is unpacked in the tool root, where a hostile archive meets nothing but the tree's own folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kernel import catalog
from kernel.catalog import Tarball
from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed, UserError
from kernel.host.limits import build_limits
from kernel.host.process import run
from kernel.host.progress import step
from kernel.host.sandbox import BIND, Sandbox
from kernel.sources.tree import Tree, checked

CHUNK = 1 << 20
UNPACK_S = 3600
# To root, too, what anybody else gets: files of one's own, without setuid and setgid bits.
UNPRIVILEGED = ("--no-same-owner", "--no-same-permissions")
DOWNLOAD_S = 60  # without a byte from the server


def source_tree(name: str, entry: Tarball, tools: ToolRoot) -> Tree:
    """The tree in a tarball; raises UserError for a wrong sha256 or one that is missing."""
    log = store.directory("logs") / f"tarball-{store.digest(entry)}.log"
    is_url = "://" in entry.location
    if is_url and not entry.sha256:
        raise UserError(
            f"{entry.location} needs a sha256: nothing else says that it is the right file",
            hint=f"--kernel '{entry.location} sha256=...'",
        )
    sha256 = entry.sha256 or _sha256(_file(entry))

    def make(path: Path) -> None:
        file = path / "download" if is_url else _file(entry)
        if is_url:
            _download(entry.location, file)
        if (got := _sha256(file)) != sha256:
            raise UserError(f"{entry.location} has the sha256 {got}, not {sha256}")
        with step(f"unpacking {name}"):
            unpack(file, path / "tree", tools, log, strip=1)
        if is_url:
            file.unlink()
        checked(path / "tree", name)

    path = store.get("sources", _key(sha256), f"the source of kernel {name}", make)
    return _tree(entry, sha256, path)


def cached(entry: Tarball) -> Tree | None:
    """The tree if it is unpacked."""
    if "://" in entry.location and not entry.sha256:
        return None
    sha256 = entry.sha256 or _sha256(_file(entry))
    path = store.peek("sources", _key(sha256))
    return _tree(entry, sha256, path) if path else None


def _key(sha256: str) -> str:
    return store.digest("tarball", sha256)


def _tree(entry: Tarball, sha256: str, path: Path) -> Tree:
    origin = f"tarball {entry.location} sha256 {sha256}"
    return Tree(path / "tree", origin, contents=f"tarball {sha256}")


def unpack(tar: Path, tree: Path, tools: ToolRoot, log: Path, *, strip: int) -> None:
    """Unpacks a tar (of any compression) into `tree`; `strip` leading folders are dropped."""
    tree.mkdir()
    limits = build_limits().within(UNPACK_S)
    sandbox = Sandbox(
        tools.root, read_only={"tar": tar}, writable={"tree": tree}, limits=limits, supervised=True
    )
    argv = ["tar", "-xf", f"{BIND}/tar", "-C", f"{BIND}/tree", f"--strip-components={strip}"]
    run(
        sandbox.argv([*argv, *UNPRIVILEGED]),
        log=log,
        doing=f"unpacking {tar.name}",
        limits=limits,
        outputs=[tree],
    )


def _file(entry: Tarball) -> Path:
    path = catalog.place(entry.location)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    return path


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, path: Path) -> None:
    import http.client
    import urllib.request

    if not url.startswith(("https://", "http://", "file://")):
        raise UserError(f"cannot fetch {url}: only https, http and file URLs are known")
    try:
        with (
            step(f"fetching {url}"),
            urllib.request.urlopen(url, timeout=DOWNLOAD_S) as response,
            open(path, "wb") as file,
        ):
            while data := response.read(CHUNK):
                file.write(data)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if store.is_full(error):
            raise
        raise Failed(f"cannot fetch {url}: {getattr(error, 'reason', error)}") from None
