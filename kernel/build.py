# SPDX-License-Identifier: GPL-2.0-or-later
"""From a source tree and configuration fragments to a `Kernel`.

``tinyconfig`` plus the fragments goes through the kernel's own olddefconfig; every symbol that
was asked for is proved to be in the result before anything is compiled. The compile runs in the
tool root: the tree is read-only at /mnt/src, the output tree writable at /mnt/out, no network.

The output tree stays in the cache beside the artifacts: an interrupted build goes on where it
was, and modules outside the tree are built against it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel import artifact, explain, kconfig
from kernel.artifact import Kernel, KernelInfo
from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed, UserError
from kernel.host.process import run
from kernel.host.progress import step
from kernel.host.sandbox import BIND, Sandbox
from kernel.host.settings import PROJECT, settings
from kernel.kconfig import Fragment
from kernel.sources import Tree

RECIPE = 1  # raise it when the same inputs give another kernel
READ_S = 300  # reading a Kconfig takes 4 s; a tree whose Kconfig never ends is not waited for
# What a kernel's bytes depend on besides its inputs: program → its Debian package (the package
# `clang` is an empty one that names the version in use).
TOOLS = {"clang": r"clang-\d+", "lld": r"lld-\d+", "rustc": "rustc", "bindgen": "bindgen"}

# Runs its arguments and prints the CPU time they took, for cpu_seconds(). From outside it cannot be
# seen: the sandbox's own init reaps the processes.
TIMED = ("bash", "-c", 'TIMEFORMAT="blockyard: cpu %U %S"; time "$@"', "bash")

# Fixed, so that the same inputs give the same bytes (Documentation/kbuild/reproducible-builds.rst).
REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "blockyard",
    "KBUILD_BUILD_HOST": "blockyard",
}


@dataclass(frozen=True)
class Build:
    """One kernel to build: everything that its bytes depend on."""

    name: str  # the catalog's
    tree: Tree
    fragments: tuple[Fragment, ...]  # a later one wins
    tools: ToolRoot

    @property
    def key(self) -> str:
        """Names the kernel in the cache; the same inputs give the same key."""
        config = kconfig.render(kconfig.merge(self.fragments))
        return store.digest("kernel", RECIPE, self.tree.origin, config, self.toolchain)

    @property
    def toolchain(self) -> dict[str, str]:
        """Program → version of its Debian package."""
        return {
            tool: version
            for tool, pattern in TOOLS.items()
            for package, version in self.tools.versions.items()
            if re.fullmatch(pattern, package)
        }

    @property
    def out(self) -> Path:
        """The output tree (objects, generated headers, Rust metadata)."""
        return store.directory("builds") / self.key

    @property
    def log(self) -> Path:
        """Everything that make printed."""
        return store.directory("logs") / f"kernel-{self.key}.log"

    def sandbox(self, **read_only: Path) -> Sandbox:
        """The tool root with the tree and the output tree in it."""
        return Sandbox(
            self.tools.root,
            read_only={"src": self.tree.path, **read_only},
            writable={"out": self.out},
            environment=REPRODUCIBLE,
        )

    def make_argv(self, *targets: str) -> list[str]:
        """The make command as typed inside the sandbox."""
        argv = ["make", "-C", f"{BIND}/src", f"O={BIND}/out", f"-j{settings().jobs}"]
        # syn, a host library that only runs inside the build, compiles in 5 s instead of 28
        return [*argv, "LLVM=1", "HOSTRUSTFLAGS=-Copt-level=0", *targets]

    def make(self, *targets: str, doing: str) -> None:
        """Runs make in the sandbox."""
        argv = self.sandbox().argv([*TIMED, *self.make_argv(*targets)])
        run(argv, log=self.log, doing=f"kernel {self.name}: {doing}")


def base_fragment() -> Fragment:
    """What every test kernel needs to boot and to be tested."""
    return read_fragment(PROJECT / "kernel" / "fragments" / "base.config")


def read_fragment(path: Path) -> Fragment:
    """A configuration fragment from a file, named as a user would find it."""
    name = str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
    try:
        return Fragment(name, path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration fragment {path}: {error}") from None


def build(job: Build) -> Kernel:
    """The kernel of these inputs, from the cache or built now.

    Raises Failed with the path of the log when a symbol is dropped or the compile fails.
    """

    def make(path: Path) -> None:
        make_kernel(job, path)

    path = store.get("kernels", job.key, f"kernel {job.name}", make)
    return artifact.load(path, job.name)


def make_kernel(job: Build, path: Path) -> None:
    """Configures, compiles and collects a kernel into `path`, an empty folder."""
    if not job.out.is_dir():  # else an interrupted build goes on, and so does its log
        job.log.unlink(missing_ok=True)
    begun = time.monotonic()
    with step(f"configuring kernel {job.name}", log=job.log):
        configure(job)
    with step(f"building kernel {job.name}", log=job.log):
        job.make("bzImage", "modules", doing="the build failed")
        job.make(
            "modules_install",
            f"INSTALL_MOD_PATH={BIND}/out/install",
            doing="modules_install failed",
        )
        _collect(job, path)
    artifact.save_info(path, _describe(job, wall_s=round(time.monotonic() - begun, 1)))


def configure(job: Build) -> None:
    """Writes the output tree's ``.config`` and proves it; raises Failed for a dropped symbol."""
    job.out.mkdir(parents=True, exist_ok=True)
    merged = kconfig.merge(job.fragments)
    job.make("tinyconfig", doing="tinyconfig failed")
    config = job.out / ".config"
    config.write_text(config.read_text() + kconfig.render(merged))
    job.make("olddefconfig", doing="olddefconfig failed")
    dropped = kconfig.prove(merged.requests, kconfig.parse(config.read_text()))
    if dropped:
        names = ", ".join(f"CONFIG_{one.symbol}" for one in dropped)
        report = ask(job, [one.symbol for one in dropped], merged)
        reasons = explain.explain_failure(report) or explain.explain_dropped(
            report, dropped, merged.requests
        )
        raise Failed(f"kernel {job.name}: the configuration lost {names}\n{reasons}", log=job.log)


def ask(job: Build, symbols: Sequence[str], merged: kconfig.Merged) -> explain.Report:
    """What the tree's Kconfig says of some symbols, read in the sandbox (about 4 s).

    merged: what was asked for, so that the answer says what stands against it. A tree runs
    programs while its Kconfig is read, and trees are not trusted.
    """
    kconfiglib = importlib.util.find_spec("kconfiglib")
    if kconfiglib is None or kconfiglib.origin is None:
        raise Failed("kconfiglib is not installed", hint="remove .venv and run ./inv again")
    sandbox = job.sandbox(
        **{
            "tools/kconfiglib.py": Path(kconfiglib.origin),
            "tools/kconfig_reader.py": PROJECT / "kernel" / "kconfig_reader.py",
        }
    )
    argv = ["python3", f"{BIND}/tools/kconfig_reader.py", "--srctree", f"{BIND}/src"]
    argv += ["--config", f"{BIND}/out/.config", "--make-var", "LLVM=1"]
    for symbol in symbols:
        if request := merged.requests.get(symbol):
            argv += ["--fragment-value", f"{symbol}={request.value}"]
    argv = sandbox.argv([*argv, *symbols], directory="/tmp")
    answer = job.out / ".blockyard-answer.json"
    with step("reading the tree's Kconfig"):
        try:
            run(
                argv,
                log=job.log,
                doing=f"kernel {job.name}: reading its Kconfig",
                stdout=answer,
                timeout_s=READ_S,
            )
        except Failed:
            # the reader's own complaint is an answer too
            if not answer.read_bytes().startswith(b"{"):
                raise
    report: explain.Report = json.loads(answer.read_bytes())
    answer.unlink()
    return report


def _collect(job: Build, path: Path) -> None:
    """Copies what a guest needs out of the output tree."""
    out = job.out
    shutil.copyfile(out / "arch/x86/boot/bzImage", path / "bzImage")
    shutil.copyfile(out / "System.map", path / "System.map")
    shutil.copyfile(out / ".config", path / "config")
    shutil.copyfile(job.log, path / "build.log")
    shutil.copytree(
        out / "install/lib/modules",
        path / "modules",
        symlinks=True,
        ignore=shutil.ignore_patterns("build", "source"),
    )
    store.remove(out / "install")


def _describe(job: Build, wall_s: float) -> KernelInfo:
    config = (job.out / ".config").read_bytes()
    log = job.log.read_text(errors="replace")
    return KernelInfo(
        key=job.key,
        name=job.name,
        release=(job.out / "include/config/kernel.release").read_text().strip(),
        source=job.tree.origin,
        config_sha256=hashlib.sha256(config).hexdigest(),
        toolchain=job.toolchain,
        wall_s=wall_s,
        cpu_s=cpu_seconds(log),
        warnings=warnings(log),
    )


def cpu_seconds(log: str) -> float:
    """User and system time of all makes of a build, from its log."""
    times = re.findall(r"^blockyard: cpu (\S+) (\S+)$", log, re.MULTILINE)
    return round(sum(float(user) + float(system) for user, system in times), 1)


def warnings(log: str) -> dict[str, int]:
    """Compiler warnings per source file, from make's output (clang and rustc)."""
    clang = re.findall(r"^(\S+?):\d+:\d+: warning:", log, re.MULTILINE)
    rustc = re.findall(r"^warning: .*\n\s*--> (\S+?):\d+:\d+", log, re.MULTILINE)
    names = (name.removeprefix(f"{BIND}/src/") for name in [*clang, *rustc])
    return dict(sorted(Counter(names).items()))
