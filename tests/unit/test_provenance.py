# SPDX-License-Identifier: GPL-2.0-or-later
"""Provenance statements of kernels, modules and guest roots: in-toto v1 with SLSA v1."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from blockyard.kernel.build import statements
from blockyard.kernel.build import toolchain as toolchains
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import provenance, seal, store
from blockyard.kernel.host.debian import RootSpec, ToolRoot
from blockyard.kernel.host.provenance import Input, Provenance
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources.origin import DebianPackage, GitCommit, Origin
from blockyard.kernel.sources.tree import Tree

KEY = f"{1:016x}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def is_uri(text: object) -> bool:
    return isinstance(text, str) and bool(urlparse(text).scheme) and " " not in text


def check_descriptor(descriptor: dict[str, Any]) -> None:
    """Check a ResourceDescriptor (in-toto/attestation spec/v1/resource_descriptor.md)."""
    assert set(descriptor) <= {"name", "uri", "digest", "annotations"}
    assert any(descriptor.get(field) for field in ("uri", "digest", "annotations"))
    assert is_uri(descriptor.get("uri", "urn:x"))
    for algorithm, value in descriptor.get("digest", {}).items():
        lengths = {"sha256": (64,), "gitCommit": (40, 64)}[algorithm]
        assert re.fullmatch("[0-9a-f]+", value)
        assert len(value) in lengths


def check(path: Path, build_type: str) -> dict[str, Any]:
    """Check the form of a statement and its subjects; return its build definition."""
    statement = json.loads((path / provenance.FILE).read_text())
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    files = {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file() and file.name not in (seal.SEAL, seal.MANIFEST, provenance.FILE)
    }
    assert subjects == files
    assert subjects
    predicate: dict[str, Any] = statement["predicate"]
    assert set(predicate) == {"buildDefinition", "runDetails"}
    definition: dict[str, Any] = predicate["buildDefinition"]
    details = predicate["runDetails"]
    assert definition["buildType"] == f"urn:blockyard:build:{build_type}:v1"
    assert set(definition) == {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    for descriptor in definition["resolvedDependencies"]:
        check_descriptor(descriptor)
    assert is_uri(details["builder"]["id"])
    metadata = details["metadata"]
    assert re.fullmatch(TIME, metadata["startedOn"])
    assert re.fullmatch(TIME, metadata["finishedOn"])
    assert metadata["startedOn"] <= metadata["finishedOn"]
    return definition


def named(definition: dict[str, Any], name: str) -> dict[str, Any]:
    inputs = definition["resolvedDependencies"]
    return next(entry for entry in inputs if entry["name"].startswith(name))


def fill(path: Path) -> None:
    (path / "bzImage").write_bytes(b"image")
    (path / "modules").mkdir()
    (path / "modules" / "x.ko").write_bytes(b"module")


@pytest.fixture
def tools() -> ToolRoot:
    def make(path: Path) -> None:
        (path / "root").mkdir()
        (path / "versions.txt").write_text("clang 19.1\nmake 4.4\n")

    return ToolRoot(store.get("roots", KEY, "the tool root", make))


def tree(origin: Origin) -> Tree:
    def make(path: Path) -> None:
        (path / "tree").mkdir()
        (path / "tree" / "Makefile").write_text("VERSION = 7\n")

    path = store.get("sources", KEY, "a source", make)
    return Tree(path / "tree", origin, contents=f"git {COMMIT}")


def manifest_of(path: Path) -> str:
    return hashlib.sha256((path / seal.MANIFEST).read_bytes()).hexdigest()


def test_statement_of_a_kernel(tools: ToolRoot) -> None:
    source = tree(GitCommit("https://user:TOKEN@example.org/linux.git", "master", COMMIT))
    toolchain = toolchains.from_root(tools)
    fragment = Fragment("kernel/fragments/base.config", "CONFIG_BLOCK=y\n")
    job = BuildSpec(
        "https://user:TOKEN@example.org/linux.git#master",
        source,
        (fragment,),
        toolchain,
        tools,
        {"rnull": "no Rust"},
    )
    path = store.get(
        "kernels", job.key, "a kernel", fill, provenance=lambda: statements.of_kernel(job)
    )
    definition = check(path, "kernel")
    assert definition["externalParameters"]["kernel"] == "https://***@example.org/linux.git#master"
    sandbox = definition["internalParameters"]["sandbox"]
    assert sandbox["network"] is False
    assert (sandbox["readOnly"], sandbox["writable"]) == (["src"], ["out"])
    assert "make" in definition["internalParameters"]["arguments"]
    source_input = named(definition, "source: git")
    assert source_input["digest"]["gitCommit"] == COMMIT
    assert source_input["digest"]["sha256"] == manifest_of(source.path.parent)
    expected = hashlib.sha256(fragment.text.encode()).hexdigest()
    assert named(definition, "fragment kernel/fragments/base")["digest"]["sha256"] == expected
    packages = hashlib.sha256((tools.path / "versions.txt").read_bytes()).hexdigest()
    assert named(definition, "packages of the tool root")["digest"]["sha256"] == packages
    assert "TOKEN" not in (path / provenance.FILE).read_text()


def test_statement_of_a_prebuilt_kernel(tools: ToolRoot) -> None:
    files = tree(DebianPackage("linux-image-7.3-amd64", "7.3.4-1~bpo13+1"))
    path = store.get(
        "kernels",
        KEY,
        "a kernel",
        fill,
        provenance=lambda: statements.of_prebuilt("7.3-debian", KEY, 3, files, tools),
    )
    source = named(check(path, "prebuilt-kernel"), "source: debian")
    assert source["uri"] == "pkg:deb/debian/linux-image-7.3-amd64@7.3.4-1~bpo13+1"


def test_statement_of_a_module(tools: ToolRoot) -> None:
    kernel = store.get("kernels", KEY, "a kernel", fill)
    sha256 = hashlib.sha256(b"source").hexdigest()
    sandbox = Sandbox(tools.root, read_only={"src": Path("/"), "out": Path("/")})
    path = store.get(
        "modules",
        KEY,
        "a module",
        fill,
        provenance=lambda: statements.of_module(
            "x", KEY, 1, {"x.c": f"{sha256}x"}, kernel, sandbox
        ),
    )
    definition = check(path, "module")
    assert named(definition, "source x.c")["digest"] == {"sha256": sha256}
    assert named(definition, "kernel")["digest"]["sha256"] == manifest_of(kernel)


def test_statement_of_a_guest_root(tools: ToolRoot) -> None:
    spec = RootSpec("trixie", ("fio", "nvme-cli"))
    packages = {"fio": "3.39-1", "libc6": "2.41-12"}
    path = store.get(
        "images",
        spec.key,
        "the guest root",
        fill,
        provenance=lambda: statements.of_guest_root(spec, 3, packages, tools),
    )
    definition = check(path, "guest-root")
    assert definition["externalParameters"] == {"suite": "trixie", "packages": ["fio", "nvme-cli"]}
    assert named(definition, "libc6")["uri"] == "pkg:deb/debian/libc6@2.41-12"


def test_changed_statement_breaks_the_seal(tools: ToolRoot) -> None:
    made_from = Provenance("kernel", {}, {}, (Input("x", {"sha256": "0" * 64}),))
    path = store.get("kernels", KEY, "a kernel", fill, provenance=lambda: made_from)
    (path / provenance.FILE).write_text("{}")
    store.forget()
    assert store.use("kernels", KEY) is None


def test_statement_left_by_a_build_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    path = tmp_path / "entry"
    path.mkdir()
    fill(path)
    (path / provenance.FILE).symlink_to(tmp_path / "victim")
    provenance.write_statement(path, Provenance("kernel", {}, {}, ()), time.time())
    check(path, "kernel")
    assert (tmp_path / "victim").read_text() == "precious"


def test_secrets_in_urls_are_hidden(tmp_path: Path) -> None:
    """Passwords with a slash, tokens in queries, and headers, in any field."""
    (tmp_path / "entry").mkdir()
    url = "https://me:TOKEN/x@example.org/a.git?private_token=TOKEN&ref=main"
    made_from = Provenance(
        "kernel",
        {"kernel": url, "options": [url, {url: "Authorization: Basic TOKEN"}]},
        {"jobs": 2, "network": False},
        (Input(url, {}, url, {"from": url}),),
    )
    provenance.write_statement(tmp_path / "entry", made_from, time.time())
    text = (tmp_path / "entry" / provenance.FILE).read_text()
    assert "TOKEN" not in text
    assert text.count("https://***@example.org/a.git?private_token=***&ref=main") == 6
    definition = json.loads(text)["predicate"]["buildDefinition"]
    assert definition["internalParameters"] == {"jobs": 2, "network": False}


def test_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "a\udcffb").write_text("x")
    inputs = (provenance.of_text("source \udcff", "x\udcff"),)
    provenance.write_statement(entry, Provenance("module", {}, {}, inputs), time.time())
    statement = json.loads((entry / provenance.FILE).read_text())
    assert statement["subject"][0]["name"] == "a\\xffb"
