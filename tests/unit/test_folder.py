# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files the build of a module sees, and that no link or pipe leads it elsewhere."""

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
    """A module's folder beside a folder of shared headers, in no git work tree."""
    module = tmp_path / "top" / "mine"
    module.mkdir(parents=True)
    (module / "Kbuild").write_text("obj-m := mine.o\n")
    (module / "mine.c").write_text('#include "common/x.h"\n')
    common = tmp_path / "top" / "common"
    common.mkdir()
    (common / "x.h").write_text('#include "y.h"\n')
    (common / "y.h").write_text("")
    (tmp_path / "top" / "alone.h").write_text("")
    (tmp_path / "secret").write_text("secret")
    return module


@pytest.fixture
def repository(module: Path) -> Path:
    """The same in a git work tree."""
    subprocess.run(["git", "init", "--quiet", module.parent], check=True)
    return module


def names(found: Sources) -> set[str]:
    return set(found.files) | set(found.links)


class TestOwnFiles:
    def test_a_plain_folder(self, module: Path) -> None:
        found = sources(module)
        assert (found.root, found.place) == (module, ".")
        assert names(found) == {"Kbuild", "mine.c"}

    def test_what_a_build_left_does_not_count(self, module: Path) -> None:
        before = sources(module)
        for name in ("mine.o", "mine.ko", "mine.mod", "mine.mod.c", ".mine.o.cmd", "modules.order"):
            (module / name).write_text("of another kernel")
        (module / ".git").mkdir()
        (module / ".git" / "HEAD").write_text("x")
        assert sources(module) == before

    def test_tests_and_results_do_not_count(
        self, module: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Plain pytest in the module's folder writes there, and a changed test builds nothing."""
        before = sources(module)
        monkeypatch.setenv("BLOCKYARD_RESULTS", str(module / "results"))
        settings.cache_clear()
        for name in ("results/run/plan.json", "tests/test_x.py", "tests/conftest.py", "test_y.py"):
            (module / name).parent.mkdir(parents=True, exist_ok=True)
            (module / name).write_text("")
        assert sources(module) == before
        (module / "tests" / "make_header.py").write_text("")
        assert names(sources(module)) - names(before) == {"tests/make_header.py"}

    def test_a_shipped_object_counts(self, module: Path) -> None:
        (module / "blob.o_shipped").write_bytes(b"\x7fELF")
        assert "blob.o_shipped" in names(sources(module))

    def test_folders_and_scripts(self, module: Path, tmp_path: Path) -> None:
        (module / "more").mkdir()
        (module / "more" / "run.sh").write_text("#!/bin/sh\n")
        (module / "more" / "run.sh").chmod(0o700)
        found = sources(module)
        assert found.files["more/run.sh"].endswith("x")
        copied = found.copy(tmp_path / "copy")
        assert (copied / "more" / "run.sh").stat().st_mode & 0o777 == 0o755
        assert (copied / "mine.c").stat().st_mode & 0o777 == 0o644
        assert (copied / "mine.c").read_text() == (module / "mine.c").read_text()

    def test_pipes_sockets_and_devices_are_left_out(
        self, module: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(module / "pipe.c")
        monkeypatch.chdir(module)  # the path of a socket is limited to 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.c")
            assert names(sources(module)) == {"Kbuild", "mine.c"}

    def test_a_sparse_file_is_not_read(self, module: Path) -> None:
        with open(module / "huge.c", "wb") as file:
            file.truncate(100 << 30)
        with pytest.raises(UsageError, match=r"mine has more than 512 MiB of files, up to huge.c"):
            sources(module)

    def test_a_deep_folder(self, module: Path) -> None:
        (module / "/".join(["d"] * 100)).mkdir(parents=True)
        with pytest.raises(UsageError, match="folders are nested more than 64 deep"):
            sources(module)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, module: Path) -> None:
        (module / "mine.c").chmod(0)
        with pytest.raises(UsageError, match=r"cannot read .*/mine.c: .*Permission denied"):
            sources(module)

    def test_a_name_that_is_no_text(self, module: Path) -> None:
        (module / os.fsdecode(b"\xff.c")).write_text("")
        with pytest.raises(UsageError, match="its name is not UTF-8 text"):
            sources(module)

    def test_a_file_that_changes_while_it_is_copied(self, module: Path, tmp_path: Path) -> None:
        found = sources(module)
        (module / "mine.c").write_text("other")
        with pytest.raises(Failure, match="mine.c changed while it was copied"):
            found.copy(tmp_path / "copy")


class TestLinks:
    def test_one_that_stays_inside_is_kept(self, module: Path, tmp_path: Path) -> None:
        (module / "other.c").symlink_to("mine.c")
        (module / "absolute.c").symlink_to(module / "mine.c")
        found = sources(module)
        assert found.links == {"other.c": "mine.c", "absolute.c": "mine.c"}
        copied = found.copy(tmp_path / "copy")
        assert (copied / "absolute.c").resolve() == copied / "mine.c"

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "/proc/kmsg", "/dev/zero"])
    def test_one_that_leads_out_is_refused(self, repository: Path, target: str) -> None:
        (repository / "x.h").symlink_to(target)
        with pytest.raises(UsageError, match="x.h is a link to .*, which the build does not see"):
            sources(repository)

    def test_the_work_tree_may_be_seen(self, repository: Path, tmp_path: Path) -> None:
        (repository / "common").symlink_to("../common")
        found = sources(repository)
        assert (found.root, found.place) == (repository.parent, "mine")
        assert names(found) == {
            "mine/Kbuild",
            "mine/mine.c",
            "mine/common",
            "common/x.h",
            "common/y.h",
        }
        copied = found.copy(tmp_path / "copy")
        assert (copied / "common" / "x.h").read_text() == '#include "y.h"\n'

    def test_without_a_work_tree_it_may_not(self, module: Path) -> None:
        (module / "common").symlink_to("../common")
        with pytest.raises(UsageError, match="common is a link to .*/top/common") as caught:
            sources(module)
        assert "the module's folder only, which is in no git work tree" in caught.value.hint

    def test_a_folder_that_was_named_may_be_seen(self, module: Path) -> None:
        (module / "common").symlink_to("../common")
        found = sources(module, [module.parent / "common"])
        assert "common/x.h" in names(found)

    def test_what_is_hidden_in_a_work_tree_may_not(self, repository: Path) -> None:
        (repository / "config").symlink_to("../.git/config")
        with pytest.raises(UsageError, match="config is a link to"):
            sources(repository)

    def test_one_to_nowhere_is_left_out(self, module: Path) -> None:
        (module / "gone.h").symlink_to("/nowhere/at/all")
        assert "gone.h" not in names(sources(module))

    def test_loops_end(self, repository: Path) -> None:
        (repository / "loop").symlink_to("loop")
        (repository / "self").symlink_to(".")
        (repository.parent / "common" / "back").symlink_to("../mine")
        (repository / "common").symlink_to("../common")
        found = sources(repository)
        assert "mine/loop" not in names(found)
        assert found.links["mine/self"] == "."


class TestNamedFiles:
    def test_an_include_of_the_parent_s(self, repository: Path) -> None:
        (repository / "mine.c").write_text('#include "../common/x.h"\n#include "../alone.h"\n')
        found = sources(repository)
        assert names(found) == {
            "mine/Kbuild",
            "mine/mine.c",
            "common/x.h",
            "common/y.h",
            "alone.h",
        }

    @pytest.mark.parametrize("variable", ["$(src)", "$(PWD)", "$(M)"])
    def test_an_include_folder_of_a_makefile(self, repository: Path, variable: str) -> None:
        (repository / "Kbuild").write_text(f"ccflags-y := -I{variable}/../common\n")
        assert "common/y.h" in names(sources(repository))

    def test_the_parent_as_an_include_folder(self, repository: Path) -> None:
        (repository / "Kbuild").write_text("ccflags-y := -I$(src)/..\n")
        assert "common/y.h" in names(sources(repository))

    def test_a_path_of_rust(self, repository: Path) -> None:
        (repository.parent / "common" / "x.rs").write_text("")
        (repository / "mine.rs").write_text('#[path = "../common/x.rs"]\nmod x;\n')
        assert "common/x.rs" in names(sources(repository))

    def test_outside_of_a_work_tree_it_is_said_and_not_taken(self, module: Path) -> None:
        (module / "mine.c").write_text('#include "../common/x.h"\n')
        found = sources(module)
        assert (found.place, names(found)) == (".", {"Kbuild", "mine.c"})
        assert found.unseen == (
            f"{module}/mine.c names ../common/x.h, which the build does not see: copy it into the "
            "folder, or keep both in one git work tree",
        )

    def test_a_neighbour_that_is_too_large_is_not_taken(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "OTHERS", FolderLimits(files=1))
        (repository / "Kbuild").write_text("ccflags-y := -I$(src)/../common\n")
        found = sources(repository)
        assert found.place == "."
        assert "has more than 1 files" in found.unseen[0]

    def test_a_file_of_a_large_neighbour_comes_alone(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "OTHERS", FolderLimits(files=1))
        (repository / "mine.c").write_text('#include "../common/y.h"\n')
        assert names(sources(repository)) == {"mine/Kbuild", "mine/mine.c", "common/y.h"}

    def test_a_neighbour_s_links_may_lead_anywhere(self, repository: Path) -> None:
        (repository / "mine.c").write_text('#include "../common/y.h"\n')
        (repository.parent / "common" / "z.h").symlink_to("/etc/passwd")
        found = sources(repository)
        assert "common/x.h" in names(found)
        assert "common/z.h" not in names(found)

    def test_names_without_end(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folder, "MOST_NAMES", 10)
        text = "".join(f'#include "../gone{number}.h"\n' for number in range(20))
        (repository / "mine.c").write_text(text + '#include "../common/x.h"\n')
        assert names(sources(repository)) == {"Kbuild", "mine.c"}

    def test_a_secret_is_not_taken_by_a_name(self, repository: Path) -> None:
        (repository / "mine.c").write_text('#include "../../secret"\n')
        assert names(sources(repository)) == {"Kbuild", "mine.c"}


class TestWorkTree:
    def test_none(self, module: Path) -> None:
        assert work_tree(module) is None

    def test_its_top(self, repository: Path) -> None:
        assert work_tree(repository) == repository.parent

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_git_folder_that_somebody_put_there(self, repository: Path) -> None:
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
        ("start", "found"),
        [
            (".", ["z", "a/x", "a/b/y"]),
            ("a", ["a/x", "a/b/y"]),
            ("a/b", ["a/b/y"]),
            ("gone", []),
        ],
    )
    def test_a_folder_below(self, base: Path, start: str, found: list[str]) -> None:
        entries = untrusted.regular_files(base, lambda name: False, start=start)
        assert [entry.name for entry in entries] == found

    @pytest.mark.parametrize("start", ["link", "link/b"])
    def test_a_link(self, base: Path, start: str) -> None:
        (base / "link").symlink_to("a")
        with pytest.raises(UsageError, match="cannot read .*/link"):
            list(untrusted.regular_files(base, lambda name: False, start=start))

    @pytest.mark.parametrize("start", ["..", "a/../..", "/etc", ""])
    def test_elsewhere(self, base: Path, start: str) -> None:
        with pytest.raises(Failure, match="invalid file name"):
            list(untrusted.regular_files(base, lambda name: False, start=start))


def test_the_limit_of_files(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    found = untrusted.regular_files(tmp_path, lambda name: name == "4", FolderLimits(files=4))
    assert [entry.name for entry in found] == ["0", "1", "2", "3"]
    with pytest.raises(UsageError, match="has more than 4 files"):
        list(untrusted.regular_files(tmp_path, lambda name: False, FolderLimits(files=4)))


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    """Too long for a path or for one part of it; found by the property tests."""
    folder = tmp_path / "driver"
    folder.mkdir()
    long = "a" * 300
    (folder / "Makefile").write_text(f"obj-m := x.o\nccflags-y := -I$(src)/../{long}\n")
    (folder / "x.c").write_text(f'#include "../{long}.h"\n#include "../../{"b/" * 3000}x.h"\n')
    assert {str(name) for name in sources(folder).files} == {"Makefile", "x.c"}
