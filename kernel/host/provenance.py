# SPDX-License-Identifier: GPL-2.0-or-later
"""What an entry of the cache was made from, as an in-toto statement in the entry.

``provenance.json`` is an in-toto Statement v1 (in-toto/attestation, spec/v1/statement.md) with the
predicate SLSA provenance v1. Its subjects are the entry's files by sha256, its dependencies are the
inputs by hash. The process outside of the sandbox writes it after the build, so a build cannot
change it. It is not signed.
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
    """An input of a build: a ResourceDescriptor of SLSA."""

    name: str
    digest: Mapping[str, str]  # algorithm → hex digits
    uri: str = ""
    annotations: Mapping[str, str] = {}


class Provenance(msgspec.Struct, frozen=True):
    """How an entry was made: the contents of its statement."""

    build_type: str  # such as "kernel"
    external: Mapping[str, Any]  # parameters that the user chose
    internal: Mapping[str, Any]  # parameters that Blockyard added: recipe, sandbox
    inputs: tuple[Input, ...]


def of_text(name: str, text: str | bytes) -> Input:
    """An input with the sha256 of `text`."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    return Input(name, {"sha256": hashlib.sha256(data).hexdigest()})


def of_entry(name: str, path: Path, uri: str = "") -> Input:
    """An entry of the cache as input, with the sha256 of its manifest if it has one."""
    sealed = seal.load(path)
    if sealed is None:
        return Input(name, {}, uri, {"blockyard.entry": path.name})
    digest = {"sha256": sealed.manifest_sha256}
    return Input(name, digest, uri, {"blockyard.entry": path.name, "blockyard.of": seal.MANIFEST})


def statement(
    path: Path, provenance: Provenance, started_s: float, finished_s: float
) -> dict[str, Any]:
    """The statement about the files below `path`; times are seconds since the epoch."""
    return {
        "_type": STATEMENT,
        "subject": _subjects(path),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"urn:blockyard:build:{provenance.build_type}:v1",
                "externalParameters": dict(provenance.external),
                "internalParameters": dict(provenance.internal),
                "resolvedDependencies": [_descriptor(source) for source in provenance.inputs],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {"startedOn": _time(started_s), "finishedOn": _time(finished_s)},
            },
        },
    }


def write_statement(path: Path, provenance: Provenance, started_s: float) -> None:
    """Writes ``provenance.json`` into an entry that has just been made."""
    trees.remove(path / FILE)
    encoded = msgspec.json.encode(_hidden(statement(path, provenance, started_s, time.time())))
    durable.write(path / FILE, msgspec.json.format(encoded, indent=1) + b"\n")


def _hidden(value: Any) -> Any:
    """A copy of a JSON value with the secrets in URLs hidden."""
    if isinstance(value, str):
        return redact.text(value)
    if isinstance(value, Mapping):
        return {redact.text(name): _hidden(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(inner) for inner in value]
    return value


def _subjects(path: Path) -> list[dict[str, Any]]:
    subjects = []
    for entry in trees.walk(path):
        if entry.status and stat.S_ISREG(entry.status.st_mode):
            descriptor = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=entry.parent)
            with open(descriptor, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            subjects.append({"name": _text(entry.path), "digest": {"sha256": sha256}})
    return subjects


def _descriptor(source: Input) -> dict[str, Any]:
    described: dict[str, Any] = {"name": _text(source.name)}
    if source.uri:
        described["uri"] = _text(source.uri)
    if source.digest:
        described["digest"] = dict(source.digest)
    if source.annotations:
        described["annotations"] = dict(source.annotations)
    return described


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")  # JSON is UTF-8


def _time(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 text, as the specification requires."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
