# SPDX-License-Identifier: GPL-2.0-or-later
"""From a source tree and configuration fragments to a `Kernel`.

The output tree stays in the cache beside the artifacts: an interrupted build continues in it, and
modules outside the tree are built against it. If the source tree cannot change, a finished output
tree is pruned to the files that such modules need. If it is a directory of the user, the output
tree is kept whole, since the directory's next state is built in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from blockyard.kernel import arch, artifact
from blockyard.kernel.artifact import IMAGE, UNPACKED, Kernel, KernelInfo
from blockyard.kernel.build import ccache
from blockyard.kernel.build.configure import configure
from blockyard.kernel.build.depmod import depmod
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config import kconfig
from blockyard.kernel.host import gc, process, store, untrusted
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.sandbox import BIND
from blockyard.kernel.sources import directory

if TYPE_CHECKING:
    from blockyard.kernel.host.provenance import Provenance

LOG_BYTES = 64 << 20  # at the log's end, searched for warnings; a usual log has 1 MB
LINE_LENGTH = 1000  # characters of a line that are searched
VMLINUX_BYTES = 16 << 30  # with debug information, for gdb and drgn
MAX_FILES = 1000  # source files whose warnings are recorded
_CLANG = re.compile(r"(\S+?):\d+:\d+: warning:")
_RUSTC = re.compile(r"\s*--> (\S+?):\d+:\d+")
PRUNED = ".blockyard-pruned"  # marks an output tree that was pruned
# What `make M=` reads: configuration, generated headers, programs of the build, Rust's metadata.
KEPT = (
    PRUNED,
    ".config",
    ".config.asked",
    ".gitignore",
    "Makefile",
    "Module.symvers",
    "arch/*/include",
    "certs",
    "include",
    "rust/*.rmeta",
    "rust/*.so",
    "scripts",
    "tools/bpf/resolve_btfids/resolve_btfids",
    "tools/objtool/objtool",
)


def build(job: BuildSpec) -> Kernel:
    """Return the kernel, from the cache or built now.

    Raises Failure with the path of the log if a symbol is dropped or the compile fails.
    """

    def make(path: Path) -> None:
        make_kernel(job, path)

    def made_from() -> Provenance:
        from blockyard.kernel.build import statements  # only needed for a new entry

        return statements.of_kernel(job)

    path = store.use("kernels", job.key)
    if path is None:
        path = store.get("kernels", job.key, f"kernel {job.name}", make, provenance=made_from)
        if not job.tree.build_id:
            with store.locked("builds", job.out_key, f"the build of {job.name}"):
                prune(job.out)
        if job.objects:
            ccache.trim(job.tools)
        gc.keep_to_budget()
    return artifact.load(path, job.name)


def make_kernel(job: BuildSpec, path: Path) -> None:
    """Configure and compile a kernel, and collect its files in `path`, an empty folder."""
    started = time.monotonic()
    # two states of one directory share an output tree
    with store.locked("builds", job.out_key, f"the build of {job.name}"):
        if (job.out / PRUNED).exists():  # its kernel was removed from the cache: start afresh
            store.remove(job.out)
        if not job.out.is_dir():  # else an interrupted build continues, with its log
            job.log.unlink(missing_ok=True)
            job.usage.unlink(missing_ok=True)
        _make_kernel(job, path, started)


@contextlib.contextmanager
def ready_for_modules(job: BuildSpec) -> Iterator[None]:
    """Lock the output tree while modules are built against it.

    It is built again if it does not fit the kernel any more: the cache may have removed it, or
    another state of the same directory was built in it.
    """
    with store.locked("builds", job.out_key, f"the build of {job.name}"):
        if not _fits_kernel(job):
            _rebuild(job)
        yield


def _rebuild(job: BuildSpec) -> None:
    if not job.tree.build_id:
        store.remove(job.out)
    with step(f"configuring kernel {job.name}", log=job.log):
        configure(job)
    with step(f"building kernel {job.name} again for its modules", log=job.log):
        job.compile(arch.target().image.target, "modules", doing="the build failed")
    if not job.tree.build_id:
        prune(job.out)


def _fits_kernel(job: BuildSpec) -> bool:
    """Whether modules for the kernel of this job can be built against the output tree."""
    if not (job.out / "Module.symvers").is_file():
        return False
    kernel = store.peek("kernels", job.key)
    if not job.tree.build_id or kernel is None:
        return True
    copies = {"System.map": kernel / "System.map", ".config": kernel / "config"}
    if any(_content(job.out, name) != file.read_bytes() for name, file in copies.items()):
        return False
    exports = artifact.load(kernel).info.exports_sha256
    return not exports or _sha256(_content(job.out, "Module.symvers")) == exports


def _content(out: Path, name: str) -> bytes:
    """The contents of a file of the output tree; empty if the file is missing."""
    return untrusted.read(out, name) if untrusted.is_file(out, name) else b""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _make_kernel(job: BuildSpec, path: Path, started: float) -> None:
    with step(f"configuring kernel {job.name}", log=job.log):
        configure(job)
    with step(f"building kernel {job.name}", log=job.log):
        job.compile(arch.target().image.target, "modules", doing="the build failed")
        _collect(job, path)
    if directory.changed(job.tree):
        raise Failure(
            f"{job.tree.path} changed while it was built",
            hint="build it again: only what changed is compiled",
        )
    artifact.save_info(path, _describe(job, wall_s=round(time.monotonic() - started, 1)))


def _collect(job: BuildSpec, path: Path) -> None:
    """Copy the files that a guest needs out of the output tree."""
    image = arch.target().image
    untrusted.copy(job.out, image.path, path / IMAGE)
    untrusted.copy(job.out, "System.map", path / "System.map")
    untrusted.copy(job.out, ".config", path / "config")
    config = kconfig.parse((path / "config").read_text(errors="replace"))
    if config.get(image.unpacked_needs) == "y":
        untrusted.copy(job.out, image.unpacked, path / UNPACKED)
    if config.get("DEBUG_INFO") == "y":
        untrusted.copy(job.out, "vmlinux", path / "vmlinux", VMLINUX_BYTES)
    (path / "build.log").write_bytes(process.end_of(job.log, LOG_BYTES))
    _collect_modules(job, path / "modules")


def _collect_modules(job: BuildSpec, modules: Path) -> None:
    """Install unsigned, uncompressed modules as modules_install does, without another make."""
    release = _release(job)
    lines = untrusted.read_text(job.out, "modules.order").split()
    names = [module_name(line) for line in lines]
    out = job.out  # marks the tree as used each time
    for name in names:
        untrusted.copy(out, name, modules / release / "kernel" / name)
    # also for a kernel without modules
    (modules / release).mkdir(parents=True, exist_ok=True)
    order = "".join(f"kernel/{name}\n" for name in names)
    (modules / release / "modules.order").write_text(order)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        untrusted.copy(job.out, name, modules / release / name)
    depmod(modules, release, job.tools)


def prune(out: Path) -> None:
    """Remove all from a finished output tree but what modules outside the tree need (`KEPT`)."""
    if not out.is_dir():
        return
    # first, so that a partly pruned tree is not taken for an interrupted build
    untrusted.write(out, PRUNED, b"")
    kept = {path for pattern in KEPT for path in out.glob(pattern)}
    parents = {parent for path in kept for parent in path.parents}
    _prune(out, kept, parents)


def _prune(folder: Path, kept: set[Path], parents: set[Path]) -> None:
    for path in folder.iterdir():
        if path.is_symlink():  # also under a kept name: it may point out of the tree
            path.unlink()
        elif path in kept:
            continue
        elif path in parents:
            _prune(path, kept, parents)
        elif path.is_dir():
            store.remove(path)
        else:
            path.unlink()


def module_name(line: str) -> str:
    """The path of a module in the output tree, from its line in modules.order.

    The line is "drivers/block/x.o" since 6.4, "kernel/drivers/block/x.ko" before.
    """
    return str(Path(line.removeprefix("kernel/")).with_suffix(".ko"))


def _release(job: BuildSpec) -> str:
    release = untrusted.read_text(job.out, "include/config/kernel.release").strip()
    if not re.fullmatch(r"[0-9][\w.+~-]*", release):
        raise Failure(f"invalid kernel release {release!r}: expected a version such as 7.3.4")
    return release


def _describe(job: BuildSpec, wall_s: float) -> KernelInfo:
    config = untrusted.read(job.out, ".config", untrusted.CONFIG_BYTES)
    used = usage(job.usage)
    return KernelInfo(
        key=job.key,
        name=job.name,
        release=_release(job),
        source=job.tree.origin,
        config_sha256=_sha256(config),
        exports_sha256=_sha256(_content(job.out, "Module.symvers")),
        toolchain=dict(job.toolchain.versions),
        omitted=dict(job.omitted),
        wall_s=wall_s,
        cpu_s=used.cpu_s,
        reused_objects=used.reused,
        commands=used.commands,
        environment=job.sandbox().variables,
        warnings=warnings(process.tail_text(job.log, LOG_BYTES)),
    )


class Usage(NamedTuple):
    """The cost of all make runs of a build, from BuildSpec.usage."""

    cpu_s: float = 0.0
    reused: int = 0  # C objects that ccache had
    commands: tuple[str, ...] = ()


def usage(path: Path) -> Usage:
    """The cost of all make runs of a build; zero if none was run."""
    if not path.exists():
        return Usage()
    # a build that was started before November 2026 recorded no commands
    rows = [line.split(" ", 2) for line in path.read_text().splitlines()]
    return Usage(
        round(sum(float(cpu) for cpu, *_ in rows), 1),
        sum(int(hits) for _, hits, *_ in rows),
        tuple(command for _, _, *commands in rows for command in commands),
    )


def warnings(log: str) -> dict[str, int]:
    """Compiler warnings per source file, from make's output (clang and rustc).

    Makefiles can print anything, so the length of lines and the number of files are limited.
    """
    names: Counter[str] = Counter()
    previous = ""
    for line in log.splitlines():
        line = line[:LINE_LENGTH]
        match = _CLANG.match(line)
        if match is None and previous.startswith("warning: "):
            match = _RUSTC.match(line)
        if match:
            names[match[1].removeprefix(f"{BIND}/src/")] += 1
        previous = line
    return dict(sorted(names.most_common(MAX_FILES)))
