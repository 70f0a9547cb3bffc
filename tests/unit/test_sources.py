# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel sources: the forms of a name, and folders, git, tarballs and their identity."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blockyard.kernel import artifact
from blockyard.kernel.catalog import Directory, Entry, Git, Tarball, find
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.sources import directory, fetch
from blockyard.kernel.sources.origin import (
    DebianPackage,
    GitCommit,
    Other,
    Patched,
    TarballFile,
    UserDirectory,
)
from blockyard.kernel.sources.tree import Tree, checked, version
from blockyard.tests.unit import samples
from blockyard.tests.unit.repositories import git

MAKEFILE = "VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\nNAME = Baby\n"
NO_TOOLS = ToolRoot(Path("/nonexistent"))
SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    path = tmp_path / "linux"
    (path / "drivers" / "block").mkdir(parents=True)
    (path / "Makefile").write_text(MAKEFILE)
    (path / "Kconfig").write_text('mainmenu "Linux"\n')
    (path / "drivers" / "block" / "rnull.rs").write_text("// nothing\n")
    return path


class TestForms:
    @pytest.mark.parametrize(
        ("text", "entry"),
        [
            ("./linux", Directory("./linux")),
            ("/path/linux", Directory("/path/linux")),
            (".", Directory(".")),
            ("/path/linux#v7.2", Git("/path/linux", "v7.2")),
            ("https://host/linux.git#next", Git("https://host/linux.git", "next")),
            ("linux-7.3.tar.xz", Tarball("linux-7.3.tar.xz")),
            (
                f"https://host/linux-7.3.tar.gz sha256={SHA256}",
                Tarball("https://host/linux-7.3.tar.gz", SHA256),
            ),
        ],
    )
    def test_form_is_recognized(self, text: str, entry: object) -> None:
        assert find(text) == entry

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("7.33", "unknown kernel"),
            ("/path/linux#", "no commit in"),
            ("#v7.2", "no commit in"),
            ("/path/linux#--upload-pack=x", "no commit in"),
            ("linux.tar.xz sha256=12", "invalid sha256 '12': expected 64 hex digits"),
            ("linux.tar.xz sha256=", "invalid sha256"),
            ("~nobody-has-this-name/linux#v7.2", "no such user"),
        ],
    )
    def test_invalid_form_is_a_usage_error(self, text: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            find(text)


class TestTree:
    def test_version_comes_from_the_makefile(self) -> None:
        assert version(MAKEFILE) == "7.4.0-rc2"
        assert (
            version("VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\n") == "6.12.117"
        )
        assert version("all:\n\ttrue\n") == ""

    def test_source_tree_is_accepted(self, linux: Path) -> None:
        assert checked(linux, "it") == linux

    def test_other_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not a kernel source tree"):
            checked(tmp_path, str(tmp_path))

    @pytest.mark.parametrize("product", [".config", "include/config"])
    def test_tree_built_in_place_is_refused(self, linux: Path, product: str) -> None:
        (linux / product).mkdir(parents=True)
        with pytest.raises(UsageError, match="was built in place") as caught:
            checked(linux, "it")
        assert "mrproper" in caught.value.hint


class TestDirectory:
    def test_directory_is_used_in_place(self, linux: Path) -> None:
        tree = fetch("mine", Directory(str(linux)), NO_TOOLS)
        assert tree.path == linux
        assert tree.build_id == str(linux)
        assert tree.version == "7.4.0-rc2"

    def test_fingerprint_changes_with_the_files(self, linux: Path) -> None:
        before = directory.fingerprint(linux)
        assert directory.fingerprint(linux) == before
        source = linux / "drivers" / "block" / "rnull.rs"
        os.utime(source, ns=(1, 1))
        changed = directory.fingerprint(linux)
        assert changed != before
        source.rename(source.with_name("other.rs"))
        assert directory.fingerprint(linux) != changed

    def test_documentation_and_git_are_ignored(self, linux: Path) -> None:
        before = directory.fingerprint(linux)
        for name in (".git", "Documentation"):
            (linux / name).mkdir()
            (linux / name / "file").write_text("x")
        assert directory.fingerprint(linux) == before

    def test_kconfig_in_documentation_counts(self, linux: Path) -> None:
        before = directory.fingerprint(linux)
        (linux / "Documentation").mkdir()
        (linux / "Documentation" / "Kconfig").write_text("config WARN_MISSING_DOCUMENTS\n")
        assert directory.fingerprint(linux) != before

    def test_executable_bit_counts(self, linux: Path) -> None:
        before = directory.fingerprint(linux)
        (linux / "Makefile").chmod(0o755)
        assert directory.fingerprint(linux) != before

    def test_edit_during_use_is_detected(self, linux: Path) -> None:
        tree = fetch("mine", Directory(str(linux)), NO_TOOLS)
        assert not directory.changed(tree)
        (linux / "Makefile").touch()
        os.utime(linux / "Makefile", ns=(1, 1))
        assert directory.changed(tree)
        # the origin of a patched copy starts alike, but the copy does not change
        patched = Patched(tree.origin, 1, "01")
        assert not directory.changed(Tree(tree.path, patched, "x"))


class TestGit:
    def test_missing_ref_is_a_usage_error(self, linux: Path) -> None:
        git(linux, "init", "--quiet")
        git(linux, "add", "--all")
        git(linux, "commit", "--quiet", "--message=first")
        git(linux, "tag", "v7.4-rc2")
        with pytest.raises(UsageError, match="has no commit 'v7.4-rc3'") as caught:
            fetch("mine", Git(str(linux), "v7.4-rc3"), NO_TOOLS)
        assert "v7.4-rc2" in caught.value.hint

    def test_folder_without_a_repository_is_refused(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(UsageError, match="is not a git repository"):
            fetch("mine", Git(str(empty), "v7.2"), NO_TOOLS)


class TestTarball:
    def test_missing_file_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file"):
            fetch("mine", Tarball(str(tmp_path / "linux.tar.xz")), NO_TOOLS)

    @pytest.mark.parametrize(
        ("url", "error"),
        [
            ("http://localhost:port/x.tar.xz", Failure),
            ("http://[bad/x.tar.xz", Failure),
            ("file:///none.tar.xz", UsageError),
        ],
    )
    def test_invalid_url_is_an_error(self, url: str, error: type[Exception]) -> None:
        with pytest.raises(error, match="cannot fetch"):
            fetch("mine", Tarball(url, SHA256), NO_TOOLS)

    @pytest.mark.parametrize("entry", [Directory("~nobody-has-this-name"), Tarball("~nobody-x/y")])
    def test_unknown_user_is_a_usage_error(self, entry: Entry) -> None:
        with pytest.raises(UsageError, match="no such user"):
            fetch("mine", entry, NO_TOOLS)

    def test_url_needs_a_sha256(self) -> None:
        with pytest.raises(UsageError, match="needs a sha256"):
            fetch("mine", Tarball("https://host/linux.tar.xz"), NO_TOOLS)

    def test_wrong_sha256_is_a_failure(self, tmp_path: Path) -> None:
        tarball = tmp_path / "linux.tar"
        tarball.write_bytes(b"not what it was")
        with pytest.raises(Failure, match="has the sha256"):
            fetch("mine", Tarball(str(tarball), SHA256), NO_TOOLS)


class TestIdentity:
    def test_identity_depends_on_contents_and_not_on_the_origin(self, tmp_path: Path) -> None:
        first = Tree(tmp_path, Other("git /a main 0123"), contents="git 0123")
        second = Tree(tmp_path, Other("git /b v7 0123"), contents="git 0123")
        assert first.identity == second.identity

    def test_package_origin_is_the_identity(self, tmp_path: Path) -> None:
        assert Tree(tmp_path, Other("debian linux-source-7.3 7.3.4-1")).identity.endswith("7.3.4-1")


def test_text_of_each_origin_is_stable() -> None:
    """Cache keys depend on these texts."""
    commit = GitCommit("https://example.org/linux.git", "main", "0123")
    texts = {
        DebianPackage("linux-source-7.3", "7.3.4-1"): "debian linux-source-7.3 7.3.4-1",
        commit: "git https://example.org/linux.git main 0123",
        TarballFile("/a.tar", "01"): "tarball /a.tar sha256 01",
        UserDirectory("/linux", "02"): "directory /linux 02",
        Patched(commit, 3, "03"): "git https://example.org/linux.git main 0123 with 3 patches 03",
    }
    assert [str(origin) for origin in texts] == list(texts.values())
    assert Patched(Patched(commit, 1, "a"), 2, "b").unpatched == commit


def test_older_kernel_json_has_its_origin_as_text(tmp_path: Path) -> None:
    samples.kernel(tmp_path)
    file = tmp_path / "kernel.json"
    fields = json.loads(file.read_text()) | {"source": "tarball /a.tar sha256 01"}
    file.write_text(json.dumps(fields))
    assert artifact.load(tmp_path).info.source == Other("tarball /a.tar sha256 01")
