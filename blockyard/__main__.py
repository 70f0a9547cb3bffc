# SPDX-License-Identifier: GPL-2.0-or-later
"""The command of an installed Blockyard: ``blockyard``, also as ``python -m blockyard``.

``./inv`` is the same for a checkout; it sets up a Python environment first.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; ends the process with the command's exit code."""
    from blockyard.ci import cli

    cli.main()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which may have modules of any name
    main()
