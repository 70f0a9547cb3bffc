# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers: other projects' programs to compare with, pinned and run in a Debian root.

``<name>.lock`` beside this module lists the wheels of a peer with their hashes. They are unpacked
into a folder of the cache, compiled for the Python of the root, and bound read-only into it: a peer
starts as fast as an installed one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.sandbox import BIND, PATH, Sandbox
from blockyard.kernel.host.settings import PROJECT

HERE = PROJECT / "ci" / "selfbench"
PEER = f"{BIND}/peer"  # path of a peer in the root
PLATFORM = "manylinux2014_x86_64"

_PROGRAM = """#!/usr/bin/python3
import sys
from {module} import main
sys.exit(main())
"""


def version(name: str) -> str:
    """The version that a peer's lock file pins."""
    found = re.search(rf"^{re.escape(name)}==(\S+)", _lock(name).read_text(), re.MULTILINE)
    assert found, f"{_lock(name)} does not pin {name}"
    return found[1]


def installed(name: str, root: ToolRoot, programs: dict[str, str] | None = None) -> Path:
    """The folder of a peer for `root`; installs it into the cache if necessary.

    programs: to put on PATH, name → module with a `main`. Raises Failure when a wheel cannot be
    fetched or does not have the pinned hash.
    """
    lock = _lock(name)
    python = ".".join(root.versions["python3"].split(".")[:2])

    def make(path: Path) -> None:
        # not in `path`, which is removed after a failure
        log = store.directory("logs") / f"peer-{name}.log"
        log.unlink(missing_ok=True)
        site = path / "site"
        with step(f"installing {name} {version(name)} to compare with", log=log):
            argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
            argv += ["--no-deps", "--no-compile", "--only-binary", ":all:", "--require-hashes"]
            argv += ["--python-version", python, "--platform", PLATFORM]
            argv += ["--target", str(site), "--requirement", str(lock)]
            run(argv, log=log, doing=f"installing {name}")
            for program, module in (programs or {}).items():
                file = site / "bin" / program  # pip's scripts start the Python that ran pip
                file.unlink(missing_ok=True)
                file.write_text(_PROGRAM.format(module=module))
                file.chmod(0o755)
            compiling = ["python3", "-m", "compileall", "-q", PEER]
            inside = Sandbox(root.root, writable={"peer": site})
            run(inside.argv(compiling), log=log, doing=f"compiling {name}")

    key = store.digest("peer", name, lock.read_text(), python, programs)
    return store.get("peers", key, f"{name}, to compare with", make) / "site"


def environment() -> dict[str, str]:
    """PATH and PYTHONPATH for a peer in the root."""
    return {"PATH": f"{PEER}/bin:{PATH}", "PYTHONPATH": PEER}


def _lock(name: str) -> Path:
    return HERE / f"{name}.lock"
