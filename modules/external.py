# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules outside the kernel tree: from a folder of sources to files that a guest loads.

They are built with the kernel's own programs against its output tree, in a copy of the folder (see
`modules.folder`), so nothing is written to the user's. Sandbox: source, output tree and kernel are
read-only, and there is no network. make runs as by ``make -C KDIR M=$PWD``, in the module's folder.

Of several modules a later one may use the symbols of those before it.
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
from blockyard.modules.makefiles import same
from blockyard.modules.manifest import Manifest

if TYPE_CHECKING:
    from blockyard.kernel.host.debian import ToolRoot
    from blockyard.kernel.host.provenance import Provenance

RECIPE = 2  # raise it when the same inputs give other modules
SYMBOLS = "Module.symvers"  # what a module exports: one line per symbol
MADE = FolderLimits(files=100_000, size=8 << 30)  # what make may leave


# Gives a kernel's sandbox, and make in it; nobody changes the kernel's output tree meanwhile.
ModuleBuildEnv = Callable[[], AbstractContextManager[tuple[Sandbox, list[str]]]]


@dataclass(frozen=True)
class How:
    """How make is run on a module's sources, besides its kernel."""

    place: str = "."  # the folder of the makefile, below what is copied
    symbols: Mapping[str, str] = field(default_factory=dict)  # of its own Kconfig: CONFIG_X → value
    rust: bool = False
    before: Mapping[str, Path] = field(default_factory=dict)  # modules it may use → entries
    names: Mapping[str, str] = field(default_factory=dict)  # see kernel.build.errors.explainer
    hint: str = ""  # when it fails

    def arguments(self) -> list[str]:
        """What make gets on its command line."""
        path = f"{BIND}/module" if self.place == "." else f"{BIND}/module/{self.place}"
        # PWD: makefiles take it for their own folder, and a shell between would set another
        words = [f"M={path}", f"PWD={path}"]
        words += [f"{symbol}={value}" for symbol, value in self.symbols.items()]
        # kbuild knows a symbol from the command line, the code from its compiler's
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
    drivers: Sequence[Manifest], kernel: Kernel, maker: ModuleBuildEnv, tools: ToolRoot
) -> list[Path]:
    """The folder that holds a driver's ``.ko`` files for this kernel, for each in this order.

    They come from the cache or are built. tools: has the compiler, where the kernel was built
    elsewhere. Raises Failure with the compiler's errors and the log's
    path when one does not compile, and UsageError for sources that are not to be had or that do not
    make the modules of the manifest.
    """
    named = [Path(driver.folder) for driver in drivers]
    before: dict[str, Path] = {}
    built = []
    for driver in drivers:
        path = build_module(driver, kernel, maker, tools, named, before)
        if (path / SYMBOLS).stat().st_size:
            before[driver.name] = path
        built.append(path)
    return built


def build_module(
    driver: Manifest,
    kernel: Kernel,
    maker: ModuleBuildEnv,
    tools: ToolRoot,
    named: Sequence[Path] = (),
    before: Mapping[str, Path] | None = None,
) -> Path:
    """The same for one driver; named: folders it may take files from. before: see `How`."""
    before = dict(before or {})
    sources = folder.sources(Path(driver.folder), named)
    how = _how(driver, sources, kernel, before)
    exported = [
        hashlib.sha256((path / SYMBOLS).read_bytes()).hexdigest() for path in before.values()
    ]
    key = store.digest(
        "module",
        RECIPE,
        kernel.info.key,
        (sources.place, dict(sources.files), dict(sources.links)),
        (how.place, how.arguments(), exported),
        driver.modules,
        # the key of a kernel that we built has its compiler, which is the modules' as well
        *([] if kernel.info.toolchain else [tools.path.name]),
    )

    ran: list[Sandbox] = []

    def make(path: Path) -> None:
        copy = path / "source"
        sources.copy(copy)
        log = store.directory("logs") / f"module-{driver.name}-{key}.log"
        doing = f"building {driver.name} for kernel {kernel.info.name}"
        if how.symbols:
            given = " ".join(f"{symbol}={value}" for symbol, value in how.symbols.items())
            note(f"{driver.name}: make gets {given}, which kernel {kernel.info.name} does not set")
        ran.append(make_modules(copy, maker, log, doing, how, sources.root))
        _collect(driver, sources, copy, how.place, path, log)
        store.remove(copy)

    def made_from() -> Provenance:
        from blockyard.kernel.build import statements  # only for what is made now

        return statements.of_module(
            driver.name, key, RECIPE, dict(sources.files), kernel.path, ran[0]
        )

    return store.get("modules", key, f"module {driver.name}", make, provenance=made_from)


def make_modules(
    copy: Path,
    maker: ModuleBuildEnv,
    log: Path,
    doing: str,
    how: How | None = None,
    copied: Path | None = None,
) -> Sandbox:
    """Runs make on a folder of sources, which it writes to; returns the sandbox that it ran in.

    copied: where the sources came from; the log says it. Raises Failure with the errors and the
    log's path.
    """
    how = how or How()
    log.unlink(missing_ok=True)
    with maker() as (kernel_sandbox, make_argv):
        symbols = {f"symbols/{name}": path for name, path in how.before.items()}
        sandbox = replace(
            kernel_sandbox,
            read_only={**kernel_sandbox.read_only, **symbols},
            writable={"module": copy},
        )
        place = f"{BIND}/module" if how.place == "." else f"{BIND}/module/{how.place}"
        argv = sandbox.argv([*make_argv, *how.arguments(), "modules"], directory=place)
        explain = errors.explainer(how.names)
        with step(doing, log=log):
            run(
                argv,
                log=log,
                doing=doing,
                hint=how.hint,
                explain=explain,
                before=_how_copied(copied, copy) if copied else "",
                limits=sandbox.limits,
                outputs=[copy],
            )
    return sandbox


def _how_copied(source: Path, copy: Path) -> str:
    """The copy for make is gone after it: the line that makes one for who repeats it by hand."""
    words = ["cp", "-RL", "--", f"{source}/.", str(copy)]
    return f"$ {commands.line(['mkdir', '-p', str(copy)])} && {commands.line(words)}\n"


def _how(driver: Manifest, sources: Sources, kernel: Kernel, before: Mapping[str, Path]) -> How:
    package = dkms.read(sources.folder)
    texts = sources.makefiles()
    own = makefiles.own_symbols(texts, driver.modules, kernel.config)
    symbols = {f"CONFIG_{symbol}": "m" for symbol in own}
    if package:
        known = {f"CONFIG_{name}": value for name, value in kernel.config.items()}
        symbols |= {name: value for name, value in package.symbols if known.get(name) != value}
    place = sources.place
    if package and package.location and not any(name in texts for name in folder.MAKEFILES):
        below = (sources.folder / package.location).resolve()  # links in the copy lead there, too
        if below.is_relative_to(sources.root):
            place = str(below.relative_to(sources.root))
    names = {f"{BIND}/module/": f"{sources.root}/", f"{BIND}/src/": ""}
    return How(
        place,
        symbols,
        driver.language == "Rust",
        before,
        names,
        _hint(sources, texts, kernel),
    )


def _hint(sources: Sources, texts: Mapping[str, str], kernel: Kernel) -> str:
    """What may be behind a failure, of what is known of a module's folder."""
    for name, text in texts.items():
        gone = versions.at_least(kernel.info.release, makefiles.SINCE_NO_EXTRA_CFLAGS)
        if gone and makefiles.EXTRA_CFLAGS.search(text):
            since = makefiles.SINCE_NO_EXTRA_CFLAGS
            return f"{name} sets EXTRA_CFLAGS, which is gone since Linux {since}: use ccflags-y"
    return sources.unseen[0] if sources.unseen else ""


def _collect(
    driver: Manifest, sources: Sources, copy: Path, place: str, path: Path, log: Path
) -> None:
    """Copies what make made to `path`: the modules of the manifest, and what they export.

    copy: the folder that the sandbox could write to. Below it all is make's, also the folder
    `expand_path`, which can be a link by now: only `copy` itself is opened without a check.
    """
    try:
        made = [
            entry.name
            for entry in untrusted.regular_files(copy, _hidden, MADE, place)
            if entry.name.endswith(".ko") and not entry.link
        ]
    except BlockyardError as error:
        raise Failure(f"{driver.folder}: what make left: {error.what}", log=log) from None
    for name in driver.modules:
        found = [file for file in made if same(Path(file).stem, name)]
        if not found:
            others = ", ".join(sorted(Path(file).name for file in made)) or "nothing"
            raise Failure(
                f"{driver.folder} does not make {name}.ko, which its manifest names: "
                f"it made {others}",
                hint=_why_not(name, sources.makefiles()),
                log=log,
            )
        untrusted.copy(copy, found[0], path / f"{name}.ko")
    exported = f"{place}/{SYMBOLS}"
    if untrusted.is_file(copy, exported):
        untrusted.copy(copy, exported, path / SYMBOLS)
    else:
        (path / SYMBOLS).touch()


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _why_not(module: str, texts: Mapping[str, str]) -> str:
    """Why make did not make a module, by its makefiles."""
    lines = [line for text in texts.values() for line in makefiles.objects(text)]
    for line in lines:
        if any(same(Path(name).name, module) for name in line.modules):
            return f"a makefile has {module}.o for make, so its recipe may do something else"
    named = [f"{name}.o" for line in lines for name in line.modules]
    if named:
        return f"the makefiles build {', '.join(named)}: correct `modules` in manifest.toml"
    return f"no makefile there has a line that builds it: obj-m := {module}.o"
