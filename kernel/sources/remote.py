# SPDX-License-Identifier: GPL-2.0-or-later
"""A repository on another machine: which commit a ref is there, and the objects of that commit.

git does it with the user's own settings (ssh, proxies, credentials), and with an empty repository
of ours at hand, so that the settings of whatever repository the current folder is in do not count.
A password or token in the URL reaches git through its environment, and nobody else.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from blockyard.kernel.host import git, redact, store
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.settings import settings

RECIPE = 2  # raise it when the same commit gives another clone
_PREFIXES = ("", "refs/", "refs/tags/", "refs/heads/")  # in git's order (gitrevisions(7))
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
# A credential helper of git's (gitcredentials(7)); the shell of git finds its own words only.
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    ' "$BLOCKYARD_GIT_USER" "$BLOCKYARD_GIT_PASSWORD"; }; f'
)
_SILENCE = "BLOCKYARD_SERVER_SILENCE_S is how long a server may be silent"
_HINTS = {
    "could not read Username": "the server asks who you are: set up a credential helper of git",
    "could not read Password": "the server asks for a password: set up a credential helper of git",
    "Authentication failed": "the server refuses the user or the token",
    "Host key verification failed": "the server is not known yet: ssh to it once",
    "No space left on device": "the disk is full: ./inv cache.gc, or set BLOCKYARD_CACHE",
    "not allowed": f"{', '.join(git.REMOTE_PROTOCOLS)} URLs are known",
}


def is_url(repository: str) -> bool:
    """Whether it has the form of a URL, or of ssh's ``host:path``."""
    return "://" in repository or ":" in repository.partition("/")[0]


def commit(repository: str, ref: str) -> str:
    """What a ref of a remote repository names now; a commit's whole id names itself."""
    if COMMIT.fullmatch(ref):
        return ref
    shown, silence_s = redact.text(repository), settings().server_silence_s
    with tempfile.TemporaryDirectory() as aside, step(f"asking {shown} for {ref}"):
        url, env = _access(repository, git.make(Path(aside) / "git", ""))
        answer = git.ask(
            ["ls-remote", "--", url, ref, f"{ref}^{{}}"],
            env,
            doing=f"asking {shown} for {ref}",
            silence_s=silence_s,
            limit_s=settings().fetch_limit_s,
            hint=_SILENCE,
        )
    if answer.code:
        raise Failure(f"cannot reach {shown}: {answer.errors.strip()}", hint=_hint(answer.errors))
    lines = answer.output.decode(errors="replace").splitlines()
    # whose names end alike: git ls-remote takes the end of a name for the name
    commits = {name: found for found, tab, name in (line.partition("\t") for line in lines) if tab}
    for prefix in _PREFIXES:
        name = f"{prefix}{ref}"
        if name in commits:
            # what an annotated tag is a tag of
            return _checked(commits.get(f"{name}^{{}}", commits[name]), shown)
    raise UsageError(
        f"{shown} has no branch or tag {ref!r}", hint="git ls-remote lists them; or a commit's id"
    )


def _checked(found: str, shown: str) -> str:
    if not COMMIT.fullmatch(found):
        raise Failure(f"{shown} answers with {found!r}: expected a commit ID")
    return found


def clone(repository: str, ref: str, commit: str, log: Path) -> Path:
    """A bare clone of one commit in the cache."""
    shown = redact.text(repository)

    def make(path: Path) -> None:
        url, env = _access(repository, git.make(path / "git", commit))
        command = ["fetch", "--progress", "--depth=1", "--no-tags", "--no-write-fetch-head"]
        command += ["--no-recurse-submodules", "--no-auto-gc", "--", url, commit]
        with step(f"cloning {ref} of {shown}", log=log):
            answer = git.ask(
                command,
                env,
                doing=f"fetching {ref} of {shown}",
                silence_s=settings().server_silence_s,
                limit_s=settings().fetch_limit_s,
                hint=f"{_SILENCE}, BLOCKYARD_FETCH_LIMIT_S how long all may take",
                log=log,
            )
        if answer.code:
            lines = answer.errors.replace("\r", "\n").strip().splitlines()
            raise Failure(
                f"fetching {ref} of {shown}: git ended with exit code {answer.code}\n"
                + "\n".join(f"    {line}" for line in lines[-12:]),
                hint=_hint(answer.errors),
                log=log,
            )

    key = store.digest("clone", RECIPE, commit)
    return store.get("clones", key, f"{ref} of {shown}", make) / "git"


def _access(repository: str, ours: Path) -> tuple[str, dict[str, str]]:
    """The URL for git's arguments, and the environment that has what is secret of it."""
    config: Sequence[tuple[str, str]] = ()
    values: Mapping[str, str] = {}
    if repository.lower().startswith(("http://", "https://")):
        try:
            secret = redact.split(repository)
        except ValueError as error:
            raise UsageError(f"invalid URL {redact.text(repository)!r}: {error}") from None
        if any(ord(letter) < 32 for letter in secret.user + secret.password):
            raise UsageError(f"{redact.text(repository)}: control characters in user or password")
        if secret.user:
            config = _credentials(secret)
            values = {
                "BLOCKYARD_GIT_USER": secret.user,
                "BLOCKYARD_GIT_PASSWORD": secret.password,
            }
        repository = secret.url
    return repository, git.remote(ours, config, values)


def _credentials(secret: redact.Secret) -> list[tuple[str, str]]:
    place = "/".join(secret.url.split("/")[:3])
    helper = f"credential.{place}.helper"
    if secret.password:  # an empty helper is git's word for: none of those before
        return [(helper, ""), (helper, _HELPER)]
    # a name whose password the user's own helpers know, else a token with no password
    return [(f"credential.{place}.username", secret.user), (helper, _HELPER)]


def _hint(errors: str) -> str:
    return next((hint for words, hint in _HINTS.items() if words in errors), "")
