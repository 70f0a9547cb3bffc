# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel tree from a tarball: a file, or a URL with its sha256.

tar runs in the tool root's sandbox, where a hostile archive can reach only the tree's folder.
"""

from __future__ import annotations

import base64
import hashlib
import time
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from blockyard.kernel import catalog
from blockyard.kernel.catalog import Tarball
from blockyard.kernel.host import redact, store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.limits import build_limits
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources.origin import TarballFile
from blockyard.kernel.sources.tree import Tree, checked

if TYPE_CHECKING:
    from urllib.request import Request

CHUNK = 1 << 16
MOST_BYTES = 8 << 30  # of a tarball; Linux has 150 MB packed, 1.6 GB unpacked
UNPACK_S = 3600
# As root, unpack like a normal user: files owned by the caller, without setuid and setgid bits.
UNPRIVILEGED = ("--no-same-owner", "--no-same-permissions")


def source_tree(name: str, entry: Tarball, tools: ToolRoot) -> Tree:
    """The tree in a tarball, fetched and unpacked if needed.

    Raises UsageError for a missing file and for a URL without sha256, Failure for a wrong sha256
    and when fetching fails.
    """
    name, shown = redact.text(name), redact.text(entry.location)
    log = store.directory("logs") / f"tarball-{store.digest(shown, entry.sha256)}.log"
    is_url = "://" in entry.location
    if is_url and not entry.sha256:
        raise UsageError(
            f"{shown} needs a sha256, to check that it is the right file",
            hint=f"--kernel '{shown} sha256=...'",
        )
    sha256 = entry.sha256 or _sha256(_file(entry))

    def make(path: Path) -> None:
        file = path / "download" if is_url else _file(entry)
        if is_url:
            _download(entry.location, file)
        if (actual := _sha256(file)) != sha256:
            raise Failure(f"{shown} has the sha256 {actual}, not {sha256}")
        with step(f"unpacking {name}"):
            unpack(file, path / "tree", tools, log, strip=1)
        if is_url:
            file.unlink()
        checked(path / "tree", name)

    path = store.get("sources", _key(sha256), f"the source of kernel {name}", make)
    return _tree(entry, sha256, path)


def cached(entry: Tarball) -> Tree | None:
    """The tree from the cache; None when it is not there."""
    if "://" in entry.location and not entry.sha256:
        return None
    sha256 = entry.sha256 or _sha256(_file(entry))
    path = store.peek("sources", _key(sha256))
    return _tree(entry, sha256, path) if path else None


def _key(sha256: str) -> str:
    return store.digest("tarball", sha256)


def _tree(entry: Tarball, sha256: str, path: Path) -> Tree:
    origin = TarballFile(redact.text(entry.location), sha256)
    return Tree(path / "tree", origin, contents=f"tarball {sha256}")


def unpack(tar: Path, tree: Path, tools: ToolRoot, log: Path, *, strip: int) -> None:
    """Unpacks a tar (of any compression) into `tree` without its first `strip` folders."""
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
    path = catalog.expand_path(entry.location)
    if not _is_file(path):
        raise UsageError(f"no such file: {path}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # permission denied, or the path is too long
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, path: Path) -> None:
    """Fetches a URL; a user and password in it are sent to its server only and never printed."""
    import http.client
    import urllib.parse
    import urllib.request

    shown = redact.text(url)
    if not url.startswith(("https://", "http://", "file://")):
        raise UsageError(f"cannot fetch {shown}: expected an https, http or file URL")
    local = urllib.parse.urlsplit(url).path if url.startswith("file:") else ""
    if local and not _is_file(Path(urllib.parse.unquote(local))):
        raise UsageError(f"cannot fetch {shown}: no such file")
    try:
        with (
            step(f"fetching {shown}"),
            urllib.request.urlopen(_request(url), timeout=settings().server_silence_s) as response,
            open(path, "wb") as file,
        ):
            _save(response, file, shown)
    except TimeoutError:
        raise Failure(
            f"cannot fetch {shown}: no answer for {settings().server_silence_s:g} s",
            hint="for a slow server raise BLOCKYARD_SERVER_SILENCE_S",
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        if store.is_full(error):
            raise
        why = redact.text(str(getattr(error, "reason", error)))
        raise Failure(f"cannot fetch {shown}: {why}") from None


def _request(url: str) -> Request:
    from urllib.request import Request

    secret = redact.split(url)
    request = Request(secret.url)
    if secret.user:
        pair = f"{secret.user}:{secret.password}".encode()
        # not sent to the target of a redirect
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    return request


def _save(response: BufferedIOBase, file: BinaryIO, shown: str) -> None:
    end, size = time.monotonic() + settings().fetch_limit_s, 0
    while data := response.read1(CHUNK):
        file.write(data)
        size += len(data)
        if size > MOST_BYTES:
            raise Failure(f"cannot fetch {shown}: it is larger than {MOST_BYTES >> 30} GiB")
        if time.monotonic() > end:
            raise Failure(
                f"cannot fetch {shown}: not finished after {settings().fetch_limit_s:g} s",
                hint="for a slow server raise BLOCKYARD_FETCH_LIMIT_S",
            )
