# SPDX-License-Identifier: GPL-2.0-or-later
"""The command of an installed Blockyard: ``blockyard``, also as ``python -m blockyard``.

``./inv`` is the same for a checkout; it sets up a Python environment first.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Runs the command line; ends the process with the command's exit code."""
    if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:
        del sys.path[0]  # python -m puts the current folder there
    # for the processes that are started from here: PYTHONSAFEPATH keeps the current folder, which
    # may have folders `kernel` or `tests`, out of their import path
    from blockyard.kernel.host import environment, streams

    environment.clean()
    streams.prepare()
    from invoke.program import Program

    from blockyard import __version__
    from blockyard.kernel.host.installation import INSTALLED

    tasks = importlib.import_module("blockyard.tasks" if INSTALLED else "tasks")
    Program(namespace=tasks.namespace, name="blockyard", version=__version__).run(
        ["blockyard", *sys.argv[1:]]
    )


if __name__ == "__main__":
    main()
