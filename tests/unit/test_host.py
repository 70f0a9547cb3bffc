# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors, the sandbox and Debian mirrors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from blockyard.images.errors import CommandFailed, GuestPanicked
from blockyard.kernel.build.configure import SymbolsDropped
from blockyard.kernel.host.debian import Mirrors, RootSpec, ToolRoot, configured_mirrors, load_spec
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError, unknown
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources import tarball


class TestErrors:
    def test_unknown_name_offers_the_nearest(self) -> None:
        error = unknown("driver", "null-blk", ["null_blk", "nvme", "rnull"])
        assert str(error) == "unknown driver 'null-blk'\n  did you mean null_blk or rnull?"

    def test_several_near_names(self) -> None:
        hint = unknown("kernel", "7.1", ["7.2", "7.3", "other"]).hint
        assert sorted(re.findall(r"7\.\d", hint)) == ["7.2", "7.3"]

    def test_all_names_are_offered_if_none_is_near(self) -> None:
        assert unknown("driver", "zzz", ["nvme", "rnull"]).hint == "known: nvme, rnull"

    def test_unknown_name_without_known_names(self) -> None:
        assert unknown("driver", "x", []).hint == "known: none"

    def test_usage_error_and_failure_have_different_exit_codes(self) -> None:
        assert (unknown("driver", "x", []).exit_code, Failure("x").exit_code) == (2, 125)

    @pytest.mark.parametrize("error", [Failure, GuestPanicked, CommandFailed, SymbolsDropped])
    def test_failure_is_not_a_usage_error(self, error: type[BlockyardError]) -> None:
        assert issubclass(error, Failure)
        assert not issubclass(error, UsageError)

    def test_message_has_hint_and_log(self) -> None:
        error = UsageError("it broke", hint="mend it", log=Path("/l"))
        assert str(error) == "it broke\n  mend it\n  log: /l"

    def test_hints_name_commands_that_exist(self) -> None:
        """A hint must not name a command that does not exist."""
        commands = {
            name
            for folder in ("kernel", "modules", "images", "ci")
            for path in (PROJECT / folder).rglob("*.py")
            for text in messages(path)
            for name in re.findall(r"\./inv ([a-z][a-z.-]*[a-z])", text)
        }
        assert commands - {"again"} <= set(tasks.namespace.task_names)


def messages(path: Path) -> list[str]:
    """The strings in a source file, without its docstrings."""
    tree = ast.parse(path.read_text())
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in statements
    ]


def inside(sandbox: Sandbox, script: str) -> subprocess.CompletedProcess[str]:
    """Output of a shell inside; the root is the host's, read-only."""
    return subprocess.run(sandbox.argv(["sh", "-c", script]), capture_output=True, text=True)


class TestSandbox:
    def test_root_is_read_only(self, tmp_path: Path) -> None:
        done = inside(Sandbox(Path("/")), f"touch {tmp_path}/x /etc/blockyard-test")
        assert done.returncode != 0
        assert done.stderr.count("Read-only file system") + done.stderr.count("No such file") == 2
        assert not (tmp_path / "x").exists()

    def test_network_has_only_a_loopback(self) -> None:
        done = inside(Sandbox(Path("/")), "tail -n +3 /proc/net/dev | cut -d: -f1")
        assert done.stdout.split() == ["lo"]

    def test_network_is_shared_on_request(self) -> None:
        assert "--unshare-net" in Sandbox(Path("/")).argv(["true"])
        assert "--unshare-net" not in Sandbox(Path("/"), network=True).argv(["true"])

    def test_bound_folders_are_below_mnt(self, tmp_path: Path) -> None:
        for name in ("source", "output"):
            (tmp_path / name).mkdir()
        (tmp_path / "source" / "file").write_text("text")
        sandbox = Sandbox(
            Path("/"),
            read_only={"src": tmp_path / "source"},
            writable={"out": tmp_path / "output"},
        )
        assert inside(sandbox, "cp /mnt/src/file /mnt/out/copy").returncode == 0
        assert (tmp_path / "output" / "copy").read_text() == "text"
        assert inside(sandbox, "touch /mnt/src/x").returncode != 0
        assert sorted(inside(sandbox, "ls /mnt").stdout.split()) == ["out", "src"]

    def test_environment_of_the_host_is_not_passed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "of the host")
        done = inside(Sandbox(Path("/"), environment={"KBUILD_BUILD_USER": "x"}), "env")
        names = {line.partition("=")[0] for line in done.stdout.splitlines()}
        assert {"PATH", "HOME", "LC_ALL", "KBUILD_BUILD_USER"} <= names
        assert "SECRET" not in names

    def test_processes_of_the_host_are_hidden(self) -> None:
        done = inside(Sandbox(Path("/")), "ls -d /proc/[0-9]* | wc -l")
        assert int(done.stdout) < 8

    def test_sandbox_dies_with_its_parent(self) -> None:
        assert "--die-with-parent" in Sandbox(Path("/")).argv(["true"])

    def test_current_directory(self) -> None:
        argv = Sandbox(Path("/")).argv(["pwd"], directory="/tmp")
        assert subprocess.run(argv, capture_output=True, text=True).stdout == "/tmp\n"

    def test_arguments_of_the_command_are_passed_unchanged(self) -> None:
        argv = Sandbox(Path("/r")).argv(["--unshare-net", "a b"])
        assert argv[-3:] == ["--", "--unshare-net", "a b"]

    def test_devices_are_bound_on_request(self) -> None:
        argv = Sandbox(Path("/r"), devices=["/dev/kvm"]).argv(["true"])
        at = argv.index("--dev-bind")
        assert argv[at : at + 3] == ["--dev-bind", "/dev/kvm", "/dev/kvm"]
        assert "/dev/kvm" not in Sandbox(Path("/r")).argv(["true"])


class TestProxies:
    """A proxy's password is passed in the environment and never in an argument list."""

    @pytest.fixture(autouse=True)
    def proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://me:SECRET@proxy.example")
        monkeypatch.delenv("https_proxy", raising=False)

    def test_proxy_is_passed_in_the_environment_only(self) -> None:
        sandbox = Sandbox(Path("/"), network=True)
        done = inside(sandbox, "env; tr '\\0' ' ' </proc/1/cmdline")
        assert "http_proxy=http://me:SECRET@proxy.example\n" in done.stdout
        assert "https_proxy" not in done.stdout
        assert done.stdout.count("SECRET") == 1
        assert "SECRET" not in " ".join(sandbox.argv(["true"]))

    def test_no_proxy_without_network_or_with_proxies_off(self) -> None:
        for sandbox in (Sandbox(Path("/")), Sandbox(Path("/"), network=True, proxies=False)):
            assert "SECRET" not in inside(sandbox, "env").stdout


class TestNested:
    def test_sandbox_inside_a_nested_sandbox(self, cache: Path) -> None:
        """The inner sandbox has no new /proc, and host settings stay read-only."""
        here, script = (
            Path(sys.executable).resolve(),
            (
                "import subprocess; from pathlib import Path\n"
                "from blockyard.kernel.host.sandbox import Sandbox\n"
                "argv = Sandbox(Path('/')).argv(['sh', '-c', 'id -u; "
                "touch /proc/sys/kernel/core_pattern || unshare -U true || echo held'])\n"
                "print(subprocess.run(argv, capture_output=True, text=True).stdout)"
            ),
        )
        (cache / "sandbox").mkdir(parents=True)
        inner = {"PYTHONPATH": ":".join(sys.path), "BLOCKYARD_CACHE": f"{BIND}/cache"}
        sandbox = Sandbox(
            Path("/"),
            writable={"cache": cache},
            environment=inner,
            nested=True,
            shown=[PROJECT],
        )
        done = subprocess.run(
            sandbox.argv([str(here), "-c", script], directory=str(PROJECT)),
            capture_output=True,
            text=True,
        )
        assert done.stdout.split() == ["0", "held"], done.stderr

    def test_no_user_namespaces_in_other_sandboxes(self) -> None:
        done = inside(Sandbox(Path("/")), "unshare --user true && echo made")
        assert done.stdout == ""


class TestUnpacking:
    def test_setuid_bits_are_dropped(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/program").write_text("x")
        (tmp_path / "in/program").chmod(0o6755)
        (tmp_path / "out").mkdir()
        tar = ["tar", "-cf", str(tmp_path / "a.tar"), "-C", str(tmp_path / "in"), "program"]
        subprocess.run(tar, check=True)
        tarball.unpack(
            tmp_path / "a.tar", tmp_path / "tree", root_tools(), tmp_path / "log", strip=0
        )
        assert (tmp_path / "tree/program").stat().st_mode & 0o7777 == 0o755


def root_tools() -> ToolRoot:
    class HostsOwn(ToolRoot):
        @property
        def root(self) -> Path:
            return Path("/")

    return HostsOwn(Path("/nowhere"))


class TestMirrors:
    def test_setting_wins_over_apt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOCKYARD_MIRROR", "http://mirror.example/debian/")
        assert configured_mirrors() == Mirrors(
            "http://mirror.example/debian", "http://mirror.example/debian-security"
        )

    @pytest.mark.parametrize(
        ("listing", "expected"),
        [
            (
                "Debian|http://a.example/debian/\nDebian-Security|http://b.example/sec/\n",
                Mirrors("http://a.example/debian", "http://b.example/sec"),
            ),
            (
                "Debian|http://a.example/debian/\n",
                Mirrors("http://a.example/debian", "http://a.example/debian-security"),
            ),
            ("Ubuntu|http://archive.ubuntu.com/ubuntu/\n", None),
            ("", None),
        ],
    )
    def test_mirrors_of_a_debian_host_are_used(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        listing: str,
        expected: Mirrors | None,
    ) -> None:
        """Mirrors of an Ubuntu host are not used."""
        (tmp_path / "listing").write_text(listing)
        program = tmp_path / "apt-get"
        program.write_text(f"#!/bin/sh\nexec cat {tmp_path}/listing\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert configured_mirrors() == expected

    def test_host_without_apt_has_no_mirrors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert configured_mirrors() is None


class TestRootSpec:
    def test_key_ignores_the_order_of_packages(self) -> None:
        assert RootSpec("trixie", ("a", "b")).key == RootSpec("trixie", ("b", "a")).key

    def test_key_covers_suite_and_packages(self) -> None:
        specs = [("trixie", ("a",)), ("trixie", ("a", "b")), ("bookworm", ("a",))]
        assert len({RootSpec(suite, packages).key for suite, packages in specs}) == 3

    @pytest.mark.parametrize("name", ["kernel/toolroot.toml", "images/guest_root.toml"])
    def test_our_root_specs_are_valid(self, name: str) -> None:
        spec = load_spec(PROJECT / name)
        assert spec.suite == "trixie"
        assert len(set(spec.packages)) == len(spec.packages) > 5
