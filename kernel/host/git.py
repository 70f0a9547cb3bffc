# SPDX-License-Identifier: GPL-2.0-or-later
"""Running git so that neither the surroundings nor a repository decide what it does.

git's environment is ours. Of the user's own variables those stay that say where his settings are
and, for remote repositories, how he reaches them; GIT_DIR and its like, which every hook has set,
are gone. A repository's configuration can name programs (hooks, a file system monitor, ssh
commands, remote helpers, filters): what we call reads refs and objects only, starts no transport
on a local repository, and has no terminal.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blockyard.kernel.host import commands, redact
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import reaped

LOCAL_S = 120.0  # without an answer of a local repository; a slow disk takes some seconds
MOST_OUTPUT = 64 << 20  # bytes of an answer; the names of all refs are the longest
KEPT_OUTPUT = 1 << 16  # bytes of what git says on the way, for its error
# Where the user's settings are (safe.directory is one of them), and how a repository is found.
_OWN = (
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
)
# How the user reaches other machines.
_REACH = ("GIT_SSH", "GIT_SSL_", "GIT_PROXY_", "GIT_HTTP_", "GIT_ASKPASS")
_FIXED = {
    "LC_ALL": "C",  # messages are looked at
    "LANGUAGE": "C",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null/none",  # a file that cannot be: no grafts, and no advice on them
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",  # since 2.45; GIT_ALLOW_PROTOCOL does it for older ones
}
REMOTE_PROTOCOLS = ("git", "http", "https", "ssh")
_OPTIONS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
)


@dataclass(frozen=True)
class Answer:
    """What a git command gave."""

    code: int
    output: bytes
    errors: str  # without secrets


def argv(*arguments: str) -> list[str]:
    """The argument list of a git command."""
    options = [word for option in _OPTIONS for word in ("-c", option)]
    return ["git", "--no-pager", *options, *arguments]


def local() -> dict[str, str]:
    """The environment for a local repository: no transport of any kind."""
    pairs = [(key, value) for key, value in _pairs() if key.lower() == "safe.directory"]
    return _environment(_OWN, pairs, {"GIT_ALLOW_PROTOCOL": "none"})


def remote(
    repository: Path, config: Sequence[tuple[str, str]], values: Mapping[str, str]
) -> dict[str, str]:
    """The environment for a remote repository, with `repository` (ours) as the one at hand.

    config: settings besides the user's own. values: variables that these settings need. Both are
    seen by git and what it starts, and not in anybody's list of processes.
    """
    own = os.environ.get("GIT_ALLOW_PROTOCOL")
    allowed = [one for one in REMOTE_PROTOCOLS if own is None or one in own.split(":")]
    fixed = {"GIT_DIR": str(repository), "GIT_ALLOW_PROTOCOL": ":".join(allowed) or "none"}
    return _environment((*_OWN, *_REACH), [*_pairs(), *config], {**fixed, **values})


def reading(repository: Path, objects: Path) -> dict[str, str]:
    """The environment to read objects of a repository by `repository`, an empty one of ours.

    So the configuration of the repository that they are of counts for nothing.
    """
    fixed = {"GIT_DIR": str(repository), "GIT_OBJECT_DIRECTORY": str(objects)}
    return _environment((), [], {"GIT_ALLOW_PROTOCOL": "none", **fixed})


def _environment(
    kept: Sequence[str], pairs: Sequence[tuple[str, str]], fixed: Mapping[str, str]
) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(tuple(kept))
    }
    if not kept:  # no settings of anybody
        inherited |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    config = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        config |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**inherited, **config, **_FIXED, **fixed}


def _pairs() -> Iterator[tuple[str, str]]:
    """The settings that the user's environment has."""
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    for number in range(int(count) if count.isascii() and count.isdigit() else 0):
        key = os.environ.get(f"GIT_CONFIG_KEY_{number}")
        if key is None:
            return  # git refuses the rest, too
        yield key, os.environ.get(f"GIT_CONFIG_VALUE_{number}", "")


def make(path: Path, commit: str) -> Path:
    """An empty bare repository of ours for objects such as `commit`, without any template."""
    for folder in ("objects", "refs"):
        (path / folder).mkdir(parents=True)
    (path / "HEAD").write_text("ref: refs/heads/none\n")
    sha256 = len(commit) == 64
    lines = ["[core]", f"repositoryformatversion = {int(sha256)}", "bare = true"]
    lines += ["[extensions]", "objectFormat = sha256"] if sha256 else []
    (path / "config").write_text("\n".join([*lines, ""]))
    return path


@contextlib.contextmanager
def started(
    arguments: Sequence[str],
    env: Mapping[str, str],
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stderr: IO[bytes] | int = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """A git command with a pipe for its output; it is ended with the block. Raises Failure."""
    try:
        process = subprocess.Popen(
            argv(*arguments),
            env=env,
            cwd="/",
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=1 << 20,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise Failure("git is not installed", hint="apt-get install git") from None
    with process, reaped(process):
        yield process


def ask(
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    doing: str,
    silence_s: float,
    limit_s: float,
    hint: str = "",
    log: Path | None = None,
) -> Answer:
    """Runs a git command to its end.

    Raises Failure when it says nothing for `silence_s` or takes longer than `limit_s`; `doing`
    names the work in that message. log: gets what it says on the way.
    """
    end = time.monotonic() + limit_s
    output, errors = bytearray(), bytearray()
    with started(arguments, env) as process, selectors.DefaultSelector() as selector:
        for stream, sink in ((process.stdout, output), (process.stderr, errors)):
            assert stream
            selector.register(stream, selectors.EVENT_READ, sink)
        while selector.get_map():
            ready = selector.select(max(0.0, min(silence_s, end - time.monotonic())))
            if not ready:
                late = time.monotonic() >= end
                how = f"no end after {limit_s:g} s" if late else f"no answer for {silence_s:g} s"
                raise Failure(f"{doing}: {how}{_last(errors)}", hint=hint, log=log)
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                key.data.extend(data)
                if not data:
                    selector.unregister(key.fileobj)
            del errors[:-KEPT_OUTPUT]
            if len(output) > MOST_OUTPUT:
                raise Failure(f"{doing}: git's answer is larger than {MOST_OUTPUT >> 20} MiB")
        code = process.wait()
    answer = Answer(code, bytes(output), _text(errors))
    if log is not None:
        with open(log, "a") as file:
            file.write(commands.heading(argv(*arguments)))
            file.write(answer.errors.replace("\r", "\n"))
    return answer


def _text(errors: bytearray) -> str:
    return redact.text(errors.decode(errors="replace"))


def _last(errors: bytearray) -> str:
    lines = _text(errors).replace("\r", "\n").split("\n")
    return next((f" ({line.strip()})" for line in reversed(lines) if line.strip()), "")
