# SPDX-License-Identifier: GPL-2.0-or-later
"""The command of an installed Blockyard: ``blockyard``, also as ``python -m blockyard``.

``./inv`` is the same for a checkout; it sets up a Python environment first.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Runs the command line; ends the process with the command's exit code."""
    if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:
        del sys.path[0]  # python -m puts the current folder there
    from blockyard.ci import cli

    cli.main()


if __name__ == "__main__":
    main()
