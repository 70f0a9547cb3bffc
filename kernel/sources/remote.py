# SPDX-License-Identifier: GPL-2.0-or-later
"""A remote git repository: resolves refs and fetches single commits.

git uses the user's settings (ssh, proxies, credentials), but with an empty repository of ours, so
that the settings of a repository in the current folder are not read. A password or token in the URL
is passed to git in its environment, so that no list of processes shows it.
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

RECIPE = 2  # part of the key: raise it when the same commit gives a different clone
_PREFIXES = ("", "refs/", "refs/tags/", "refs/heads/")  # in git's order (gitrevisions(7))
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
# A credential helper (gitcredentials(7)); git's shell expands the variables, so no secret is here.
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    ' "$BLOCKYARD_GIT_USER" "$BLOCKYARD_GIT_PASSWORD"; }; f'
)
_SILENCE = "for a slow server raise BLOCKYARD_SERVER_SILENCE_S"
_HINTS = {
    "could not read Username": "the server asks for a user name: set up a git credential helper",
    "could not read Password": "the server asks for a password: set up a git credential helper",
    "Authentication failed": "the server rejects the user or the token",
    "Host key verification failed": "the host key is unknown: ssh to the server once",
    "No space left on device": "the disk is full: run ./inv cache.gc, or set BLOCKYARD_CACHE",
    "not allowed": f"supported URLs: {', '.join(git.REMOTE_PROTOCOLS)}",
}


def is_url(repository: str) -> bool:
    """Whether a repository is written as a URL or as ssh's ``host:path``."""
    return "://" in repository or ":" in repository.partition("/")[0]


def commit(repository: str, ref: str) -> str:
    """The id of the commit that a ref of a remote repository names now; a full id as it is.

    Raises UsageError for an unknown ref, Failure when the server cannot be reached.
    """
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
    # git ls-remote matches the ends of names, so there may be several
    rows = (line.partition("\t") for line in lines)
    commits = {name: object_id for object_id, tab, name in rows if tab}
    for prefix in _PREFIXES:
        name = f"{prefix}{ref}"
        if name in commits:
            # name^{}: the commit of an annotated tag
            return _checked(commits.get(f"{name}^{{}}", commits[name]), shown)
    raise UsageError(
        f"{shown} has no branch or tag {ref!r}",
        hint="git ls-remote lists them; or use a commit's full id",
    )


def _checked(answer: str, shown: str) -> str:
    if not COMMIT.fullmatch(answer):
        raise Failure(f"{shown} answers with {answer!r}: expected a commit ID")
    return answer


def clone(repository: str, ref: str, commit: str, log: Path) -> Path:
    """A bare clone of a single commit, in the cache; raises Failure when git fails."""
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
                hint=f"{_SILENCE}, for a long fetch BLOCKYARD_FETCH_LIMIT_S",
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
    """The URL without secrets, for git's arguments, and git's environment with the secrets."""
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
    server = "/".join(secret.url.split("/")[:3])
    helper = f"credential.{server}.helper"
    if secret.password:  # an empty helper disables all earlier ones
        return [(helper, ""), (helper, _HELPER)]
    # the user's helpers may know the password; else the name is a token without a password
    return [(f"credential.{server}.username", secret.user), (helper, _HELPER)]


def _hint(errors: str) -> str:
    return next((hint for words, hint in _HINTS.items() if words in errors), "")
