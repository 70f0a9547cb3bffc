# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a guest boots from, each made once and kept in the cache.

- the guest root: a Debian system as a read-only erofs image;
- the guest program: PID 1 and the console's other end (`images/guest`), one static binary;
- the initramfs: the guest program and the modules that this kernel needs to reach its disks;
- the module image: ``/lib/modules`` of this kernel as a second erofs image.

The images are erofs: a read-only file system without a journal, and a small part of the kernel.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.images import cpio
from blockyard.kernel import arch
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.build.depmod import depmod
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import RECIPE, ToolRoot, load_spec, make_tar
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import PROJECT

if TYPE_CHECKING:
    from blockyard.kernel.host.provenance import Provenance

GUEST_SOURCES = PROJECT / "images" / "guest"
DPKG_STATUS = "var/lib/dpkg/status"
LIST_S = 60.0  # reading a file out of an image takes 30 ms
COMPILE = ("gcc", "-O2", "-static", "-Wall", "-Wextra")

# Modules that may be needed to mount the guest root; a kernel may have them built in.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "erofs", "overlay")


ROOT, MODULES, INITRAMFS = "root.erofs", "modules.erofs", "initramfs"  # names in cache entries


@dataclass(frozen=True)
class GuestFiles:
    """Paths of the files that QEMU gets."""

    root: Path  # erofs image of the Debian system
    modules: Path  # erofs image of /lib/modules
    initramfs: Path  # cpio, not compressed: an emulated CPU would have to decompress it

    @classmethod
    def of_keys(cls, root: str, modules: str, initramfs: str) -> GuestFiles:
        """The files in this machine's cache, from the keys of their entries."""
        images = store.path_of("images")
        return cls(images / root / ROOT, images / modules / MODULES, images / initramfs / INITRAMFS)


def guest_files(kernel: Kernel, tools: ToolRoot, extra: Sequence[Path] = ()) -> GuestFiles:
    """All files that a guest of this kernel boots from; makes those that are not cached.

    extra: cache entries of modules from outside the kernel tree.
    """
    modules = module_image(kernel, tools, extra)
    return GuestFiles(guest_root(tools), modules, initramfs(kernel, tools))


def guest_root(tools: ToolRoot) -> Path:
    """The erofs image of the guest's Debian system. Making it takes half a minute."""
    spec = load_spec(PROJECT / "images" / "guest_root.toml")
    packages: dict[str, str] = {}

    def make(path: Path) -> None:
        with step("making the guest root: fio, nvme-cli, sshd from Debian"):
            log = store.directory("logs") / f"guest-root-{spec.key}.log"
            log.unlink(missing_ok=True)
            make_tar(spec, path / "root.tar", log)
            sandbox = Sandbox(tools.root, writable={"out": path})
            argv = ["mkfs.erofs", "--quiet", "--tar=f", "-T0"]
            argv += [f"{BIND}/out/{ROOT}", f"{BIND}/out/root.tar"]
            run(sandbox.argv(argv), log=log, doing="making the guest root's image")
            (path / "root.tar").unlink()
            packages.update(packages_in(path / ROOT, tools))

    def made_from() -> Provenance:
        from blockyard.kernel.build import statements  # not needed for a cached image

        return statements.of_guest_root(spec, RECIPE, packages, tools)

    path = store.get("images", spec.key, "the guest root", make, provenance=made_from)
    return path / ROOT


def guest_flags() -> list[str]:
    """Compiler flags of the guest program that depend on the architecture."""
    return [f'-DLOG_PORT="{arch.target().serial.log}"']


def packages_in(root: Path, tools: ToolRoot) -> dict[str, str]:
    """Debian packages in the image of a guest root: name → version. Empty without a dpkg list."""
    sandbox = Sandbox(tools.root, read_only={"root": root})
    argv = ["dump.erofs", "--cat", f"--path=/{DPKG_STATUS}", f"{BIND}/root"]
    done = subprocess.run(sandbox.argv(argv), capture_output=True, timeout=LIST_S)
    status = done.stdout.decode(errors="replace")
    versions = re.findall(r"^Package: (\S+)$(?:\n.+)*?\n^Version: (\S+)$", status, re.MULTILINE)
    return dict(sorted(versions))


def guest_program(tools: ToolRoot) -> Path:
    """The path of the static binary that is PID 1 in every guest, compiled in the tool root."""
    sources = sorted(GUEST_SOURCES.glob("*.[ch]"))
    key = store.digest(
        "guest", RECIPE, COMPILE, guest_flags(), [source.read_text() for source in sources]
    )

    def make(path: Path) -> None:
        sandbox = Sandbox(tools.root, read_only={"src": GUEST_SOURCES}, writable={"out": path})
        names = [f"{BIND}/src/{source.name}" for source in sources if source.suffix == ".c"]
        argv = [*COMPILE, *guest_flags(), "-o", f"{BIND}/out/init", *names]
        log = store.directory("logs") / f"guest-program-{key}.log"
        run(sandbox.argv(argv), log=log, doing="compiling the guest program")

    return store.get("images", key, "the guest program", make) / "init"


def initramfs(kernel: Kernel, tools: ToolRoot) -> Path:
    """The path of this kernel's initramfs: the guest program and the modules to reach its disks."""
    program = guest_program(tools)
    key = store.digest("initramfs", RECIPE, program.parent.name, kernel.info.key, BOOT_MODULES)

    def make(path: Path) -> None:
        store.examine("kernels", kernel.path)
        files = [cpio.File("init", program.read_bytes(), 0o755)]
        modules = boot_modules(kernel, BOOT_MODULES)
        for module in modules:
            files.append(cpio.File(f"boot/{_plain_name(module)}", _uncompressed(module)))
        listing = "".join(f"/boot/{_plain_name(module)}\n" for module in modules)
        files.append(cpio.File("modules.list", listing.encode()))
        (path / INITRAMFS).write_bytes(cpio.archive(files))

    return store.get("images", key, "the initramfs", make) / INITRAMFS


def module_image(kernel: Kernel, tools: ToolRoot, extra: Sequence[Path] = ()) -> Path:
    """The path of the erofs image that the guest mounts on ``/lib/modules``.

    extra: cache entries of modules from outside the kernel tree; they go into ``updates``.
    """
    key = store.digest("modules", RECIPE, kernel.info.key, *(folder.name for folder in extra))

    def make(path: Path) -> None:
        store.examine("kernels", kernel.path)
        modules = kernel.path / "modules"
        if extra:
            modules = path / "modules"
            _with_extra(kernel, extra, modules, tools)
        sandbox = Sandbox(tools.root, read_only={"modules": modules}, writable={"out": path})
        argv = ["mkfs.erofs", "--quiet", "-T0", "--all-root", f"{BIND}/out/{MODULES}"]
        log = store.directory("logs") / f"modules-{key}.log"
        run(
            sandbox.argv([*argv, f"{BIND}/modules"]),
            log=log,
            doing=f"making the module image of {kernel.info.release}",
        )
        store.remove(path / "modules")

    return store.get("images", key, "the module image", make) / MODULES


def _with_extra(kernel: Kernel, extra: Sequence[Path], modules: Path, tools: ToolRoot) -> None:
    """Copies the kernel's modules to `modules` and adds `extra` in ``updates``.

    depmod prefers that folder.
    """
    shutil.copytree(kernel.path / "modules", modules, symlinks=True)
    updates = modules / kernel.info.release / "updates"
    updates.mkdir()
    for folder in extra:
        for module in folder.glob("*.ko"):
            shutil.copyfile(module, updates / module.name)
    depmod(modules, kernel.info.release, tools)


def boot_modules(kernel: Kernel, names: Sequence[str]) -> list[Path]:
    """The files of those modules that this kernel has, each after its dependencies.

    The order comes from modules.dep: "file: its dependencies, the deepest last" (depmod(8)).
    Raises Failure when the kernel has no modules.dep.
    """
    dependencies: dict[str, list[str]] = {}
    files: dict[str, str] = {}
    try:
        text = (kernel.modules / "modules.dep").read_text()
    except FileNotFoundError:
        raise Failure(
            f"kernel {kernel.info.name}: no modules.dep in {kernel.modules}",
            hint=f"remove {kernel.path} and build it again",
        ) from None
    for line in text.splitlines():
        file, _, needs = line.partition(":")
        dependencies[file] = needs.split()
        files[_plain_name(Path(file)).removesuffix(".ko").replace("-", "_")] = file
    ordered: dict[str, None] = {}
    for name in names:
        if file := files.get(name, ""):
            ordered.update(dict.fromkeys([*reversed(dependencies[file]), file]))
    return [kernel.modules / file for file in ordered]


def _plain_name(module: Path) -> str:
    if module.suffix not in (".ko", ".xz"):
        raise Failure(f"{module}: unsupported compression {module.suffix!r} (supported: .xz)")
    return module.name.removesuffix(".xz")


def _uncompressed(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data
