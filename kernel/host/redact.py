# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets in URLs: hidden in all text that people read, extracted for the code that needs them.

A URL may have a password or a token as ``https://user:TOKEN@host/``, or in its query as
``?private_token=...``. Messages, logs, records and the cache use `text`; code that opens a URL uses
`split`.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

HIDDEN = "***"
# Query parameters that are never secret; the values of all others are hidden.
_HARMLESS = ("download", "format", "h", "id", "inline", "path", "prefix", "ref", "sha", "version")
# The user's name in these is not a secret, and git needs it: ssh://git@host/linux.git
_NAMED = ("ssh", "git+ssh", "ssh+git")
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,31})://([^\s'\"<>]*)")
# An "Authorization" header, for programs that print what they send.
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization:\s*\w+)\s+\S+")


@dataclass(frozen=True)
class Secret:
    """A URL without its user, and the user's name and password."""

    url: str
    user: str = ""
    password: str = ""


def text(words: str) -> str:
    """`words` with the secrets of all URLs in it hidden."""
    hidden = _URL.sub(lambda match: f"{match[1]}://{_hide(match[1].lower(), match[2])}", words)
    return _HEADER.sub(rf"\1 {HIDDEN}", hidden)


def _hide(scheme: str, rest: str) -> str:
    """Hides secrets in the part after ``scheme://``: user@host, path, query, fragment."""
    location, sign, fragment = rest.partition("#")
    location, question, query = location.partition("?")
    host = location.partition("/")[0]
    # a password may contain a slash
    user, at, _ = (location if ":" in host else host).rpartition("@")
    rest = location[len(user + at) :]
    if at:
        name, colon, _ = user.partition(":")
        user = f"{name}{colon}{HIDDEN if colon else ''}" if scheme in _NAMED else HIDDEN
    if question:
        query = "&".join(map(_parameter, query.split("&")))
    return f"{user}{at}{rest}{question}{query}{sign}{fragment}"


def _parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return HIDDEN if name else ""
    return f"{name}={value if name.lower() in _HARMLESS else HIDDEN}"


def split(url: str) -> Secret:
    """Separates a URL from its user and password; both are percent-decoded.

    Raises ValueError for an invalid URL.
    """
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return Secret(url)
    name, _, password = user.partition(":")
    bare = urllib.parse.urlunsplit(parts._replace(netloc=host))
    return Secret(bare, urllib.parse.unquote(name), urllib.parse.unquote(password))
