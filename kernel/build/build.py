# SPDX-License-Identifier: GPL-2.0-or-later
"""From a source tree and configuration fragments to a `Kernel`.

The output tree stays in the cache beside the artifacts: an interrupted build goes on where it
was, and modules outside the tree are built against it. When the tree never changes, a finished one
is kept for such modules alone, and what they do not read is removed; that of a directory is kept
whole, since the directory's next state is built in it.
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

LOG_BYTES = 64 << 20  # of the log's end, looked at for warnings; a log of ours has 1 MB
LINE_LENGTH = 1000
VMLINUX_BYTES = 16 << 30  # with debug information, for gdb and drgn
MOST_FILES = 1000  # with warnings, kept
_CLANG = re.compile(r"(\S+?):\d+:\d+: warning:")
_RUSTC = re.compile(r"\s*--> (\S+?):\d+:\d+")
PRUNED = ".blockyard-pruned"  # in an output tree that `prune` went over
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
    """The kernel of these inputs, from the cache or built now.

    Raises Failure with the path of the log when a symbol is dropped or the compile fails.
    """

    def make(path: Path) -> None:
        make_kernel(job, path)

    def made_from() -> Provenance:
        from blockyard.kernel.build import statements  # only for what is made now

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
    """Configures, compiles and collects a kernel into `path`, an empty folder."""
    begun = time.monotonic()
    # two states of one directory share an output tree
    with store.locked("builds", job.out_key, f"the build of {job.name}"):
        if (job.out / PRUNED).exists():  # its kernel was dropped, and no half-done build is left
            store.remove(job.out)
        if not job.out.is_dir():  # else an interrupted build goes on, and so does its log
            job.log.unlink(missing_ok=True)
            job.usage.unlink(missing_ok=True)
        _make_kernel(job, path, begun)


@contextlib.contextmanager
def ready_for_modules(job: BuildSpec) -> Iterator[None]:
    """Keeps the output tree what modules of this kernel are built against.

    It is made again when it is not that any more: the cache may have given it up, or another state
    of the same directory was built in it.
    """
    with store.locked("builds", job.out_key, f"the build of {job.name}"):
        if not _is_whole(job):
            _make_again(job)
        yield


def _make_again(job: BuildSpec) -> None:
    if not job.tree.build_id:
        store.remove(job.out)
    with step(f"configuring kernel {job.name}", log=job.log):
        configure(job)
    with step(f"building kernel {job.name} again, which modules need", log=job.log):
        job.compile(arch.target().image.target, "modules", doing="the build failed")
    if not job.tree.build_id:
        prune(job.out)


def _is_whole(job: BuildSpec) -> bool:
    """Whether modules can be built in the output tree for the kernel of this job."""
    if not (job.out / "Module.symvers").is_file():
        return False
    kernel = store.peek("kernels", job.key)
    if not job.tree.build_id or kernel is None:
        return True
    kept = {"System.map": kernel / "System.map", ".config": kernel / "config"}
    if any(_content(job.out, name) != file.read_bytes() for name, file in kept.items()):
        return False
    known = artifact.load(kernel).info.exports_sha256
    return not known or _sha256(_content(job.out, "Module.symvers")) == known


def _content(out: Path, name: str) -> bytes:
    """A file of the output tree; empty when there is none."""
    return untrusted.read(out, name) if untrusted.is_file(out, name) else b""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _make_kernel(job: BuildSpec, path: Path, begun: float) -> None:
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
    artifact.save_info(path, _describe(job, wall_s=round(time.monotonic() - begun, 1)))


def _collect(job: BuildSpec, path: Path) -> None:
    """Copies what a guest needs out of the output tree."""
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
    """What modules_install does to unsigned, uncompressed modules, without another make."""
    release = _release(job)
    lines = untrusted.read_text(job.out, "modules.order").split()
    names = [module_name(line) for line in lines]
    for name in names:
        untrusted.copy(job.out, name, modules / release / "kernel" / name)
    # a kernel without any module has this folder, too
    (modules / release).mkdir(parents=True, exist_ok=True)
    order = "".join(f"kernel/{name}\n" for name in names)
    (modules / release / "modules.order").write_text(order)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        untrusted.copy(job.out, name, modules / release / name)
    depmod(modules, release, job.tools)


def prune(out: Path) -> None:
    """Leaves of a finished output tree what modules outside the kernel tree are built against."""
    if not out.is_dir():
        return
    # first: a tree that was pruned in part is no half-done build either
    untrusted.write(out, PRUNED, b"")
    kept = {path for pattern in KEPT for path in out.glob(pattern)}
    parents = {parent for path in kept for parent in path.parents}
    _prune(out, kept, parents)


def _prune(folder: Path, kept: set[Path], parents: set[Path]) -> None:
    for path in folder.iterdir():
        if path.is_symlink():  # whatever its name: what is behind it is not of this tree
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
    """A module's file below the output tree, from a line of modules.order.

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
    """What all makes of a build took, from BuildSpec.usage."""

    cpu_s: float = 0.0
    reused: int = 0  # C objects that ccache had
    commands: tuple[str, ...] = ()


def usage(path: Path) -> Usage:
    """What all makes of a build took; nothing where none was run."""
    if not path.exists():
        return Usage()
    # a command is not there in what a build left that was begun before November 2026
    rows = [line.split(" ", 2) for line in path.read_text().splitlines()]
    return Usage(
        round(sum(float(cpu) for cpu, *_ in rows), 1),
        sum(int(hits) for _, hits, *_ in rows),
        tuple(command for _, _, *commands in rows for command in commands),
    )


def warnings(log: str) -> dict[str, int]:
    """Compiler warnings per source file, from make's output (clang and rustc).

    The makefiles can print what they like: it is counted and kept within bounds.
    """
    names: Counter[str] = Counter()
    previous = ""
    for line in log.splitlines():
        line = line[:LINE_LENGTH]
        found = _CLANG.match(line)
        if found is None and previous.startswith("warning: "):
            found = _RUSTC.match(line)
        if found:
            names[found[1].removeprefix(f"{BIND}/src/")] += 1
        previous = line
    return dict(sorted(names.most_common(MOST_FILES)))
