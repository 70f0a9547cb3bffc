# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses the mails in a file, and finds the texts in them that may be patches.

A file is an mbox (see `mbox`), a single mail, or a plain text. Mails are parsed by the standard
library's email package; input that would take it too long (huge headers, deep multiparts) is cut or
rejected before.
"""

from __future__ import annotations

import contextlib
import email
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from email.policy import SMTP, EmailPolicy
from email.utils import mktime_tz, parseaddr, parsedate_tz

from blockyard.kernel.host import packed
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.untrusted import SERIES_BYTES
from blockyard.kernel.sources import mbox

HEADER_CHARACTERS = 4096  # of a header; some header parsers take quadratic time
PARTS = 300  # multiparts and attached mails in one mail
DEPTH = 12  # nesting of attached mails
_ANY_PART = re.compile(rb"^content-type[ \t]*:[ \t]*(?:multipart|message)/", re.I | re.M)
_CRLF_DIFF = re.compile(rb"^(?:@@ -|diff --git |\+\+\+ )[^\n]{0,4096}\r$", re.MULTILINE)
_HTML_DIFF = re.compile(rb"diff --git |@@ -\d")
# encodings of 8-bit text besides UTF-8 that mail programs use
_CHARSET = re.compile(r"iso-8859-\d+|windows-125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(jp|kr)"
                      r"|shift_jis|iso-2022-jp|utf-16(le|be)?")  # fmt: skip
_NO_TEXT = ("image", "audio", "video", "font")


class _Policy(EmailPolicy):
    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:HEADER_CHARACTERS]


_POLICY = _Policy(linesep="\n", utf8=True, header_factory=SMTP.header_factory)


@dataclass(frozen=True)
class Text:
    """A text part of a mail."""

    readings: tuple[bytes, ...]  # its possible originals, likeliest first; see `_readings`
    name: str = ""  # file name of an attachment
    attached: bool = False


@dataclass(frozen=True)
class Mail:
    """A mail, or a file that is not a mail (then only `texts` is set)."""

    texts: tuple[Text, ...]
    subject: str = ""
    author: str = ""  # name, or address without one
    message_id: str = ""
    replies_to: tuple[str, ...] = ()  # message ids, the direct parent first
    is_mail: bool = True
    html: bool = False  # it has an HTML part with a diff
    inside: Mail | None = None  # the mail that this one was attached to, or pasted into
    date: float | None = None  # seconds since 1970; None: missing or invalid


def mails(data: bytes, what: str) -> list[Mail]:
    """All mails of a file, attached ones included; a plain text is one Mail without `is_mail`.

    what: names the file in errors. Raises UsageError for mails that are nested too deep.
    """
    return list(_mails(data, what, None, 0))


def _mails(data: bytes, what: str, inside: Mail | None, depth: int) -> Iterator[Mail]:
    if depth > DEPTH:
        raise UsageError(f"cannot read {what}: attached mails are nested more than {DEPTH} deep")
    data = data.lstrip(b"\r\n")
    starts = mbox.starts(data)
    if not starts and not mbox.is_mail(data):
        yield Mail((Text(_readings(data)),), is_mail=False, inside=inside)
        return
    if starts and starts[0][0] > 0:
        if mbox.is_mail(data):
            starts.insert(0, (0, 0))
        else:
            yield Mail((Text(_readings(data[: starts[0][0]])),), is_mail=False, inside=inside)
    starts = starts or [(0, 0)]
    ends = [*(begin for begin, _ in starts[1:]), len(data)]
    sent: Mail | None = None  # the last mail with an id; one without was pasted into it
    for (_, begin), end in zip(starts, ends, strict=True):
        for mail in _read(data[begin:end], what, inside, depth):
            if mail.inside is not inside:  # attached
                yield mail
            elif mail.message_id or not sent:
                sent = mail if mail.message_id else sent
                yield mail
            else:
                yield replace(mail, inside=sent)


def _read(data: bytes, what: str, inside: Mail | None, depth: int) -> Iterator[Mail]:
    """Parses a mail and the mails that are attached to it."""
    if len(_ANY_PART.findall(data)) > PARTS:
        raise UsageError(f"cannot read {what}: a mail in it has more than {PARTS} parts")
    try:
        message = email.message_from_bytes(data, policy=_POLICY)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"cannot read a mail in {what}: {error}") from None
    yield from _of_message(message, what, inside, depth)


def _of_message(message: Message, what: str, inside: Mail | None, depth: int) -> Iterator[Mail]:
    if depth > DEPTH:
        raise UsageError(f"cannot read {what}: attached mails are nested more than {DEPTH} deep")
    texts: list[Text] = []
    nested: list[Message | bytes] = []
    html = False
    for leaf in _leaves(message, DEPTH, what):
        kind = _kind(leaf)
        if kind.startswith("message/") and leaf.is_multipart():
            nested += _parts(leaf)
            continue
        name = _name(leaf)
        attached = bool(name) or _disposition(leaf) == "attachment"
        data = leaf.get_payload(decode=True)
        if not isinstance(data, bytes):
            continue
        data = packed.unpacked(data, f"{name or 'an attachment'} in {what}", SERIES_BYTES)
        if kind == "text/html":
            html = html or bool(_HTML_DIFF.search(data))
        elif leaf is not message and mbox.holds_mails(data.lstrip(b"\r\n")):
            nested.append(data)
        else:
            data = data if attached else _in_utf8(data, _parameter(leaf, "charset"))
            flowed = _parameter(leaf, "format") == "flowed"
            texts.append(
                Text(_readings(data, flowed, _parameter(leaf, "delsp") == "yes"), name, attached)
            )
    mail = Mail(
        tuple(texts),
        _header(message, "Subject"),
        _person(_header(message, "From")),
        next(iter(_ids(message, "Message-ID")), ""),
        (*_ids(message, "In-Reply-To"), *reversed(_ids(message, "References"))),
        html=html,
        inside=inside,
        date=_date(_raw(message, "Date")),
    )
    yield mail
    for attached_mail in nested:
        if isinstance(attached_mail, bytes):
            yield from _mails(attached_mail, what, mail, depth + 1)
        else:
            yield from _of_message(attached_mail, what, mail, depth + 1)


def _leaves(part: Message, depth: int, what: str) -> Iterator[Message]:
    """The parts without parts of their own; attached mails count as such."""
    kind = _kind(part)
    if not part.is_multipart() or kind.startswith("message/"):
        if kind.partition("/")[0] not in _NO_TEXT:
            yield part
        return
    if not depth:
        raise UsageError(f"cannot read {what}: a mail in it nests parts more than {DEPTH} deep")
    for inner in _parts(part):
        yield from _leaves(inner, depth - 1, what)


def _parts(part: Message) -> list[Message]:
    payload = part.get_payload()
    if not isinstance(payload, list):
        return []
    return [inner for inner in payload if isinstance(inner, Message)]


def _raw(part: Message, name: str) -> str:
    """A header, unfolded but not decoded; empty if it is missing."""
    for key, value in part.raw_items():
        if key.lower() == name.lower():
            text = str(value).encode(errors="surrogateescape").decode(errors="replace")
            return " ".join(text.split())
    return ""


def _header(part: Message, name: str) -> str:
    """A header with encoded words (RFC 2047) decoded."""
    raw = _raw(part, name)
    try:
        return " ".join(str(_POLICY.header_factory("Subject", raw)).split())
    except Exception:  # the standard library's parser raises many types for a broken header
        return raw


def _person(author: str) -> str:
    name, address = parseaddr(author)
    return name or address or author


def _date(text: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError, TypeError, IndexError):
        if parsed := parsedate_tz(text):
            return float(mktime_tz(parsed))
    return None


def _ids(part: Message, name: str) -> list[str]:
    return re.findall(r"<([^<>\s]{1,998})>", _raw(part, name))


def _kind(part: Message) -> str:
    value = _raw(part, "Content-Type").partition(";")[0].strip().lower()
    return value if re.fullmatch(r"[\w.+-]+/[\w.+-]+", value) else "text/plain"


def _disposition(part: Message) -> str:
    return _raw(part, "Content-Disposition").partition(";")[0].strip().lower()


def _parameter(part: Message, name: str, header: str = "Content-Type") -> str:
    match = re.search(rf';\s*{name}\*?0?\*?\s*=\s*("[^"]*"|[^;\s]*)', _raw(part, header), re.I)
    return match[1].strip('"').lower() if match else ""


def _name(part: Message) -> str:
    name = _parameter(part, "filename", "Content-Disposition") or _parameter(part, "name")
    return name.rpartition("/")[2]


def _in_utf8(data: bytes, charset: str) -> bytes:
    """Converts text that a mail program sent in another charset back to UTF-8."""
    if not _CHARSET.fullmatch(charset):
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        with contextlib.suppress(UnicodeError, LookupError):
            return data.decode(charset).encode()
    return data


def _readings(data: bytes, flowed: bool = False, delsp: bool = False) -> tuple[bytes, ...]:
    """The possible originals of a text that a mail program changed, the likeliest first.

    flowed: format=flowed (RFC 3676) adds a space to lines that begin with one, and breaks long
    lines.
    """
    if _CRLF_DIFF.search(data):  # CRLF in diff headers: the transport added it to all lines
        data = data.replace(b"\r\n", b"\n")
    if not flowed:
        return (data,)
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    plain = [line[1:] if line.startswith(b" ") else line for line in lines]
    joined, pending = [], b""
    for line in plain:
        if line.endswith(b" ") and line != b"-- ":
            pending += line[:-1] if delsp else line
        else:
            joined.append(pending + line)
            pending = b""
    return b"\n".join(plain), b"\n".join([*joined, pending]), data
