# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of a commit are its exact bytes; repository and environment cannot change them."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

import pytest

from blockyard.kernel.catalog import Git
from blockyard.kernel.host import git as host_git
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.sources import commit, fetch, objects
from blockyard.tests.unit import repositories
from blockyard.tests.unit.repositories import KCONFIG, MAKEFILE, git

NO_TOOLS = ToolRoot(Path("/nonexistent"))


def tree_of(repository: Path, ref: str = "main") -> Path:
    return fetch("mine", Git(str(repository), ref), NO_TOOLS).path


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    return repositories.make(tmp_path / "linux", {"a/b/x.c": b"int x;\n"})


class TestFiles:
    def test_files_modes_links_and_submodules(self, linux: Path) -> None:
        (linux / "run.sh").write_bytes(b"#!/bin/sh\n")
        (linux / "run.sh").chmod(0o755)
        (linux / "a" / "link").symlink_to("../Makefile")
        git(linux, "add", "--all")
        git(linux, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
        git(linux, "commit", "--quiet", "--message=two")
        old = os.umask(0o077)
        try:
            tree = tree_of(linux)
        finally:
            os.umask(old)
        modes = {
            str(path.relative_to(tree)): path.lstat().st_mode for path in sorted(tree.rglob("*"))
        }
        assert {name: stat.S_IMODE(mode) for name, mode in modes.items() if stat.S_ISREG(mode)} == {
            "Kconfig": 0o644,
            "Makefile": 0o644,
            "a/b/x.c": 0o644,
            "run.sh": 0o755,
        }
        assert (tree / "a/b/x.c").read_bytes() == b"int x;\n"
        assert (tree / "a/link").readlink() == Path("../Makefile")
        assert (tree / "module").is_dir()

    def test_sha256_repository(self, tmp_path: Path) -> None:
        repository = repositories.make(
            tmp_path / "linux", {"x.c": b"int x;\n"}, "--object-format=sha256"
        )
        assert (tree_of(repository) / "x.c").read_bytes() == b"int x;\n"

    def test_large_file(self, tmp_path: Path) -> None:
        data = os.urandom(3 * objects.CHUNK + 1)
        repository = repositories.make(tmp_path / "linux", {"blob": data})
        assert (tree_of(repository) / "blob").read_bytes() == data

    @pytest.mark.parametrize("how", ["--bare", "--shared", "--depth=1"])
    def test_bare_shared_and_shallow_clones(self, linux: Path, tmp_path: Path, how: str) -> None:
        git(tmp_path, "clone", "--quiet", how, f"file://{linux}", "other")
        assert (tree_of(tmp_path / "other") / "a/b/x.c").is_file()

    def test_worktree_subfolder_and_revision_expression(self, linux: Path) -> None:
        second = repositories.commit(linux, {"a/b/x.c": b"int y;\n"})
        worktree = linux.parent / "w\u00e4"
        git(linux, "worktree", "add", "--quiet", "--detach", str(worktree), second)
        assert (tree_of(worktree, "HEAD") / "a/b/x.c").read_bytes() == b"int y;\n"
        assert (tree_of(linux / "a", "HEAD~1") / "a/b/x.c").read_bytes() == b"int x;\n"

    def test_file_url_is_a_local_repository(self, linux: Path) -> None:
        assert fetch("mine", Git(f"file://{linux}", "v1"), NO_TOOLS).path == tree_of(linux, "v1")
        assert not list(store.directory("clones").iterdir())


class TestConversions:
    """Conversions of a git checkout are not applied."""

    def test_line_endings_attributes_filters_and_keywords(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        witness = tmp_path / "ran"
        attributes = (
            b"*.c filter=x diff=x\n*.eol text eol=crlf\n*.sub export-subst\n"
            b"*.gone export-ignore\n*.enc working-tree-encoding=UTF-16\n*.id ident\n"
        )
        files = {
            "x.c": b"int x;\n",
            "x.eol": b"one\ntwo\n",
            "x.sub": b"$Format:%H$\n",
            "x.gone": b"here\n",
            "x.enc": b"text\n",
            "x.id": b"$Id$\n",
        }
        repository = repositories.make(tmp_path / "linux", files)
        files[".gitattributes"] = attributes  # git add would convert it
        entry = f"100644,{repositories.blob(repository, attributes)},.gitattributes"
        git(repository, "update-index", "--add", "--cacheinfo", entry)
        git(repository, "commit", "--quiet", "--message=two")
        for key, value in (
            ("core.autocrlf", "true"),
            ("filter.x.smudge", f"touch {witness}; echo changed"),
            ("filter.x.process", f"touch {witness}"),
            ("filter.x.required", "true"),
            ("diff.x.textconv", f"touch {witness}; echo"),
            ("core.fsmonitor", f"touch {witness}; false"),
            ("core.pager", f"touch {witness}; cat"),
            ("pager.rev-parse", f"touch {witness}; cat"),
            ("core.sshCommand", f"touch {witness}; false"),
        ):
            git(repository, "config", key, value)
        config = tmp_path / "gitconfig"
        config.write_text("[core]\n\tautocrlf = true\n\teol = crlf\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        tree = tree_of(repository)
        contents = {name: (tree / name).read_bytes() for name in files}
        assert contents == files
        assert not witness.exists()

    def test_replaced_and_grafted_commits(self, linux: Path) -> None:
        first = git(linux, "rev-parse", "HEAD")
        second = repositories.commit(linux, {"Makefile": b"VERSION = 9\nPATCHLEVEL = 9\n"})
        third = repositories.commit(linux, {"x": b""})
        git(linux, "replace", first, second)
        (linux / ".git/info").mkdir(exist_ok=True)
        (linux / ".git/info/grafts").write_text(f"{third} {first}\n")
        assert (tree_of(linux, first) / "Makefile").read_bytes() == MAKEFILE
        assert str(fetch("m", Git(str(linux), "main~1"), NO_TOOLS).origin).endswith(second)

    def test_replaced_file(self, linux: Path) -> None:
        old, new = (repositories.blob(linux, data) for data in (b"int x;\n", b"int y;\n"))
        git(linux, "replace", old, new)
        assert (tree_of(linux) / "a/b/x.c").read_bytes() == b"int x;\n"


class TestEnvironment:
    @pytest.mark.parametrize(
        "names",
        [
            ("GIT_DIR",),
            ("GIT_DIR", "GIT_WORK_TREE"),
            ("GIT_COMMON_DIR",),
            ("GIT_OBJECT_DIRECTORY",),
            ("GIT_ALTERNATE_OBJECT_DIRECTORIES",),
            ("GIT_INDEX_FILE",),
            ("GIT_NAMESPACE",),
            ("GIT_SHALLOW_FILE",),
            ("GIT_EXEC_PATH",),
        ],
    )
    def test_git_variables_of_the_environment_are_ignored(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
    ) -> None:
        other = repositories.make(linux.parent / "other", {"a/b/x.c": b"other\n"})
        for name in names:
            folder = other / ".git" / ("objects" if "OBJECT" in name else "")
            monkeypatch.setenv(name, str(folder))
        tree = fetch("mine", Git(str(linux), "v1"), NO_TOOLS)
        assert (tree.path / "a/b/x.c").read_bytes() == b"int x;\n"
        assert str(tree.origin).endswith(git(linux, "rev-parse", "v1"))

    def test_git_configuration_in_the_environment_is_ignored(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.autocrlf'='true' broken")
        monkeypatch.setenv("GIT_CONFIG_COUNT", "nonsense")
        assert (tree_of(linux) / "a/b/x.c").read_bytes() == b"int x;\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_repository_of_another_user_needs_safe_directory(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "gitconfig").write_text("")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
        monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        monkeypatch.delenv("SUDO_UID", raising=False)
        for path in (linux, linux / ".git"):
            os.chown(path, 12345, 12345)
        with pytest.raises(UsageError, match="belongs to another user") as caught:
            tree_of(linux)
        assert f"git config --global --add safe.directory '{linux}'" in caught.value.hint
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(linux))
        assert tree_of(linux).is_dir()
        monkeypatch.delenv("GIT_CONFIG_COUNT")
        with pytest.raises(UsageError, match="belongs to another user"):
            tree_of(linux)
        (tmp_path / "gitconfig").write_text(f"[safe]\n\tdirectory = {linux}\n")
        assert tree_of(linux).is_dir()


class TestRepositories:
    def test_worktree_of_a_moved_repository_is_a_usage_error(self, linux: Path) -> None:
        worktree = linux.parent / "worktree"
        git(linux, "worktree", "add", "--quiet", "--detach", str(worktree))
        linux.rename(linux.parent / "moved")
        with pytest.raises(UsageError, match="worktree whose repository is not here") as caught:
            tree_of(worktree, "HEAD")
        assert str(linux) in caught.value.what

    def test_partial_clone_fetches_nothing(self, linux: Path, tmp_path: Path) -> None:
        """The repository's configuration would choose the program that fetches missing objects."""
        witness = tmp_path / "ran"
        git(linux, "config", "uploadpack.allowFilter", "true")
        options = ["--quiet", "--bare", "--filter=blob:none"]
        git(tmp_path, "clone", *options, f"file://{linux}", "partial")
        partial = tmp_path / "partial"
        git(partial, "config", "remote.origin.url", f"ext::touch {witness}")
        git(partial, "config", "protocol.ext.allow", "always")
        git(partial, "config", "protocol.allow", "always")
        with pytest.raises(Failure, match="partial clone") as caught:
            tree_of(partial)
        assert "worktree add" in caught.value.hint
        missing = "1" * 40
        git(partial, "update-ref", "refs/heads/x", git(partial, "rev-parse", "main"))
        (partial / "refs/heads/x").write_text(f"{missing}\n")
        with pytest.raises(UsageError, match="has no commit"):
            tree_of(partial, "x")
        assert not witness.exists()
        assert not list(store.directory("sources").glob(".making-*"))

    def test_object_with_other_contents_is_an_error(self, linux: Path) -> None:
        """A broken disk, or an attacker who replaces a file of the commit."""
        name = git(linux, "rev-parse", "main:a/b/x.c")
        path = linux / ".git/objects" / name[:2] / name[2:]
        path.chmod(0o644)
        path.write_bytes(zlib.compress(b"blob 7\0int y;\n"))
        with pytest.raises(Failure, match=f"object {name} is damaged|cannot read"):
            tree_of(linux)
        assert not list(store.directory("sources").iterdir())

    def test_pipe_among_the_objects_times_out(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_git, "LOCAL_S", 0.5)
        pack = linux / ".git/objects/pack"
        (pack / f"pack-{'1' * 40}.pack").touch()
        os.mkfifo(pack / f"pack-{'1' * 40}.idx")
        git_dir = objects.Repository(linux / ".git/objects", "mine")
        with pytest.raises(Failure, match=r"no answer for 0.5 s"):
            commit.write(git_dir, git(linux, "rev-parse", "v1"), linux.parent / "out")

    def test_commit_with_a_dot_config_is_a_usage_error(self, linux: Path) -> None:
        repositories.commit(linux, {".config": b""})
        with pytest.raises(UsageError, match="was built in place") as caught:
            tree_of(linux)
        assert "remove the file from the commit" in caught.value.hint

    def test_pipe_in_place_of_the_git_config_times_out(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_git, "LOCAL_S", 0.5)
        (linux / ".git/config").unlink()
        os.mkfifo(linux / ".git/config")
        with pytest.raises(Failure, match=r"reading .* with git: no (answer|end)"):
            tree_of(linux)


class TestHostileTrees:
    @pytest.mark.parametrize("name", [b".git", b".GIT", b"..", b".", b"", b"a/b", b"../x", b"/x"])
    def test_unsafe_names_are_refused(self, linux: Path, name: bytes) -> None:
        bad = repositories.crafted(linux, ("100644", b"Makefile", MAKEFILE), ("100644", name, b"x"))
        with pytest.raises(Failure, match="has an entry with the invalid name"):
            tree_of(linux, bad)

    def test_link_and_folder_of_the_same_name_are_refused(
        self, linux: Path, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        inner = git(linux, "rev-parse", "main:a")
        bad = repositories.crafted(
            linux, ("120000", b"d", str(outside).encode()), ("40000", b"d", inner.encode())
        )
        with pytest.raises(Failure, match="two entries with the same name"):
            tree_of(linux, bad)
        assert not list(outside.iterdir())

    @pytest.mark.parametrize("mode", ["10644", "20644", "60644", "140000"])
    def test_modes_of_special_files_are_refused(self, linux: Path, mode: str) -> None:
        bad = repositories.crafted(linux, (mode, b"dev", b"x"))
        with pytest.raises(Failure, match="has the invalid mode"):
            tree_of(linux, bad)

    def test_setuid_bit_is_dropped(self, linux: Path) -> None:
        files = [("100644", b"Kconfig", KCONFIG), ("100644", b"Makefile", MAKEFILE)]
        made = repositories.crafted(linux, *files, ("104755", b"suid", b"x"))
        assert stat.S_IMODE((tree_of(linux, made) / "suid").stat().st_mode) == 0o755

    def test_few_objects_with_billions_of_files_are_refused(
        self, linux: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(commit, "MOST_FILES", 10_000)
        tree = git(linux, "rev-parse", "main^{tree}")
        for _ in range(12):
            lines = "".join(f"040000 tree {tree}\t{n:02}\n" for n in range(10))
            tree = git(linux, "mktree", stdin=lines.encode())
        bomb = git(linux, "commit-tree", tree, "-m", "x")
        with pytest.raises(Failure, match="more than 10000 files"):
            tree_of(linux, bomb)

    def test_deep_folders_are_refused(self, linux: Path) -> None:
        tree = git(linux, "rev-parse", "main^{tree}")
        for _ in range(commit.DEEPEST + 1):
            tree = git(linux, "mktree", stdin=f"040000 tree {tree}\td\n".encode())
        with pytest.raises(Failure, match="deep"):
            tree_of(linux, git(linux, "commit-tree", tree, "-m", "x"))

    def test_too_long_name_is_an_error(self, linux: Path) -> None:
        bad = repositories.crafted(linux, ("100644", b"x" * 300, b"x"))
        with pytest.raises(Failure, match="File name too long"):
            tree_of(linux, bad)
