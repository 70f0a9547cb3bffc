# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs git so that neither the environment nor a repository's configuration changes what it does.

Of the user's GIT_* variables only those are passed on that say where the user's settings are and,
for remote repositories, how to reach them. GIT_DIR and the like, which git sets for every hook,
are removed. A repository's configuration can name programs (hooks, a file system monitor, ssh
commands, remote helpers, filters). The commands used here read refs and objects only, start no
transport for a local repository, and have no terminal.
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

from blockyard.kernel.host import commands, host_packages, redact
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import reaped

LOCAL_S = 120.0  # timeout for an answer from a local repository; a slow disk takes some seconds
MOST_OUTPUT = 64 << 20  # bytes of an answer; the longest is the list of all refs
KEPT_OUTPUT = 1 << 16  # bytes of git's stderr that are kept, for its error message
# Where the user's settings are (such as safe.directory), and how a repository is found.
_USER_SETTINGS = (
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
)
# How the user reaches other machines: prefixes of variables.
_TRANSPORT = ("GIT_SSH", "GIT_SSL_", "GIT_PROXY_", "GIT_HTTP_", "GIT_ASKPASS")
_FIXED = {
    "LC_ALL": "C",  # messages are parsed
    "LANGUAGE": "C",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null/none",  # cannot exist: no grafts, and no advice about them
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",  # since git 2.45; older versions obey GIT_ALLOW_PROTOCOL
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
    """Result of a git command."""

    code: int  # exit code, -n for signal n
    output: bytes  # stdout
    errors: str  # stderr, with secrets hidden


def argv(*arguments: str) -> list[str]:
    """The argument list of a git command, without pager, hooks and background maintenance."""
    options = [word for option in _OPTIONS for word in ("-c", option)]
    return ["git", "--no-pager", *options, *arguments]


def local() -> dict[str, str]:
    """The environment for a local repository: no transport of any kind."""
    pairs = [(key, value) for key, value in _pairs() if key.lower() == "safe.directory"]
    return _environment(_USER_SETTINGS, pairs, {"GIT_ALLOW_PROTOCOL": "none"})


def remote(
    repository: Path, config: Sequence[tuple[str, str]], values: Mapping[str, str]
) -> dict[str, str]:
    """The environment for a remote repository; `repository` is the local one, made by us.

    config: settings besides the user's own. values: variables that these settings need. git and its
    children get both by the environment, so that no list of processes shows them.
    """
    user = os.environ.get("GIT_ALLOW_PROTOCOL")
    allowed = [name for name in REMOTE_PROTOCOLS if user is None or name in user.split(":")]
    fixed = {"GIT_DIR": str(repository), "GIT_ALLOW_PROTOCOL": ":".join(allowed) or "none"}
    kept = (*_USER_SETTINGS, *_TRANSPORT)
    return _environment(kept, [*_pairs(), *config], {**fixed, **values})


def reading(repository: Path, objects: Path) -> dict[str, str]:
    """The environment to read a repository's `objects` through `repository`, an empty one of ours.

    So the configuration of the repository with the objects is not read.
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
    if not kept:  # neither the user's nor the system's settings
        inherited |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    config = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (key, value) in enumerate(pairs):
        config |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**inherited, **config, **_FIXED, **fixed}


def _pairs() -> Iterator[tuple[str, str]]:
    """The settings that the user passes by GIT_CONFIG_COUNT, GIT_CONFIG_KEY_n and _VALUE_n."""
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    for number in range(int(count) if count.isascii() and count.isdigit() else 0):
        key = os.environ.get(f"GIT_CONFIG_KEY_{number}")
        if key is None:
            return  # git refuses the rest as well
        yield key, os.environ.get(f"GIT_CONFIG_VALUE_{number}", "")


def make(path: Path, commit: str) -> Path:
    """Makes an empty bare repository at `path`, with the object format of `commit`'s name.

    git's templates are not used.
    """
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
    """Starts a git command with a pipe for its output, and ends it with the block.

    Raises Failure when git is not installed.
    """
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
        raise Failure("git is not installed", hint=host_packages.hint("git")) from None
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

    Raises Failure when it prints nothing for `silence_s` or takes longer than `limit_s`; `doing`
    names the work in that message. log: the command and its stderr are appended to this file.
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
                raise Failure(f"{doing}: git printed more than {MOST_OUTPUT >> 20} MiB")
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
