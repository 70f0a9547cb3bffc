# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel names, URLs and paths that a user types: each works or gets one plain message."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.build import toolchain
from blockyard.kernel.catalog import Directory, Git, Tarball, catalog, find
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources import directory, fetch, series
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree, version
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.unit import repositories

NO_TOOLS = ToolRoot(Path("/nonexistent"))
SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    path = tmp_path / "linux"
    (path / "block").mkdir(parents=True)
    (path / "Makefile").write_bytes(repositories.MAKEFILE)
    (path / "Kconfig").write_bytes(repositories.KCONFIG)
    (path / "block" / "x.c").write_text("int x;\n")
    return path


class TestForms:
    @pytest.mark.parametrize(
        ("text", "entry"),
        [
            ("me@host:linux.git#v7", Git("me@host:linux.git", "v7")),
            ("ssh://me@host/x#a/b", Git("ssh://me@host/x", "a/b")),
            ("https://h/x.tar.gz?token=1", Tarball("https://h/x.tar.gz?token=1")),
            (f"https://h/x?f=tgz sha256={SHA256}", Tarball("https://h/x?f=tgz", SHA256)),
        ],
    )
    def test_urls(self, text: str, entry: object) -> None:
        assert find(text) == entry

    @pytest.mark.parametrize(
        "text", ["https://host/linux.git", "me@host:linux.git", "git://host/linux", "ssh://h/x"]
    )
    def test_url_without_a_ref_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="no commit in") as caught:
            find(text)
        assert f"write {text}#REF" in caught.value.hint

    def test_token_in_a_url_is_not_shown(self) -> None:
        with pytest.raises(UsageError) as caught:
            find("https://me:S3CRET@host/linux.git")
        assert "S3CRET" not in str(caught.value)

    def test_bare_folder_name_gets_a_hint(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(linux.parent)
        with pytest.raises(UsageError, match="unknown kernel 'linux'") as caught:
            find("linux")
        assert caught.value.hint == "write ./linux for the folder"
        assert find("./linux") == Directory("./linux")

    def test_number_sign_in_a_folder_name(self, linux: Path) -> None:
        folder = linux.rename(linux.parent / "a#b")
        assert find(str(folder)) == Directory(str(folder))
        assert find(f"{folder}#v1") == Git(str(folder), "v1")

    def test_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such folder: .*/gone"):
            fetch("mine", find(f"{tmp_path}/gone#v1"), NO_TOOLS)


class TestOddText:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("b\udcfcx#v1", "not UTF-8"),
            ("./b\udcfcx", "not UTF-8"),
            ("/a\0b", "control characters"),
            ("/a\nb#v1", "control characters"),
            ("\x1b[31m", "control characters"),
            ("/" + "x" * 5000, "5001 characters"),
        ],
    )
    def test_unreadable_or_overlong_name_is_a_usage_error(self, text: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            find(text)

    def test_current_folder_that_is_not_utf8_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xfcx"))
        repositories.make(folder)
        monkeypatch.chdir(folder)
        for text in (".", ".#v1"):
            with pytest.raises(UsageError, match="bytes that are not UTF-8"):
                fetch("mine", find(text), NO_TOOLS)
        (tmp_path / "link").symlink_to(folder)
        assert fetch("mine", find(f"{tmp_path}/link#v1"), NO_TOOLS).version == "7.4.0"

    def test_odd_text_in_the_user_catalog_is_refused(self, home: Path) -> None:
        path = home / "config" / "blockyard" / "kernels.toml"
        path.parent.mkdir(parents=True)
        path.write_text(
            '[kernel.a]\nkind = "directory"\npath = "/a\\u0000b"\n'
            '[kernel.b]\nkind = "git"\nrepository = "/\\u0000"\nref = "x"\n'
            '[kernel.c]\nkind = "git"\nrepository = "."\nref = "x\\u0000"\n'
            '[kernel.d]\nkind = "tarball"\nlocation = "\\u0000.tar"\n'
        )
        catalog.cache_clear()
        try:
            for name in "abcd":
                with pytest.raises(UsageError):
                    fetch(name, find(name), NO_TOOLS)
            path.write_text("a = " + "[" * 5000)
            catalog.cache_clear()
            with pytest.raises(UsageError, match="nests more than 16 levels deep"):
                find("7.3")
        finally:
            catalog.cache_clear()

    def test_random_text_raises_only_plain_errors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BLOCKYARD_SERVER_SILENCE_S", "1")
        pieces = [".", "..", "~", "/", "#", ":", "@", "://", "file://", "git", "x", "-", " ", "?"]
        pieces += [
            "sha256=",
            ".tar",
            "\0",
            "\n",
            "\udcff",
            "ä",
            "\u202e",
            "%00",
            "*",
            "{",
            "x" * 300,
        ]
        rng = random.Random(7)
        for _ in range(5_000):
            text = "".join(rng.choices(pieces, k=rng.randint(0, 7)))
            try:
                entry = find(text)
                if not (isinstance(entry, Git | Tarball) and _needs_network(text)):
                    fetch(text, entry, NO_TOOLS)
            except BlockyardError as error:
                assert str(error)
            else:
                assert KernelSpec(text).checked().name


def _needs_network(text: str) -> bool:
    return ":" in text and not text.startswith("file://")


class TestPaths:
    def test_setting_with_an_unknown_user_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOCKYARD_CACHE", "~nosuch-user/x")
        settings.cache_clear()
        with pytest.raises(UsageError, match="the setting cache.*no such user: ~nosuch"):
            store.directory("logs")

    def test_removed_current_folder_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linux: Path
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        for text in ("./linux", ".", "x.tar", "./linux#v1", "~nosuch-user/x"):
            with pytest.raises(UsageError, match="removed|no such user"):
                fetch("mine", find(text), NO_TOOLS)
        monkeypatch.setenv("BLOCKYARD_CACHE", "cache")
        settings.cache_clear()
        with pytest.raises(UsageError, match="the setting cache.*current folder was removed"):
            store.directory("logs")
        assert find(str(linux)) == Directory(str(linux))

    def test_paths_that_are_not_utf8_have_distinct_keys(self) -> None:
        keys = {store.digest("x", text, {"a": [text]}) for text in ("b\udcfc", "b\udcfd", "b")}
        assert len(keys) == 3


class TestTree:
    def test_tree_built_in_place_is_refused_with_hints(self, linux: Path) -> None:
        (linux / ".config").touch()
        with pytest.raises(UsageError, match="was built in place") as caught:
            fetch("mine", Directory(str(linux)), NO_TOOLS)
        assert "#HEAD" not in caught.value.hint
        (linux / ".git").mkdir()
        with pytest.raises(UsageError) as caught:
            fetch("mine", Directory(str(linux)), NO_TOOLS)
        for words in (f"{linux}#HEAD", "worktree add", "mrproper", "save your .config"):
            assert words in caught.value.hint

    def test_sockets_and_pipes_are_ignored(self, linux: Path, tmp_path: Path) -> None:
        before = directory.fingerprint(linux)
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.bind(str(linux / "s"))
            os.mkfifo(linux / "block" / "guest.in")
            (linux / "suid").write_text("")
            (linux / "suid").chmod(0o4755)
            (linux / "block" / "link").symlink_to("x.c")
            (linux / ".git").mkdir()
            tree = fetch("mine", Directory(str(linux)), NO_TOOLS)
            series._copy(tree, tmp_path / "copy")
        copied = {
            str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")
        }
        assert copied == {"Makefile", "Kconfig", "block", "block/x.c", "block/link", "suid"}
        assert (tmp_path / "copy/block/link").readlink() == Path("x.c")
        assert (tmp_path / "copy/suid").stat().st_mode & 0o7777 == 0o755
        for name in ("suid", "block/link"):
            (linux / name).unlink()
        assert directory.fingerprint(linux) == before

    def test_tree_that_changes_during_the_copy_is_a_failure(
        self, linux: Path, tmp_path: Path
    ) -> None:
        tree = fetch("mine", Directory(str(linux)), NO_TOOLS)
        (linux / "block" / "new.c").write_text("")
        with pytest.raises(Failure, match="changed while it was copied"):
            series._copy(tree, tmp_path / "copy")

    def test_copy_of_a_cached_tree_uses_hard_links(self, linux: Path, tmp_path: Path) -> None:
        series._copy(Tree(linux, Other("tarball x")), tmp_path / "copy")
        assert (tmp_path / "copy/block/x.c").samefile(linux / "block/x.c")

    def test_very_deep_tree_is_read(self, linux: Path) -> None:
        before = directory.fingerprint(linux)
        opened = os.open(linux, os.O_RDONLY)
        try:
            for _ in range(1500):
                os.mkdir("d", dir_fd=opened)
                inner = os.open("d", os.O_RDONLY, dir_fd=opened)
                os.close(opened)
                opened = inner
            assert directory.fingerprint(linux) == before  # folders alone do not count
            assert not Tree(linux, Other("deep")).defines("NOTHING")
        finally:
            os.close(opened)
            subprocess.run(["rm", "-rf", str(linux)], check=True)  # pytest's cleanup is recursive

    @pytest.mark.parametrize("target", ["/proc/kmsg", "/dev/zero", "/etc/passwd", "FIFO"])
    def test_script_that_is_a_link_or_fifo_is_not_read(self, linux: Path, target: str) -> None:
        (linux / "scripts").mkdir()
        script = linux / "scripts" / "min-tool-version.sh"
        if target == "FIFO":
            os.mkfifo(script)
        else:
            script.symlink_to(target)
        assert toolchain.minimum(Tree(linux, Other(f"with {target}")), "rustc") == ""

    def test_long_files_are_read_in_linear_time(self, linux: Path) -> None:
        (linux / "scripts").mkdir()
        script = linux / "scripts" / "min-tool-version.sh"
        script.write_text("case x in\n" + "rustc)\n" * 100_000)
        assert toolchain.minimum(Tree(linux, Other("long")), "rustc") == ""
        assert version("VERSION = 7\nPATCHLEVEL = " + " " * 300_000 + "4\n") == "7.4.0"
