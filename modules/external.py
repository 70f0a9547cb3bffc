# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds modules outside the kernel tree.

They are built with the kernel's own toolchain against its output tree, in a copy of the folder (see
`modules.folder`), so nothing is written to the user's folder. In the sandbox the kernel's source
and output tree are read-only, and there is no network. make runs as in ``make -C KDIR M=$PWD``, in
the module's folder.

A module can use the symbols of the modules that are named before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.kernel import versions
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.build import errors
from blockyard.kernel.host import commands, store, untrusted
from blockyard.kernel.host.errors import BlockyardError, Failure
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.untrusted import FolderLimits
from blockyard.modules import dkms, folder, makefiles
from blockyard.modules.folder import Sources
from blockyard.modules.makefiles import same_module
from blockyard.modules.manifest import Manifest

if TYPE_CHECKING:
    from blockyard.kernel.host.debian import ToolRoot
    from blockyard.kernel.host.provenance import Provenance

RECIPE = 2  # increase it when the same inputs give different modules
SYMBOLS = "Module.symvers"  # the exported symbols of a module, one per line
MADE = FolderLimits(files=100_000, size=8 << 30)  # limits of the output of make


# Gives the sandbox of a kernel and the make command. Within the context the kernel's output tree
# does not change.
ModuleBuildEnv = Callable[[], AbstractContextManager[tuple[Sandbox, list[str]]]]


@dataclass(frozen=True)
class MakeOptions:
    """Options of make for the sources of one module."""

    subfolder: str = "."  # the folder of the makefile, below the copied folder
    symbols: Mapping[str, str] = field(default_factory=dict)  # of its own Kconfig: CONFIG_X → value
    rust: bool = False
    before: Mapping[str, Path] = field(default_factory=dict)  # modules it can use → cache entries
    names: Mapping[str, str] = field(default_factory=dict)  # see kernel.build.errors.explainer
    hint: str = ""  # for the message about a failure

    def arguments(self) -> list[str]:
        """The arguments of make: M=, symbols, and compiler flags that define them."""
        path = f"{BIND}/module" if self.subfolder == "." else f"{BIND}/module/{self.subfolder}"
        # PWD: makefiles use it as their own folder, but make was started in another
        words = [f"M={path}", f"PWD={path}"]
        words += [f"{symbol}={value}" for symbol, value in self.symbols.items()]
        # kbuild gets a symbol from make's command line, the code from that of the compiler
        on = {symbol: value for symbol, value in self.symbols.items() if value in ("y", "m")}
        if on:
            defined = [f"-D{name}{'_MODULE' * (value == 'm')}=1" for name, value in on.items()]
            words.append(f"KCFLAGS={' '.join(defined)}")
        if on and self.rust:
            cfg = [f'--cfg {name} --cfg {name}=\\"{value}\\"' for name, value in on.items()]
            words.append(f"KRUSTFLAGS={' '.join(cfg)}")
        if self.before:
            files = [f"{BIND}/symbols/{name}/{SYMBOLS}" for name in self.before]
            words.append(f"KBUILD_EXTRA_SYMBOLS={' '.join(files)}")
        return words


def build_modules(
    drivers: Sequence[Manifest], kernel: Kernel, build_env: ModuleBuildEnv, tools: ToolRoot
) -> list[Path]:
    """For each driver, the cache entry with its ``.ko`` files for this kernel; built if missing.

    tools: has the compiler if the kernel was built elsewhere. Raises Failure with the compiler's
    errors and the path of the log when a module does not compile or make does not build the
    manifest's modules, and UsageError for sources that cannot be read.
    """
    named = [Path(driver.folder) for driver in drivers]
    before: dict[str, Path] = {}
    built = []
    for driver in drivers:
        path = build_module(driver, kernel, build_env, tools, named, before)
        if (path / SYMBOLS).stat().st_size:
            before[driver.name] = path
        built.append(path)
    return built


def build_module(
    driver: Manifest,
    kernel: Kernel,
    build_env: ModuleBuildEnv,
    tools: ToolRoot,
    named: Sequence[Path] = (),
    before: Mapping[str, Path] | None = None,
) -> Path:
    """Like `build_modules`, for one driver.

    named: further folders that the user named; its sources can include files from there. before:
    see `MakeOptions`.
    """
    before = dict(before or {})
    sources = folder.sources(Path(driver.folder), named)
    options = _make_options(driver, sources, kernel, before)
    exported = [
        hashlib.sha256((path / SYMBOLS).read_bytes()).hexdigest() for path in before.values()
    ]
    key = store.digest(
        "module",
        RECIPE,
        kernel.info.key,
        (sources.subfolder, dict(sources.files), dict(sources.links)),
        (options.subfolder, options.arguments(), exported),
        driver.modules,
        # the key of a kernel that we built includes the compiler
        *([] if kernel.info.toolchain else [tools.path.name]),
    )

    ran: list[Sandbox] = []

    def make(path: Path) -> None:
        copy = path / "source"
        sources.copy(copy)
        log = store.directory("logs") / f"module-{driver.name}-{key}.log"
        doing = f"building {driver.name} for kernel {kernel.info.name}"
        if options.symbols:
            given = " ".join(f"{symbol}={value}" for symbol, value in options.symbols.items())
            note(f"{driver.name}: make gets {given}, which kernel {kernel.info.name} does not set")
        ran.append(make_modules(copy, build_env, log, doing, options, sources.root))
        _collect(driver, sources, copy, options.subfolder, path, log)
        store.remove(copy)

    def made_from() -> Provenance:
        from blockyard.kernel.build import statements  # not needed for a cached module

        return statements.of_module(
            driver.name, key, RECIPE, dict(sources.files), kernel.path, ran[0]
        )

    return store.get("modules", key, f"module {driver.name}", make, provenance=made_from)


def make_modules(
    copy: Path,
    build_env: ModuleBuildEnv,
    log: Path,
    doing: str,
    options: MakeOptions | None = None,
    original: Path | None = None,
) -> Sandbox:
    """Runs make on `copy`, a folder of sources that it writes to; the sandbox that it ran in.

    original: the folder that was copied, for the log. Raises Failure with the compiler's errors and
    the path of the log.
    """
    options = options or MakeOptions()
    log.unlink(missing_ok=True)
    with build_env() as (kernel_sandbox, make_argv):
        symbols = {f"symbols/{name}": path for name, path in options.before.items()}
        sandbox = replace(
            kernel_sandbox,
            read_only={**kernel_sandbox.read_only, **symbols},
            writable={"module": copy},
        )
        top, below = f"{BIND}/module", options.subfolder
        directory = top if below == "." else f"{top}/{below}"
        argv = sandbox.argv([*make_argv, *options.arguments(), "modules"], directory=directory)
        explain = errors.explainer(options.names)
        with step(doing, log=log):
            run(
                argv,
                log=log,
                doing=doing,
                hint=options.hint,
                explain=explain,
                before=_copy_command(original, copy) if original else "",
                limits=sandbox.limits,
                outputs=[copy],
            )
    return sandbox


def _copy_command(source: Path, copy: Path) -> str:
    """A line for the log that makes the copy again, to repeat the build by hand."""
    words = ["cp", "-RL", "--", f"{source}/.", str(copy)]
    return f"$ {commands.line(['mkdir', '-p', str(copy)])} && {commands.line(words)}\n"


def _make_options(
    driver: Manifest, sources: Sources, kernel: Kernel, before: Mapping[str, Path]
) -> MakeOptions:
    package = dkms.read(sources.folder)
    texts = sources.makefiles()
    own = makefiles.own_symbols(texts, driver.modules, kernel.config)
    symbols = {f"CONFIG_{symbol}": "m" for symbol in own}
    if package:
        known = {f"CONFIG_{name}": value for name, value in kernel.config.items()}
        symbols |= {name: value for name, value in package.symbols if known.get(name) != value}
    subfolder = sources.subfolder
    if package and package.location and not any(name in texts for name in folder.MAKEFILES):
        below = (sources.folder / package.location).resolve()  # the copy has the same links
        if below.is_relative_to(sources.root):
            subfolder = str(below.relative_to(sources.root))
    names = {f"{BIND}/module/": f"{sources.root}/", f"{BIND}/src/": ""}
    return MakeOptions(
        subfolder,
        symbols,
        driver.language == "Rust",
        before,
        names,
        _hint(sources, texts, kernel),
    )


def _hint(sources: Sources, texts: Mapping[str, str], kernel: Kernel) -> str:
    """A possible reason for a failed build, from the makefiles and sources; empty when unknown."""
    for name, text in texts.items():
        gone = versions.at_least(kernel.info.release, makefiles.SINCE_NO_EXTRA_CFLAGS)
        if gone and makefiles.EXTRA_CFLAGS.search(text):
            since = makefiles.SINCE_NO_EXTRA_CFLAGS
            return f"{name} sets EXTRA_CFLAGS, which Linux {since} removed: use ccflags-y"
    return sources.unseen[0] if sources.unseen else ""


def _collect(
    driver: Manifest, sources: Sources, copy: Path, subfolder: str, path: Path, log: Path
) -> None:
    """Copies the modules of the manifest and their exported symbols from `copy` to `path`.

    copy: the folder that the sandbox could write to. make may have replaced anything below it, even
    `subfolder` by a link, so only `copy` itself is opened without a check.
    """
    try:
        made = [
            entry.name
            for entry in untrusted.regular_files(copy, _hidden, MADE, subfolder)
            if entry.name.endswith(".ko") and not entry.link
        ]
    except BlockyardError as error:
        raise Failure(f"{driver.folder}: output of make: {error.what}", log=log) from None
    for name in driver.modules:
        files = [file for file in made if same_module(Path(file).stem, name)]
        if not files:
            others = ", ".join(sorted(Path(file).name for file in made)) or "nothing"
            raise Failure(
                f"{driver.folder} does not build {name}.ko, which its manifest names: "
                f"make built {others}",
                hint=_why_not(name, sources.makefiles()),
                log=log,
            )
        untrusted.copy(copy, files[0], path / f"{name}.ko")
    exported = f"{subfolder}/{SYMBOLS}"
    if untrusted.is_file(copy, exported):
        untrusted.copy(copy, exported, path / SYMBOLS)
    else:
        (path / SYMBOLS).touch()


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _why_not(module: str, texts: Mapping[str, str]) -> str:
    """Why make did not build a module, as far as its makefiles show."""
    lines = [line for text in texts.values() for line in makefiles.objects(text)]
    for line in lines:
        if any(same_module(Path(name).name, module) for name in line.modules):
            return f"a makefile lists {module}.o, so check the recipe of its target `modules`"
    named = [f"{name}.o" for line in lines for name in line.modules]
    if named:
        return f"the makefiles build {', '.join(named)}: correct `modules` in manifest.toml"
    return f"no makefile has a line that builds it: add obj-m := {module}.o"
