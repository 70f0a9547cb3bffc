# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a module's build can read; links and pipes must not lead outside."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.host.untrusted import FolderLimits
from blockyard.modules import folder
from blockyard.modules.folder import Sources, sources, work_tree


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A module's folder beside a folder of shared headers, outside of git."""
    folder = tmp_path / "top" / "mine"
    folder.mkdir(parents=True)
    (folder / "Kbuild").write_text("obj-m := mine.o\n")
    (folder / "mine.c").write_text('#include "common/x.h"\n')
    common = tmp_path / "top" / "common"
    common.mkdir()
    (common / "x.h").write_text('#include "y.h"\n')
    (common / "y.h").write_text("")
    (tmp_path / "top" / "alone.h").write_text("")
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.fixture
def repository(module: Path) -> Path:
    """The same folder in a git work tree."""
    subprocess.run(["git", "init", "--quiet", module.parent], check=True)
    return module


def names(inputs: Sources) -> set[str]:
    return set(inputs.files) | set(inputs.links)


class TestModuleFiles:
    def test_plain_folder(self, module: Path) -> None:
        inputs = sources(module)
        assert (inputs.root, inputs.subfolder) == (module, ".")
        assert names(inputs) == {"Kbuild", "mine.c"}

    def test_build_output_is_ignored(self, module: Path) -> None:
        before = sources(module)
        for name in ("mine.o", "mine.ko", "mine.mod", "mine.mod.c", ".mine.o.cmd", "modules.order"):
            (module / name).write_text("of another kernel")
        (module / ".git").mkdir()
        (module / ".git" / "HEAD").write_text("x")
        assert sources(module) == before

    def test_tests_and_results_are_ignored(
        self, module: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """pytest writes results there, and a changed test must not rebuild the module."""
        before = sources(module)
        monkeypatch.setenv("BLOCKYARD_RESULTS", str(module / "results"))
        settings.cache_clear()
        for name in ("results/run/plan.json", "tests/test_x.py", "tests/conftest.py", "test_y.py"):
            (module / name).parent.mkdir(parents=True, exist_ok=True)
            (module / name).write_text("")
        assert sources(module) == before
        (module / "tests" / "make_header.py").write_text("")
        assert names(sources(module)) - names(before) == {"tests/make_header.py"}

    def test_shipped_object_is_a_source(self, module: Path) -> None:
        (module / "blob.o_shipped").write_bytes(b"\x7fELF")
        assert "blob.o_shipped" in names(sources(module))

    def test_subfolders_and_executable_bits_are_kept(self, module: Path, tmp_path: Path) -> None:
        (module / "more").mkdir()
        (module / "more" / "run.sh").write_text("#!/bin/sh\n")
        (module / "more" / "run.sh").chmod(0o700)
        inputs = sources(module)
        assert inputs.files["more/run.sh"].endswith("x")
        copied = inputs.copy(tmp_path / "copy")
        assert (copied / "more" / "run.sh").stat().st_mode & 0o777 == 0o755
        assert (copied / "mine.c").stat().st_mode & 0o777 == 0o644
        assert (copied / "mine.c").read_text() == (module / "mine.c").read_text()

    def test_pipes_and_sockets_are_ignored(
        self, module: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(module / "pipe.c")
        monkeypatch.chdir(module)  # the path of a socket is limited to 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.c")
            assert names(sources(module)) == {"Kbuild", "mine.c"}

    def test_huge_sparse_file_is_refused(self, module: Path) -> None:
        with open(module / "huge.c", "wb") as file:
            file.truncate(100 << 30)
        with pytest.raises(UsageError, match=r"mine has more than 512 MiB of files, up to huge.c"):
            sources(module)

    def test_deep_folder_is_refused(self, module: Path) -> None:
        (module / "/".join(["d"] * 100)).mkdir(parents=True)
        with pytest.raises(UsageError, match="folders are nested more than 64 deep"):
            sources(module)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can read all files")
    def test_unreadable_file_is_a_usage_error(self, module: Path) -> None:
        (module / "mine.c").chmod(0)
        with pytest.raises(UsageError, match=r"cannot read .*/mine.c: .*Permission denied"):
            sources(module)

    def test_name_that_is_not_utf8_is_refused(self, module: Path) -> None:
        (module / os.fsdecode(b"\xff.c")).write_text("")
        with pytest.raises(UsageError, match="its name is not UTF-8 text"):
            sources(module)

    def test_file_that_changes_during_the_copy_is_an_error(
        self, module: Path, tmp_path: Path
    ) -> None:
        inputs = sources(module)
        (module / "mine.c").write_text("other")
        with pytest.raises(Failure, match="mine.c changed while it was copied"):
            inputs.copy(tmp_path / "copy")


class TestLinks:
    def test_link_inside_the_folder_is_kept(self, module: Path, tmp_path: Path) -> None:
        (module / "other.c").symlink_to("mine.c")
        (module / "absolute.c").symlink_to(module / "mine.c")
        inputs = sources(module)
        assert inputs.links == {"other.c": "mine.c", "absolute.c": "mine.c"}
        copied = inputs.copy(tmp_path / "copy")
        assert (copied / "absolute.c").resolve() == copied / "mine.c"

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "/proc/kmsg", "/dev/zero"])
    def test_link_outside_of_the_work_tree_is_refused(self, repository: Path, target: str) -> None:
        (repository / "x.h").symlink_to(target)
        with pytest.raises(UsageError, match="x.h is a link to .*, which the build cannot see"):
            sources(repository)

    def test_link_into_the_work_tree_is_followed(self, repository: Path, tmp_path: Path) -> None:
        (repository / "common").symlink_to("../common")
        inputs = sources(repository)
        assert (inputs.root, inputs.subfolder) == (repository.parent, "mine")
        assert names(inputs) == {
            "mine/Kbuild",
            "mine/mine.c",
            "mine/common",
            "common/x.h",
            "common/y.h",
        }
        copied = inputs.copy(tmp_path / "copy")
        assert (copied / "common" / "x.h").read_text() == '#include "y.h"\n'

    def test_link_outside_of_the_folder_needs_a_work_tree(self, module: Path) -> None:
        (module / "common").symlink_to("../common")
        with pytest.raises(UsageError, match="common is a link to .*/top/common") as caught:
            sources(module)
        assert "only the module's folder (it has no git work tree)" in caught.value.hint

    def test_link_into_a_named_folder_is_followed(self, module: Path) -> None:
        (module / "common").symlink_to("../common")
        inputs = sources(module, [module.parent / "common"])
        assert "common/x.h" in names(inputs)

    def test_link_into_dot_git_is_refused(self, repository: Path) -> None:
        (repository / "config").symlink_to("../.git/config")
        with pytest.raises(UsageError, match="config is a link to"):
            sources(repository)

    def test_dangling_link_is_ignored(self, module: Path) -> None:
        (module / "gone.h").symlink_to("/nowhere/at/all")
        assert "gone.h" not in names(sources(module))

    def test_loops_of_links_end(self, repository: Path) -> None:
        (repository / "loop").symlink_to("loop")
        (repository / "self").symlink_to(".")
        (repository.parent / "common" / "back").symlink_to("../mine")
        (repository / "common").symlink_to("../common")
        inputs = sources(repository)
        assert "mine/loop" not in names(inputs)
        assert inputs.links["mine/self"] == "."


class TestNamedFiles:
    def test_included_files_of_the_parent_folder(self, repository: Path) -> None:
        (repository / "mine.c").write_text('#include "../common/x.h"\n#include "../alone.h"\n')
        inputs = sources(repository)
        assert names(inputs) == {
            "mine/Kbuild",
            "mine/mine.c",
            "common/x.h",
            "common/y.h",
            "alone.h",
        }

    @pytest.mark.parametrize("variable", ["$(src)", "$(PWD)", "$(M)"])
    def test_include_folder_of_a_makefile(self, repository: Path, variable: str) -> None:
        (repository / "Kbuild").write_text(f"ccflags-y := -I{variable}/../common\n")
        assert "common/y.h" in names(sources(repository))

    def test_parent_as_an_include_folder(self, repository: Path) -> None:
        (repository / "Kbuild").write_text("ccflags-y := -I$(src)/..\n")
        assert "common/y.h" in names(sources(repository))

    def test_path_attribute_of_rust(self, repository: Path) -> None:
        (repository.parent / "common" / "x.rs").write_text("")
        (repository / "mine.rs").write_text('#[path = "../common/x.rs"]\nmod x;\n')
        assert "common/x.rs" in names(sources(repository))

    def test_named_file_needs_a_work_tree(self, module: Path) -> None:
        (module / "mine.c").write_text('#include "../common/x.h"\n')
        inputs = sources(module)
        assert (inputs.subfolder, names(inputs)) == (".", {"Kbuild", "mine.c"})
        assert inputs.unseen == (
            f"{module}/mine.c names ../common/x.h, which the build cannot see: copy it into the "
            "folder, or keep both in one git work tree",
        )

    def test_large_neighbour_folder_is_reported(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "OTHERS", FolderLimits(files=1))
        (repository / "Kbuild").write_text("ccflags-y := -I$(src)/../common\n")
        inputs = sources(repository)
        assert inputs.subfolder == "."
        assert "has more than 1 files" in inputs.unseen[0]

    def test_only_the_named_file_of_a_large_neighbour_is_copied(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "OTHERS", FolderLimits(files=1))
        (repository / "mine.c").write_text('#include "../common/y.h"\n')
        assert names(sources(repository)) == {"mine/Kbuild", "mine/mine.c", "common/y.h"}

    def test_links_of_a_neighbour_folder_are_ignored(self, repository: Path) -> None:
        (repository / "mine.c").write_text('#include "../common/y.h"\n')
        (repository.parent / "common" / "z.h").symlink_to("/etc/passwd")
        inputs = sources(repository)
        assert "common/x.h" in names(inputs)
        assert "common/z.h" not in names(inputs)

    def test_number_of_names_is_limited(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "MOST_NAMES", 10)
        text = "".join(f'#include "../gone{number}.h"\n' for number in range(20))
        (repository / "mine.c").write_text(text + '#include "../common/x.h"\n')
        assert names(sources(repository)) == {"Kbuild", "mine.c"}

    def test_named_file_outside_of_the_work_tree_is_ignored(self, repository: Path) -> None:
        (repository / "mine.c").write_text('#include "../../secret"\n')
        assert names(sources(repository)) == {"Kbuild", "mine.c"}


class TestWorkTree:
    def test_folder_outside_of_git(self, module: Path) -> None:
        assert work_tree(module) is None

    def test_top_of_a_work_tree(self, repository: Path) -> None:
        assert work_tree(repository) == repository.parent

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_git_folder_of_another_user_is_ignored(self, repository: Path) -> None:
        os.chown(repository.parent / ".git", 12345, 12345)
        assert work_tree(repository) is None
        os.chown(repository.parent, 12345, 12345)
        assert work_tree(repository) == repository.parent


class TestStart:
    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        (tmp_path / "base" / "a" / "b").mkdir(parents=True)
        for name in ("a/x", "a/b/y", "z"):
            (tmp_path / "base" / name).touch()
        return tmp_path / "base"

    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            (".", ["z", "a/x", "a/b/y"]),
            ("a", ["a/x", "a/b/y"]),
            ("a/b", ["a/b/y"]),
            ("gone", []),
        ],
    )
    def test_walk_starts_at_a_subfolder(self, base: Path, start: str, expected: list[str]) -> None:
        entries = untrusted.regular_files(base, lambda name: False, start=start)
        assert [entry.name for entry in entries] == expected

    @pytest.mark.parametrize("start", ["link", "link/b"])
    def test_start_at_a_link_is_refused(self, base: Path, start: str) -> None:
        (base / "link").symlink_to("a")
        with pytest.raises(UsageError, match="cannot read .*/link"):
            list(untrusted.regular_files(base, lambda name: False, start=start))

    @pytest.mark.parametrize("start", ["..", "a/../..", "/etc", ""])
    def test_start_outside_of_the_folder_is_refused(self, base: Path, start: str) -> None:
        with pytest.raises(Failure, match="invalid file name"):
            list(untrusted.regular_files(base, lambda name: False, start=start))


def test_number_of_files_is_limited(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    entries = untrusted.regular_files(tmp_path, lambda name: name == "4", FolderLimits(files=4))
    assert [entry.name for entry in entries] == ["0", "1", "2", "3"]
    with pytest.raises(UsageError, match="has more than 4 files"):
        list(untrusted.regular_files(tmp_path, lambda name: False, FolderLimits(files=4)))


def test_too_long_names_are_ignored(tmp_path: Path) -> None:
    """Too long for a path or for a component; found by the property tests."""
    folder = tmp_path / "driver"
    folder.mkdir()
    long = "a" * 300
    (folder / "Makefile").write_text(f"obj-m := x.o\nccflags-y := -I$(src)/../{long}\n")
    (folder / "x.c").write_text(f'#include "../{long}.h"\n#include "../../{"b/" * 3000}x.h"\n')
    assert {str(name) for name in sources(folder).files} == {"Makefile", "x.c"}
