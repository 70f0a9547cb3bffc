# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian root file systems, made by mmdebstrap, and single packages, fetched by apt.

apt checks every signature against the Debian archive keyring; no other check is made here. The
mirror comes from the settings, else from a Debian host's apt configuration, else it is
mmdebstrap's default, which is read back from the root that mmdebstrap made.
"""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from blockyard.kernel.host import commands, host_packages, store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import PROJECT, settings

RECIPE = 3  # part of the key of roots and images: raise it when their build changes
TOOL_ROOT = PROJECT / "kernel" / "toolroot.toml"
NO_DOCS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


class RootSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Debian root: its suite and its packages."""

    suite: str  # such as "trixie"
    packages: tuple[str, ...]

    @property
    def key(self) -> str:
        """The cache key of the root made from this list."""
        return store.digest("root", RECIPE, self.suite, sorted(self.packages))


def load_spec(path: Path) -> RootSpec:
    """Reads a root's TOML file; raises msgspec.DecodeError for an invalid one."""
    return msgspec.toml.decode(path.read_bytes(), type=RootSpec)


@dataclass(frozen=True)
class Package:
    """A Debian package in one version."""

    name: str
    version: str


@dataclass(frozen=True)
class Mirrors:
    """URLs of the Debian mirrors, without a suite."""

    main: str
    security: str


def configured_mirrors() -> Mirrors | None:
    """The mirrors of the settings or of the host's apt; None: use mmdebstrap's default."""
    if mirror := settings().mirror.rstrip("/"):
        return Mirrors(mirror, f"{mirror}-security")
    try:
        listing = commands.ask(
            ["apt-get", "indextargets", "--format", "$(LABEL)|$(SITE)", "Created-By: Packages"]
        )
    except OSError:
        return None
    if listing.returncode:
        return None
    sites = dict(line.rpartition("|")[::2] for line in listing.stdout.splitlines())
    if "Debian" not in sites:
        return None
    main = sites["Debian"].rstrip("/")
    return Mirrors(main, sites.get("Debian-Security", f"{main}-security").rstrip("/"))


def _mirror_lines(suite: str) -> list[str]:
    """sources.list lines for mmdebstrap; empty: use its default mirror."""
    if (mirrors := configured_mirrors()) is None:
        return []
    return [
        f"deb {mirrors.main} {suite} main",
        f"deb {mirrors.main} {suite}-updates main",
        f"deb {mirrors.security} {suite}-security main",
    ]


def make_tar(spec: RootSpec, tar: Path, log: Path) -> None:
    """Makes a root file system as a tar; as a normal user by user namespaces.

    Raises Failure when host packages are missing or mmdebstrap fails.
    """
    if missing := host_packages.missing():
        raise Failure(
            f"host packages are not installed: {', '.join(missing)}",
            hint=host_packages.install_command(*missing),
        )
    argv = ["mmdebstrap", "--variant=apt", "--format=tar"]
    argv += ["--mode=root" if os.geteuid() == 0 else "--mode=unshare"]
    argv += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"']
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in NO_DOCS]
    argv += [f"--include={','.join(spec.packages)}", spec.suite, str(tar)]
    argv += _mirror_lines(spec.suite)
    # Root works beside the tar, so that leftovers go with it. A normal user's own folders may be
    # closed to the mapped user ids of the namespace.
    work = str(tar.parent) if os.geteuid() == 0 else "/var/tmp"
    run(argv, log=log, doing=f"making a Debian {spec.suite} root", env={"TMPDIR": work})


def make_root(spec: RootSpec, path: Path) -> None:
    """Makes a root and unpacks it at path/root, owned by the caller, with path/versions.txt."""
    tar = path / "root.tar"
    log = store.directory("logs") / f"root-{spec.key}.log"
    log.unlink(missing_ok=True)
    make_tar(spec, tar, log)
    root = path / "root"
    root.mkdir()
    run(
        ["tar", "-xf", str(tar), "-C", str(root), "--no-same-owner", "--exclude=./dev/*"],
        log=log,
        doing="unpacking the root",
    )
    tar.unlink()
    for name in ("resolv.conf", "hosts"):  # mount points for the host's
        file = root / "etc" / name
        file.unlink(missing_ok=True)
        file.touch()
    query = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\\n"]
    run(Sandbox(root).argv(query), log=log, doing="listing versions", stdout=path / "versions.txt")


@dataclass(frozen=True)
class ToolRoot:
    """The unpacked Debian root with compilers and QEMU."""

    path: Path  # the entry in the cache

    @property
    def root(self) -> Path:
        """The root directory of its file system."""
        return self.path / "root"

    @property
    def versions(self) -> dict[str, str]:
        """Debian package → version."""
        lines = (self.path / "versions.txt").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines if " " in line)


def ready_tool_root() -> ToolRoot | None:
    """The tool root if the cache has it, else None."""
    path = store.peek("roots", load_spec(TOOL_ROOT).key)
    return ToolRoot(path) if path else None


def tool_root() -> ToolRoot:
    """The tool root; makes it when the cache has none (a minute, 2 GB). Raises Failure."""
    spec = load_spec(TOOL_ROOT)

    def make(path: Path) -> None:
        with step("making the tool root: compilers and QEMU from Debian"):
            make_root(spec, path)

    return ToolRoot(store.get("roots", spec.key, "the tool root", make))


class Archive:
    """Some suites of Debian's archive, queried with the tool root's apt and separate lists."""

    def __init__(self, tools: ToolRoot, suites: tuple[str, ...]) -> None:
        self._tools = tools
        self._suites = suites
        self._path = store.directory("apt") / store.digest(suites)
        self._log = store.directory("logs") / f"apt-{self._path.name}.log"

    def _sandbox(self, writable: dict[str, Path]) -> Sandbox:
        return Sandbox(
            self._tools.root,
            writable={"apt": self._path, **writable},
            network=True,
            environment={"APT_CONFIG": f"{BIND}/apt/apt.conf"},
        )

    def _mirrors(self) -> Mirrors:
        if mirrors := configured_mirrors():
            return mirrors
        text = (self._tools.root / "etc/apt/sources.list").read_text()
        pattern = r"^deb (?:\[[^]]*\] )?(\S+) (\S+)"
        by_suite = {suite: url for url, suite in re.findall(pattern, text, re.MULTILINE)}
        main = next(url for suite, url in by_suite.items() if not suite.endswith("-security"))
        security = [url for suite, url in by_suite.items() if suite.endswith("-security")]
        return Mirrors(main, security[0] if security else f"{main}-security")

    def update(self) -> None:
        """Fetches the package lists; raises Failure when the mirror does not answer."""
        for name in ("lists/partial", "cache/archives/partial", "state"):
            (self._path / name).mkdir(parents=True, exist_ok=True)
        mirrors = self._mirrors()
        lines = [
            f"deb {mirrors.security if suite.endswith('-security') else mirrors.main} {suite} main"
            for suite in self._suites
        ]
        store.write(self._path / "sources.list", "\n".join([*lines, ""]).encode())
        options = {
            "Dir::Etc::SourceList": f"{BIND}/apt/sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::State": f"{BIND}/apt/state",
            "Dir::State::status": "/dev/null",
            "Dir::State::lists": f"{BIND}/apt/lists",
            "Dir::Cache": f"{BIND}/apt/cache",
            "Dir::Etc::TrustedParts": "/etc/apt/trusted.gpg.d",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        text = "".join(f'{name} "{value}";\n' for name, value in options.items())
        store.write(self._path / "apt.conf", text.encode())
        with step("updating Debian's package lists"):
            try:
                self._update()
            except Failure as error:
                if "is expired" not in str(error):
                    raise
                # a mirror that is weeks behind; the signatures are still checked
                note(
                    f"using the mirror's lists of {', '.join(self._suites)}, "
                    "although they are out of date"
                )
                self._update("-o", "Acquire::Check-Valid-Until=false")

    def _update(self, *options: str) -> None:
        # without Error-Mode apt only warns when a mirror does not answer
        argv = ["apt-get", "-o", "APT::Update::Error-Mode=any", *options, "update"]
        run(self._sandbox({}).argv(argv), log=self._log, doing="updating Debian's package lists")

    def newest(self, pattern: str) -> Package | None:
        """The newest package whose name matches `pattern` (``*``: a kernel release).

        None when the suites have no such package.
        """
        names = fnmatch.filter(self._ask("pkgnames", pattern.partition("*")[0]), pattern)
        if not names:
            return None
        name = max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        # "package | version | URL suite/component arch Packages", the newest first (apt-cache(8))
        rows = [line.split("|") for line in self._ask("madison", name)]
        return Package(name, rows[0][1].strip()) if rows else None

    def size(self, package: Package) -> int:
        """The download size of a package in bytes; 0 when the lists do not have it."""
        fields = self._ask("show", f"{package.name}={package.version}")
        sizes = [line.partition(": ")[2] for line in fields if line.startswith("Size: ")]
        return int(sizes[0]) if sizes else 0

    def _ask(self, *question: str) -> list[str]:
        answer = self._path / "answer.txt"
        argv = self._sandbox({}).argv(["apt-cache", *question])
        run(argv, log=self._log, doing="reading Debian's package lists", stdout=answer)
        return answer.read_text().splitlines()

    def download(self, package: Package, target: Path) -> Path:
        """Fetches a package file into `target` and returns its path; apt checks the signature.

        Raises Failure.
        """
        argv = ["apt-get", "download", f"{package.name}={package.version}"]
        sandbox = self._sandbox({"target": target})
        doing = f"fetching {package.name} {package.version}"
        with step(doing):
            run(sandbox.argv(argv, directory=f"{BIND}/target"), log=self._log, doing=doing)
        files = list(target.glob(f"{package.name}_*.deb"))
        if len(files) != 1:
            raise Failure(f"{doing}: apt-get download made {len(files)} files", log=self._log)
        return files[0]

    def unpack(self, package_file: Path, target: Path) -> None:
        """Unpacks a package's files into `target`; runs none of its scripts."""
        sandbox = Sandbox(
            self._tools.root,
            read_only={"package.deb": package_file},
            writable={"target": target},
        )
        argv = ["dpkg-deb", "--extract", f"{BIND}/package.deb", f"{BIND}/target"]
        run(sandbox.argv(argv), log=self._log, doing=f"unpacking {package_file.name}")
