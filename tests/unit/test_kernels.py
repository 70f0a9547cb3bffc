# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of the kernels there are; nothing is fetched, built or booted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.commands import cache, kernels
from blockyard.kernel import artifact, catalog, sources
from blockyard.kernel.catalog import DebianImage, DebianSource, Directory, Entry, Git
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import Package, ToolRoot
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources import debian
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.unit import samples

SOURCE = DebianSource("linux-source-7.3", ("trixie-backports",))
IMAGE = DebianImage(("linux-image-6.12.*-amd64",), ("trixie",))
OLD = Package("linux-source-7.3", "7.3.4-1")
NEW = Package("linux-source-7.3", "7.3.6-1")
ENTRIES: dict[str, Entry] = {"7.3": SOURCE, "6.12-debian": IMAGE}
MINIMUM = """case "$1" in
rustc)
\techo 1.85.0
\t;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path) -> ToolRoot:
    return samples.tools(tmp_path / "tools", {"rustc": "1.85.1", "bindgen": "0.71.1"})


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, tools: ToolRoot) -> dict[str, Entry]:
    """A catalog of the test's own, and a tool root."""
    entries = dict(ENTRIES)
    monkeypatch.setattr(catalog, "catalog", lambda: entries)
    monkeypatch.setattr(kernels, "ready_tool_root", lambda: tools)
    monkeypatch.setattr(cache, "tool_root", lambda: tools)
    return entries


def fetched(packages: tuple[Package, ...] = (OLD,), *, without: str = "none") -> Tree:
    """The source of 7.3 in the cache, whose Kconfig lacks a symbol."""
    debian.record("7.3", packages)
    path = store.directory("sources") / debian.key(packages)
    tree = path / "tree"
    for folder in ("rust", "scripts", "drivers"):
        (tree / folder).mkdir(parents=True)
    (tree / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
    (tree / "scripts/min-tool-version.sh").write_text(MINIMUM)
    symbols = {"BLK_DEV_NULL_BLK", "BLK_DEV_NVME", "BLK_DEV_RUST_NULL", "RUST"} - {without}
    text = "".join(f"config {symbol}\n\tbool\n" for symbol in sorted(symbols))
    (tree / "drivers/Kconfig").write_text(text)
    found = debian.cached("7.3", SOURCE)
    assert found is not None
    return found


def built(tree: Tree, choice: KernelSpec, tools: ToolRoot) -> str:
    """A kernel of that choice in the cache; its key."""
    job = plan.build_spec_in(tree, choice, tools)
    info = msgspec.structs.replace(
        samples.info(), key=job.key, name=choice.name, source=tree.origin
    )
    path = store.directory("kernels") / job.key
    path.mkdir()
    artifact.save_info(path, info)
    return job.key


def row(name: str) -> kernels.Known:
    (found,) = [one for one in kernels.listing().kernels if one.name == name]
    return found


class TestList:
    def test_a_kernel_that_was_never_fetched(self) -> None:
        found = row("7.3")
        assert (found.state, found.built, found.rust) == ("not fetched", (), "not fetched")
        assert set(found.drivers.values()) == {"not fetched"}
        assert found.source == "debian linux-source-7.3"

    def test_a_source_that_is_fetched(self) -> None:
        fetched(without="BLK_DEV_NVME")
        found = row("7.3")
        assert (found.state, found.version, found.rust) == ("fetched", "7.3.4", "yes")
        assert found.drivers["null_blk"] == "yes"
        assert found.drivers["rnull"] == "yes"
        assert found.drivers["nvme"] == "Linux 7.3.4 has no CONFIG_BLK_DEV_NVME"
        assert found.size.source > 0
        assert (found.size.builds, found.size.kernels) == (0, 0)

    def test_a_rust_compiler_that_is_too_old(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched()
        old = samples.tools(tmp_path / "old", {"rustc": "1.63.0"})
        monkeypatch.setattr(kernels, "ready_tool_root", lambda: old)
        found = row("7.3")
        assert found.rust == "Linux 7.3.4 needs rustc 1.85.0, the pinned toolchain has 1.63.0"
        assert found.drivers["rnull"] == f"no Rust: {found.rust}"
        assert found.drivers["null_blk"] == "yes"

    def test_without_a_tool_root_nothing_is_claimed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        monkeypatch.setattr(kernels, "ready_tool_root", lambda: None)
        found = row("7.3")
        assert (found.state, found.rust) == ("fetched", "the tool root is not made yet")

    def test_the_variants_that_are_built(self, tools: ToolRoot) -> None:
        tree = fetched()
        built(tree, KernelSpec(variant="debug"), tools)
        built(tree, KernelSpec(), tools)
        built(tree, KernelSpec(compiler="gcc"), tools)
        found = row("7.3")
        assert found.state == "built"
        assert set(found.built) == {"plain", "debug", "plain gcc"}
        assert found.size.kernels > 0
        assert kernels.listing().others == ()

    def test_a_kernel_of_other_inputs_is_listed_apart(
        self, tools: ToolRoot, tmp_path: Path
    ) -> None:
        fragment = tmp_path / "mine.config"
        fragment.write_text("CONFIG_MINE=y\n")
        key = built(fetched(), KernelSpec(fragments=(fragment,)), tools)
        found = kernels.listing()
        assert [(one.key, one.name) for one in found.others] == [(key, "7.3 mine.config")]
        assert row("7.3").built == ()

    def test_a_kernel_that_debian_built(self) -> None:
        packages = (Package("linux-image-6.12.9-amd64", "6.12.9-1"),)
        debian.record("6.12-debian", packages)
        boot = store.directory("sources") / debian.key(packages) / "boot"
        boot.mkdir(parents=True)
        (boot / "vmlinuz-6.12.9-amd64").touch()
        (boot / "config-6.12.9-amd64").write_text(
            "CONFIG_BLK_DEV_NVME=m\nCONFIG_BLK_DEV_NULL_BLK=m\n# CONFIG_RUST is not set\n"
        )
        found = row("6.12-debian")
        assert (found.state, found.version) == ("fetched", "6.12.9-1")
        assert found.drivers == {
            "null_blk": "yes",
            "nvme": "yes",
            "rnull": "Debian's kernel is built without CONFIG_BLK_DEV_RUST_NULL",
            "rnvme": "Debian's kernel is built without CONFIG_RUST_NVME",
        }

    def test_packages_without_a_kernel_in_them(self) -> None:
        packages = (Package("linux-image-6.12.9-amd64", "6.12.9-1"),)
        debian.record("6.12-debian", packages)
        (store.directory("sources") / debian.key(packages)).mkdir()
        assert "no kernel image in its packages" in row("6.12-debian").rust

    def test_the_users_own_kernels(self, known: dict[str, Entry], tmp_path: Path) -> None:
        known["gone"] = Directory(str(tmp_path / "gone"))
        known["remote"] = Git("https://git.example/linux.git", "main")
        assert "not a kernel source tree" in row("gone").rust
        assert row("remote").state == "not fetched"

    def test_a_look_is_no_use(self) -> None:
        """Else the oldest entries would be as good as new."""
        fetched()
        key = debian.key((OLD,))
        os.utime(store.directory("sources") / key, (1000, 1000))
        kernels.listing()
        assert store.use_file("sources", key).stat().st_mtime == 1000

    def test_the_table_has_its_reasons_below(self, capsys: pytest.CaptureFixture[str]) -> None:
        fetched(without="BLK_DEV_NVME")
        kernels.show(as_json=False)
        out = capsys.readouterr().out
        assert "1  Linux 7.3.4 has no CONFIG_BLK_DEV_NVME" in out
        (line,) = [line for line in out.splitlines() if line.startswith(" 7.3 ")]
        assert line.split()[1:4] == ["7.3.4", "fetched", "yes"]
        assert "no 1" in line

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        kernels.show(as_json=True)
        assert json.loads(capsys.readouterr().out)["kernels"][0]["name"] == "7.3"


class TestFetch:
    def test_all_names_are_checked_before_the_first_is_fetched(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(*arguments: object) -> Tree:
            raise AssertionError("something was fetched")

        monkeypatch.setattr(sources, "files", fetch)
        with pytest.raises(UsageError, match=r"unknown kernel '7\.33'"):
            cache.fetch(["7.3", "7.33"])


class Mirror:
    """In place of `debian.offers`: has one version of the source."""

    def __init__(self, offer: debian.Offer) -> None:
        self.offer = offer

    def __call__(self, entries: dict[str, Entry], tools: ToolRoot) -> dict[str, debian.Offer]:
        return dict.fromkeys(entries, self.offer)


class TestUpdate:
    def offer(self, monkeypatch: pytest.MonkeyPatch, *packages: Package, problem: str = "") -> None:
        mirror = Mirror(debian.Offer(packages, 143_000_000, problem))
        monkeypatch.setattr(debian, "offers", mirror)
        # in place of dpkg; these versions are in the order of their letters
        monkeypatch.setattr(debian, "is_older", lambda version, than, tools: version < than)

    def test_what_a_newer_version_changes(
        self, monkeypatch: pytest.MonkeyPatch, tools: ToolRoot, capsys: pytest.CaptureFixture[str]
    ) -> None:
        built(fetched(), KernelSpec(variant="debug"), tools)
        self.offer(monkeypatch, NEW)
        cache.show_updates("", record=False, as_json=False)
        out = capsys.readouterr().out
        assert "7.3: 7.3.4-1 → 7.3.6-1 (143 MB to fetch; to build again: debug)" in out
        assert "--yes" in out
        assert debian.recorded("7.3", SOURCE) == [OLD]

    def test_recorded_it_is_what_the_next_build_takes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched()
        self.offer(monkeypatch, NEW)
        cache.updates(("7.3",), record=True)
        assert debian.recorded("7.3", SOURCE) == [NEW]

    def test_nothing_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        self.offer(monkeypatch, OLD)
        (found,) = cache.updates((), record=True)
        assert (found.newer, found.note) == (False, "up to date")

    def test_a_mirror_that_lags_behind_takes_nothing_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched((NEW,))
        self.offer(monkeypatch, OLD)
        (found,) = cache.updates(("7.3",), record=True)
        assert not found.newer
        assert "behind" in found.note
        assert debian.recorded("7.3", SOURCE) == [NEW]

    def test_a_package_that_has_left_the_mirror(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        self.offer(monkeypatch, problem="the Debian mirror has no linux-source-7.3")
        (found,) = cache.updates(("7.3",), record=True)
        assert found.note == "the Debian mirror has no linux-source-7.3"
        assert debian.recorded("7.3", SOURCE) == [OLD]

    def test_a_kernel_that_was_never_fetched(self) -> None:
        with pytest.raises(UsageError, match="never fetched") as caught:
            cache.updates(("7.3",), record=False)
        assert "kernel.fetch 7.3" in caught.value.hint

    def test_no_kernel_was(self) -> None:
        with pytest.raises(UsageError, match="no kernel was fetched"):
            cache.updates((), record=False)

    def test_a_directory_has_no_mirror(self, known: dict[str, Entry], tmp_path: Path) -> None:
        known["mine"] = Directory(str(tmp_path))
        with pytest.raises(UsageError, match="does not come from Debian's mirror"):
            cache.updates(("mine",), record=False)


class TestRecord:
    @pytest.mark.parametrize(
        "packages",
        [
            (Package("linux-source-7.2", "7.2.1-1"),),
            (OLD, Package("linux-modules-7.3.4", "7.3.4-1")),
        ],
        ids=["another package", "one more"],
    )
    def test_a_record_from_before_the_entry_was_changed_does_not_count(
        self, packages: tuple[Package, ...]
    ) -> None:
        debian.record("7.3", packages)
        assert debian.recorded("7.3", SOURCE) == []


class TestClean:
    @pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1e3"])
    def test_a_number_that_is_none(self, text: str) -> None:
        for days, max_gb in ((text, ""), ("", text)):
            with pytest.raises(UsageError, match="is no number"):
                cache.clean(days, max_gb, dry_run=False)

    def test_without_a_limit_the_setting_counts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("BLOCKYARD_CACHE_GB", "0.001")
        path = store.directory("builds") / f"{1:016x}"
        path.mkdir(parents=True)
        (path / "data").write_bytes(b"x" * 2_000_000)
        cache.clean("", "", dry_run=True)
        assert path.exists()
        assert "would be dropped: builds/0000000000000001, 2 MB" in capsys.readouterr().out
        cache.clean("", "", dry_run=False)
        assert not path.exists()
        assert "dropped: builds/0000000000000001" in capsys.readouterr().out

    def test_a_dropped_kernel_is_called_by_its_name(
        self, tools: ToolRoot, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = built(fetched(), KernelSpec(variant="debug"), tools)
        store.forget()  # a run of its own
        cache.clean("", "0", dry_run=False)
        assert f"dropped: kernels/{key} (7.3 debug)" in capsys.readouterr().out
