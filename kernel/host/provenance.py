# SPDX-License-Identifier: GPL-2.0-or-later
"""What something in the cache was made from, as an in-toto statement beside it.

``provenance.json`` is an in-toto Statement v1 (in-toto/attestation, spec/v1/statement.md) with the
predicate SLSA provenance v1: its subjects are the entry's files by sha256, its dependencies the
inputs by hash. It is written after the making, by the process that is outside of the sandbox, so
what runs in a build cannot change it; it is not signed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from blockyard.kernel.host import durable, redact, seal, trees

FILE = "provenance.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:blockyard:builder:v1"


class Input(msgspec.Struct, frozen=True):
    """One thing that was used: a ResourceDescriptor."""

    name: str
    digest: Mapping[str, str]  # algorithm → hex digits
    uri: str = ""
    annotations: Mapping[str, str] = {}


class Provenance(msgspec.Struct, frozen=True):
    """How an entry was made."""

    build_type: str  # such as "kernel"
    asked: Mapping[str, Any]  # what a user chose
    made: Mapping[str, Any]  # what we added: recipe, sandbox
    inputs: tuple[Input, ...]


def of_text(name: str, text: str | bytes) -> Input:
    """An input whose contents are at hand."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    return Input(name, {"sha256": hashlib.sha256(data).hexdigest()})


def of_entry(name: str, path: Path, uri: str = "") -> Input:
    """An entry of the cache, by the sha256 of the manifest in it; without one by its name."""
    sealed = seal.load(path)
    if sealed is None:
        return Input(name, {}, uri, {"blockyard.entry": path.name})
    digest = {"sha256": sealed.manifest_sha256}
    return Input(name, digest, uri, {"blockyard.entry": path.name, "blockyard.of": seal.MANIFEST})


def statement(path: Path, provenance: Provenance, begun_s: float, ended_s: float) -> dict[str, Any]:
    """The statement about the files below `path`; times are seconds since the epoch."""
    return {
        "_type": STATEMENT,
        "subject": _subjects(path),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"urn:blockyard:build:{provenance.build_type}:v1",
                "externalParameters": dict(provenance.asked),
                "internalParameters": dict(provenance.made),
                "resolvedDependencies": [_descriptor(one) for one in provenance.inputs],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {"startedOn": _time(begun_s), "finishedOn": _time(ended_s)},
            },
        },
    }


def write_statement(path: Path, provenance: Provenance, begun_s: float) -> None:
    """Writes ``provenance.json`` into an entry that has just been made."""
    trees.remove(path / FILE)
    encoded = msgspec.json.encode(_hidden(statement(path, provenance, begun_s, time.time())))
    durable.write(path / FILE, msgspec.json.format(encoded, indent=1) + b"\n")


def _hidden(value: Any) -> Any:
    """The same with the secrets of all URLs in it hidden."""
    if isinstance(value, str):
        return redact.text(value)
    if isinstance(value, Mapping):
        return {redact.text(name): _hidden(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(one) for one in value]
    return value


def _subjects(path: Path) -> list[dict[str, Any]]:
    found = []
    for one in trees.walk(path):
        if one.status and stat.S_ISREG(one.status.st_mode):
            descriptor = os.open(one.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=one.parent)
            with open(descriptor, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found.append({"name": _text(one.path), "digest": {"sha256": sha256}})
    return found


def _descriptor(one: Input) -> dict[str, Any]:
    described: dict[str, Any] = {"name": _text(one.name)}
    if one.uri:
        described["uri"] = _text(one.uri)
    if one.digest:
        described["digest"] = dict(one.digest)
    if one.annotations:
        described["annotations"] = dict(one.annotations)
    return described


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")  # JSON has UTF-8 alone


def _time(seconds: float) -> str:
    """RFC 3339, as the specification asks for."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
