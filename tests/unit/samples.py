# SPDX-License-Identifier: GPL-2.0-or-later
"""Sample kernels, tool roots, results and records for unit tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blockyard.ci.run.circumstances import Host, KernelOptions, Selected, Tool, UsedAccelerator
from blockyard.ci.run.record import Run
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.vm_config import EnvKeys
from blockyard.kernel import artifact
from blockyard.kernel.artifact import Kernel, KernelInfo
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.sources.origin import Other
from blockyard.tests.harness.outcomes import CaseResult, Lacking, Outcome, SkipReason

RELEASE = "7.3.4"


def info(release: str = RELEASE) -> KernelInfo:
    return KernelInfo(
        key="0123456789abcdef",
        name="7.3",
        release=release,
        source=Other("debian linux-source-7.3 7.3.4-1"),
        config_sha256="0" * 64,
        toolchain={"clang": "1:19.0-63", "rustc": "1.85.0+dfsg3-1"},
        wall_s=61.5,
        cpu_s=118.25,
        warnings={"drivers/block/x.c": 2},
    )


def kernel(
    path: Path,
    config: str = "",
    modules: Mapping[str, str] | None = None,
    release: str = RELEASE,
) -> Kernel:
    """A kernel's folder with a config and, if `modules` is given, a modules.dep."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config").write_text(config)
    artifact.save_info(path, info(release))
    if modules is not None:
        folder = path / "modules" / release
        folder.mkdir(parents=True)
        lines = [f"{name}: {needs}".rstrip() + "\n" for name, needs in modules.items()]
        (folder / "modules.dep").write_text("".join(lines))
    return artifact.load(path)


def tools(path: Path, versions: Mapping[str, str] | None = None) -> ToolRoot:
    """A tool root's folder with the list of versions and no programs."""
    names = ("clang", "clang-19", "lld", "lld-19", "rustc", "bindgen", "make")
    packages = {**dict.fromkeys(names, "1.0"), **(versions or {})}
    path.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} {version}\n" for name, version in packages.items()]
    (path / "versions.txt").write_text("".join(lines))
    return ToolRoot(path)


def env_keys(key: str = "entry") -> EnvKeys:
    """Keys of a guest whose files are all in cache entries of one name."""
    return EnvKeys(
        kernel=key,
        kernel_name="7.3",
        tools=key,
        root=key,
        modules=key,
        initramfs=key,
        accelerator=Accelerator("tcg", "no KVM here", 5.0),
    )


def result(
    outcome: Outcome,
    name: str = "io/read",
    driver: str = "null_blk",
    *,
    console: str = "serial",
    reason: str = "",
    kernel_log: str = "",
    lacking: Lacking = "test",
    what: str = "",
    rerun: str = "",
) -> CaseResult:
    """A test's result; `lacking` and `what` are used for a skip."""
    skip = SkipReason(lacking=lacking, what=what, text=reason) if outcome == "skip" else None
    return CaseResult(
        id=name,
        suite=name.partition("/")[0],
        driver=driver,
        console=console,
        outcome=outcome,
        seconds=1.25,
        reason=reason,
        kernel_log=kernel_log,
        skip=skip,
        guest=f"guests/{driver}-{console}-1",
        rerun=rerun,
    )


def run_of(*tests: CaseResult, seconds: float = 12.5, booted: bool = True) -> Run:
    return Run(
        run="20260102-030405-7.3-abcd",
        started="2026-01-02T03:04:05Z",
        seconds=seconds,
        tool=Tool("0.1.0", "0" * 40),
        host=Host("builder", "6.1.0-40-amd64", 2, 24000),
        accelerator=UsedAccelerator("tcg", "no /dev/kvm"),
        kernel=info(),
        kernel_options=KernelOptions(kernel="7.3"),
        selection=Selected(drivers=("null_blk",), consoles=("serial",)),
        booted=booted,
        tests=tests,
    )
