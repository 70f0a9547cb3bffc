# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets in URLs: taken out for the program that needs them, hidden from all that people read.

A URL may carry a password or a token as ``https://user:TOKEN@host/``, or in its query as
``?private_token=...``. Messages, logs, records and the cache get `text`; who opens the URL gets
`split`.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

HIDDEN = "***"
# What a query says that is no secret; any other value is hidden.
_HARMLESS = ("download", "format", "h", "id", "inline", "path", "prefix", "ref", "sha", "version")
# Who is at a host over these is a name that git needs, and no secret: ssh://git@host/linux.git
_NAMED = ("ssh", "git+ssh", "ssh+git")
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,31})://([^\s'\"<>]*)")
# An "Authorization" header, should a program print what it sends.
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization:\s*\w+)\s+\S+")


@dataclass(frozen=True)
class Secret:
    """A URL without its user, and who the user is."""

    url: str
    user: str = ""
    password: str = ""


def text(words: str) -> str:
    """`words` with the secrets of all URLs in it hidden."""
    hidden = _URL.sub(lambda found: f"{found[1]}://{_hide(found[1].lower(), found[2])}", words)
    return _HEADER.sub(rf"\1 {HIDDEN}", hidden)


def _hide(scheme: str, rest: str) -> str:
    """What follows ``scheme://``: a place with a user before it, a path, a query, a fragment."""
    location, sign, fragment = rest.partition("#")
    location, question, query = location.partition("?")
    place = location.partition("/")[0]
    # a password may have a slash in it
    user, at, _ = (location if ":" in place else place).rpartition("@")
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
    """A URL with the user and the password taken out of it; both are decoded.

    Raises ValueError for a URL that cannot be taken apart.
    """
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return Secret(url)
    name, _, password = user.partition(":")
    bare = urllib.parse.urlunsplit(parts._replace(netloc=host))
    return Secret(bare, urllib.parse.unquote(name), urllib.parse.unquote(password))
