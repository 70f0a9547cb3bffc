# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels by name: the catalog, and the packages of a name with and without the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from blockyard.kernel.catalog import (
    DEFAULT,
    DebianImage,
    DebianSource,
    Directory,
    Git,
    Tarball,
    catalog,
    find,
)
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import Package, ToolRoot
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.sources import debian
from blockyard.kernel.sources.debian import image_files, source_tree
from blockyard.kernel.sources.origin import DebianPackage

SOURCE = DebianSource("linux-source-7.3", ("trixie-backports",))
IMAGE = DebianImage(("binary-7.2.*-amd64", "modules-7.2.*-amd64", "base-7.2.*-amd64"), ("s",))
NO_TOOLS = ToolRoot(Path("/nonexistent"))


class TestCatalog:
    def test_all_entries_are_valid(self) -> None:
        assert {DEFAULT, "7.2-debian"} <= set(catalog())
        assert isinstance(find("7.3"), DebianSource)
        assert isinstance(find("7.2-debian"), DebianImage)

    def test_unknown_kernel_is_a_usage_error_with_the_nearest_name(self) -> None:
        with pytest.raises(UsageError, match="unknown kernel '7.33'") as caught:
            find("7.33")
        assert "did you mean 7.3" in caught.value.hint
        assert caught.value.exit_code == 2

    def test_packages_of_an_image_have_one_wildcard_for_the_release(self) -> None:
        for entry in catalog().values():
            if isinstance(entry, DebianImage):
                assert [package.count("*") for package in entry.packages] == [1] * len(
                    entry.packages
                )


@pytest.fixture
def user_catalog(home: Path) -> Iterator[Path]:
    """Path of the user's catalog; the file does not exist yet."""
    path = home / "config" / "blockyard" / "kernels.toml"
    path.parent.mkdir(parents=True)
    catalog.cache_clear()
    yield path
    catalog.cache_clear()


class TestUserCatalog:
    def test_entries_of_all_kinds_are_added(self, user_catalog: Path) -> None:
        user_catalog.write_text(
            '[kernel.mine]\nkind = "directory"\npath = "/home/me/linux"\n'
            '[kernel."next-20261120"]\nkind = "git"\nrepository = "/r"\nref = "next"\n'
            '[kernel.old]\nkind = "tarball"\nlocation = "linux-6.6.tar.xz"\n'
        )
        assert find("mine") == Directory("/home/me/linux")
        assert find("next-20261120") == Git("/r", "next")
        assert find("old") == Tarball("linux-6.6.tar.xz")
        assert isinstance(find(DEFAULT), DebianSource)

    def test_user_entry_replaces_ours_of_the_same_name(self, user_catalog: Path) -> None:
        user_catalog.write_text(f'[kernel."{DEFAULT}"]\nkind = "directory"\npath = "/linux"\n')
        assert find(DEFAULT) == Directory("/linux")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[kernel.a]\nkind = "directory"\n', "path"),
            ('[kernel.a]\nkind = "svn"\npath = "/l"\n', "svn"),
            ('[kernel.a]\nkind = "directory"\npath = "/l"\nrev = "1"\n', "rev"),
            ('[kernel."../a"]\nkind = "directory"\npath = "/l"\n', "regex"),
            ('[kernels.a]\nkind = "directory"\npath = "/l"\n', "kernel"),
            ("[kernel", "document"),
        ],
    )
    def test_invalid_catalog_is_a_usage_error(
        self, user_catalog: Path, text: str, message: str
    ) -> None:
        user_catalog.write_text(text)
        with pytest.raises(UsageError) as caught:
            find(DEFAULT)
        assert caught.value.what.startswith(f"{user_catalog}: ")
        assert message in caught.value.what


class Mirror:
    """Debian's archive with these packages; counts updates and downloads."""

    def __init__(self, *packages: Package) -> None:
        self.packages = packages
        self.updates = 0
        self.downloads: list[str] = []

    def __call__(self, tools: ToolRoot, suites: tuple[str, ...]) -> Mirror:
        return self

    def update(self) -> None:
        self.updates += 1

    def newest(self, pattern: str) -> Package | None:
        before, _, after = pattern.partition("*")
        matches = [
            package
            for package in self.packages
            if package.name == pattern
            or ("*" in pattern and package.name.startswith(before) and package.name.endswith(after))
        ]
        return matches[-1] if matches else None

    def download(self, package: Package, target: Path) -> Path:
        self.downloads.append(f"{package.name}={package.version}")
        file = target / f"{package.name}.deb"
        file.write_text(package.version)
        return file

    def unpack(self, package_file: Path, target: Path) -> None:
        (target / package_file.stem).write_text(package_file.read_text())


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    mirror = Mirror()
    monkeypatch.setattr(debian, "Archive", mirror)
    return mirror


def record(name: str, packages: Sequence[Package]) -> Path:
    path = store.directory("resolved") / f"{name}.json"
    path.write_bytes(msgspec.json.encode(packages))
    return path


OLD = Package("linux-source-7.3", "7.3.4-1~bpo13+1")
NEW = Package("linux-source-7.3", "7.3.6-1~bpo13+1")


class TestSource:
    def test_recorded_version_in_the_cache_needs_no_network(self, mirror: Mirror) -> None:
        record("7.3", [OLD])
        folder = store.directory("sources") / store.digest("source", [OLD])
        (folder / "tree").mkdir(parents=True)
        tree = source_tree("7.3", SOURCE, NO_TOOLS)
        assert tree.path == folder / "tree"
        assert tree.origin == DebianPackage("linux-source-7.3", "7.3.4-1~bpo13+1")
        assert str(tree.origin) == "debian linux-source-7.3 7.3.4-1~bpo13+1"
        assert mirror.updates == 0

    def test_newest_version_is_fetched_once_and_recorded(self, mirror: Mirror) -> None:
        mirror.packages = (OLD,)
        first = source_tree("7.3", SOURCE, NO_TOOLS)
        mirror.packages = (NEW,)
        assert source_tree("7.3", SOURCE, NO_TOOLS) == first
        assert mirror.downloads == ["linux-source-7.3=7.3.4-1~bpo13+1"]

    def test_recorded_version_that_left_the_mirror_is_replaced(self, mirror: Mirror) -> None:
        """The record exists and its files do not: the cache was cleaned."""
        record("7.3", [OLD])
        mirror.packages = (NEW,)
        assert str(source_tree("7.3", SOURCE, NO_TOOLS).origin).endswith("7.3.6-1~bpo13+1")

    @pytest.mark.parametrize("text", ["", "{", "[]", '[{"name": 5}]'])
    def test_unreadable_record_is_replaced(self, mirror: Mirror, text: str) -> None:
        record("7.3", [OLD]).write_text(text)
        mirror.packages = (NEW,)
        assert str(source_tree("7.3", SOURCE, NO_TOOLS).origin).endswith("7.3.6-1~bpo13+1")

    def test_package_missing_on_the_mirror_is_an_error(self, mirror: Mirror) -> None:
        with pytest.raises(Failure, match="kernel 7.3: the Debian mirror has no linux-source-7.3"):
            source_tree("7.3", SOURCE, NO_TOOLS)
        assert list(store.directory("sources").iterdir()) == []

    def test_package_files_are_removed(self, mirror: Mirror) -> None:
        mirror.packages = (OLD,)
        folder = source_tree("7.3", SOURCE, NO_TOOLS).path.parent
        assert [path.name for path in folder.glob("[!.]*")] == ["linux-source-7.3"]


def image_packages(*releases: str, kinds: Sequence[str] = ("binary", "modules", "base")) -> Mirror:
    return Mirror(
        *(Package(f"{kind}-{release}-amd64", "1") for release in releases for kind in kinds)
    )


class TestImage:
    def test_all_packages_have_the_release_of_the_first(self, mirror: Mirror) -> None:
        mirror.packages = image_packages("7.2.1+deb13", "7.2.9+deb13").packages
        image_files("7.2-debian", IMAGE, NO_TOOLS)
        assert mirror.downloads == [
            "binary-7.2.9+deb13-amd64=1",
            "modules-7.2.9+deb13-amd64=1",
            "base-7.2.9+deb13-amd64=1",
        ]

    @pytest.mark.parametrize(
        ("kinds", "missing"),
        [
            (("modules", "base"), "binary-7.2.*-amd64"),
            (("binary", "base"), "modules-7.2.9-amd64"),
            (("binary", "modules"), "base-7.2.9-amd64"),
        ],
    )
    def test_missing_package_is_named(
        self, mirror: Mirror, kinds: Sequence[str], missing: str
    ) -> None:
        mirror.packages = image_packages("7.2.9", kinds=kinds).packages
        with pytest.raises(Failure) as caught:
            image_files("7.2-debian", IMAGE, NO_TOOLS)
        assert caught.value.what == f"kernel 7.2-debian: the Debian mirror has no {missing}"
