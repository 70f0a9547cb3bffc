# SPDX-License-Identifier: GPL-2.0-or-later
"""Where Blockyard's files are, and the name of its command: a checkout or an installed package.

A checkout has documentation, pyproject.toml and ``./inv`` beside the five folders; an installed
package has the five folders only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# The folder of kernel/, modules/, images/, tests/ and ci/: the checkout, or site-packages/blockyard
PROJECT = Path(__file__).resolve().parents[2]
INSTALLED = (PROJECT / "__init__.py").exists()
# the folder that `import blockyard` needs in sys.path
IMPORT_ROOT = PROJECT.parent if INSTALLED else PROJECT

COMMAND = "blockyard"
_INV = re.compile(r"(?<![\w./])\./inv(?=\s|$)")


def program() -> str:
    """The command as the user typed it: ``./inv``, ``blockyard`` or ``python -m blockyard``.

    In a process that was not started by one of these, the command of this installation.
    """
    path = Path(sys.argv[0]) if sys.argv else Path()
    if path.name == "__main__.py" and path.parent.name == COMMAND:
        return f"python -m {COMMAND}"
    return COMMAND if INSTALLED or path.name == COMMAND else "./inv"


def as_typed(text: str) -> str:
    """Replaces ``./inv`` in a message by the command as the user typed it."""
    return _INV.sub(program(), text) if "./inv" in text else text
