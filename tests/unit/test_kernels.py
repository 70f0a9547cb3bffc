# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists, updates and cleaning of kernels; nothing is fetched, built or booted."""

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
    """A catalog of the test, and a tool root."""
    entries = dict(ENTRIES)
    monkeypatch.setattr(catalog, "catalog", lambda: entries)
    monkeypatch.setattr(kernels, "ready_tool_root", lambda: tools)
    monkeypatch.setattr(cache, "tool_root", lambda: tools)
    return entries


def fetched(packages: tuple[Package, ...] = (OLD,), *, without: str = "none") -> Tree:
    """The source of 7.3 in the cache; its Kconfig lacks the symbol `without`."""
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
    cached = debian.cached("7.3", SOURCE)
    assert cached is not None
    return cached


def built(tree: Tree, choice: KernelSpec, tools: ToolRoot) -> str:
    """Puts a kernel into the cache and returns its key."""
    job = plan.build_spec_in(tree, choice, tools)
    info = msgspec.structs.replace(
        samples.info(), key=job.key, name=choice.name, source=tree.origin
    )
    path = store.directory("kernels") / job.key
    path.mkdir()
    artifact.save_info(path, info)
    return job.key


def row(name: str) -> kernels.Known:
    (kernel,) = [known for known in kernels.listing().kernels if known.name == name]
    return kernel


class TestList:
    def test_kernel_that_was_never_fetched_is_listed(self) -> None:
        kernel = row("7.3")
        assert (kernel.state, kernel.built, kernel.rust) == ("not fetched", (), "not fetched")
        assert set(kernel.drivers.values()) == {"not fetched"}
        assert kernel.source == "debian linux-source-7.3"

    def test_fetched_source(self) -> None:
        fetched(without="BLK_DEV_NVME")
        kernel = row("7.3")
        assert (kernel.state, kernel.version, kernel.rust) == ("fetched", "7.3.4", "yes")
        assert kernel.drivers["null_blk"] == "yes"
        assert kernel.drivers["rnull"] == "yes"
        assert kernel.drivers["nvme"] == "Linux 7.3.4 has no CONFIG_BLK_DEV_NVME"
        assert kernel.size.source > 0
        assert (kernel.size.builds, kernel.size.kernels) == (0, 0)

    def test_old_rust_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        old = samples.tools(tmp_path / "old", {"rustc": "1.63.0"})
        monkeypatch.setattr(kernels, "ready_tool_root", lambda: old)
        kernel = row("7.3")
        assert kernel.rust == "Linux 7.3.4 needs rustc 1.85.0, the pinned toolchain has 1.63.0"
        assert kernel.drivers["rnull"] == f"no Rust: {kernel.rust}"
        assert kernel.drivers["null_blk"] == "yes"

    def test_rust_is_unknown_without_a_tool_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        monkeypatch.setattr(kernels, "ready_tool_root", lambda: None)
        kernel = row("7.3")
        assert (kernel.state, kernel.rust) == ("fetched", "the tool root is not made yet")

    def test_built_variants_are_listed(self, tools: ToolRoot) -> None:
        tree = fetched()
        built(tree, KernelSpec(variant="debug"), tools)
        built(tree, KernelSpec(), tools)
        built(tree, KernelSpec(compiler="gcc"), tools)
        kernel = row("7.3")
        assert kernel.state == "built"
        assert set(kernel.built) == {"plain", "debug", "plain gcc"}
        assert kernel.size.kernels > 0
        assert kernels.listing().others == ()

    def test_kernel_with_user_fragments_is_listed_separately(
        self, tools: ToolRoot, tmp_path: Path
    ) -> None:
        fragment = tmp_path / "mine.config"
        fragment.write_text("CONFIG_MINE=y\n")
        key = built(fetched(), KernelSpec(fragments=(fragment,)), tools)
        listing = kernels.listing()
        assert [(other.key, other.name) for other in listing.others] == [(key, "7.3 mine.config")]
        assert row("7.3").built == ()

    def test_debian_kernel(self) -> None:
        packages = (Package("linux-image-6.12.9-amd64", "6.12.9-1"),)
        debian.record("6.12-debian", packages)
        boot = store.directory("sources") / debian.key(packages) / "boot"
        boot.mkdir(parents=True)
        (boot / "vmlinuz-6.12.9-amd64").touch()
        (boot / "config-6.12.9-amd64").write_text(
            "CONFIG_BLK_DEV_NVME=m\nCONFIG_BLK_DEV_NULL_BLK=m\n# CONFIG_RUST is not set\n"
        )
        kernel = row("6.12-debian")
        assert (kernel.state, kernel.version) == ("fetched", "6.12.9-1")
        assert kernel.drivers == {
            "null_blk": "yes",
            "nvme": "yes",
            "rnull": "Debian's kernel is built without CONFIG_BLK_DEV_RUST_NULL",
            "rnvme": "Debian's kernel is built without CONFIG_RUST_NVME",
        }

    def test_packages_without_a_kernel_image(self) -> None:
        packages = (Package("linux-image-6.12.9-amd64", "6.12.9-1"),)
        debian.record("6.12-debian", packages)
        (store.directory("sources") / debian.key(packages)).mkdir()
        assert "no kernel image in its packages" in row("6.12-debian").rust

    def test_kernels_of_the_user(self, known: dict[str, Entry], tmp_path: Path) -> None:
        known["gone"] = Directory(str(tmp_path / "gone"))
        known["remote"] = Git("https://git.example/linux.git", "main")
        assert "not a kernel source tree" in row("gone").rust
        assert row("remote").state == "not fetched"

    def test_listing_does_not_count_as_a_use(self) -> None:
        """Otherwise garbage collection would keep the oldest entries."""
        fetched()
        key = debian.key((OLD,))
        os.utime(store.directory("sources") / key, (1000, 1000))
        kernels.listing()
        assert store.use_file("sources", key).stat().st_mtime == 1000

    def test_table_has_footnotes_with_reasons(self, capsys: pytest.CaptureFixture[str]) -> None:
        fetched(without="BLK_DEV_NVME")
        kernels.show(as_json=False)
        out = capsys.readouterr().out
        assert "1  Linux 7.3.4 has no CONFIG_BLK_DEV_NVME" in out
        (line,) = [line for line in out.splitlines() if line.startswith(" 7.3 ")]
        assert line.split()[1:4] == ["7.3.4", "fetched", "yes"]
        assert "no 1" in line

    def test_json_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        kernels.show(as_json=True)
        assert json.loads(capsys.readouterr().out)["kernels"][0]["name"] == "7.3"


class TestFetch:
    def test_all_names_are_checked_before_a_fetch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fetch(*arguments: object) -> Tree:
            raise AssertionError("fetch was called")

        monkeypatch.setattr(sources, "files", fetch)
        with pytest.raises(UsageError, match=r"unknown kernel '7\.33'"):
            cache.fetch(["7.3", "7.33"])


class Mirror:
    """Replaces `debian.offers`: offers one version of the source."""

    def __init__(self, offer: debian.Offer) -> None:
        self.offer = offer

    def __call__(self, entries: dict[str, Entry], tools: ToolRoot) -> dict[str, debian.Offer]:
        return dict.fromkeys(entries, self.offer)


class TestUpdate:
    def offer(self, monkeypatch: pytest.MonkeyPatch, *packages: Package, problem: str = "") -> None:
        mirror = Mirror(debian.Offer(packages, 143_000_000, problem))
        monkeypatch.setattr(debian, "offers", mirror)
        # replaces dpkg; these versions sort as text
        monkeypatch.setattr(debian, "is_older", lambda version, than, tools: version < than)

    def test_newer_version_names_size_and_builds(
        self, monkeypatch: pytest.MonkeyPatch, tools: ToolRoot, capsys: pytest.CaptureFixture[str]
    ) -> None:
        built(fetched(), KernelSpec(variant="debug"), tools)
        self.offer(monkeypatch, NEW)
        cache.show_updates("", record=False, as_json=False)
        out = capsys.readouterr().out
        assert "7.3: 7.3.4-1 → 7.3.6-1 (143 MB to fetch; to build again: debug)" in out
        assert "--yes" in out
        assert debian.recorded("7.3", SOURCE) == [OLD]

    def test_update_with_record_changes_the_recorded_version(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched()
        self.offer(monkeypatch, NEW)
        cache.updates(("7.3",), record=True)
        assert debian.recorded("7.3", SOURCE) == [NEW]

    def test_unchanged_version_is_up_to_date(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        self.offer(monkeypatch, OLD)
        (update,) = cache.updates((), record=True)
        assert (update.newer, update.note) == (False, "up to date")

    def test_mirror_with_an_older_version_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched((NEW,))
        self.offer(monkeypatch, OLD)
        (update,) = cache.updates(("7.3",), record=True)
        assert not update.newer
        assert "older" in update.note
        assert debian.recorded("7.3", SOURCE) == [NEW]

    def test_package_that_left_the_mirror_is_noted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fetched()
        self.offer(monkeypatch, problem="the Debian mirror has no linux-source-7.3")
        (update,) = cache.updates(("7.3",), record=True)
        assert update.note == "the Debian mirror has no linux-source-7.3"
        assert debian.recorded("7.3", SOURCE) == [OLD]

    def test_update_of_a_kernel_that_was_never_fetched_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="never fetched") as caught:
            cache.updates(("7.3",), record=False)
        assert "kernel.fetch 7.3" in caught.value.hint

    def test_update_without_fetched_kernels_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="no kernel was fetched"):
            cache.updates((), record=False)

    def test_update_of_a_directory_is_a_usage_error(
        self, known: dict[str, Entry], tmp_path: Path
    ) -> None:
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
    def test_record_of_an_older_catalog_entry_is_ignored(
        self, packages: tuple[Package, ...]
    ) -> None:
        debian.record("7.3", packages)
        assert debian.recorded("7.3", SOURCE) == []


class TestClean:
    @pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1e3"])
    def test_invalid_number_is_a_usage_error(self, text: str) -> None:
        for days, max_gb in ((text, ""), ("", text)):
            with pytest.raises(UsageError, match="expected a number"):
                cache.clean(days, max_gb, dry_run=False)

    def test_default_limit_is_the_setting(
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

    def test_dropped_kernel_is_named(
        self, tools: ToolRoot, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = built(fetched(), KernelSpec(variant="debug"), tools)
        store.forget()  # as if the process that used it had ended
        cache.clean("", "0", dry_run=False)
        assert f"dropped: kernels/{key} (7.3 debug)" in capsys.readouterr().out
