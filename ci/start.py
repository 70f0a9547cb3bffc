# SPDX-License-Identifier: GPL-2.0-or-later
"""What `./inv` starts: invoke, quiet when it is interrupted before it has begun.

Until a task runs (tasks.py then has its own way), Ctrl-C just ends the process.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

# our packages, whatever the current directory has (a kernel tree has a folder kernel, too)
sys.path[0] = str(Path(__file__).parent.parent)

from invoke.main import program  # noqa: E402

if __name__ == "__main__":
    program.run()
