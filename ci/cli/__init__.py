# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: what `./inv` and the installed `blockyard` run.

`main` prepares the process and starts `program`: invoke with our own help and error messages.
Each command is a function in one of the modules here: it reads its options (shared ones are in
`options`), calls one function and prints the result. `namespace` lists all commands.

Heavy modules are imported inside commands, so that `./inv --list` is fast.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs the command in `sys.argv`; exits the process when the exit code is not 0."""
    # Ctrl-C kills the process until a command runs; then ci.run.exits handles signals
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not __debug__:
        sys.exit("error: Python runs with -O, which removes the assertions that tests rely on")
    _check_current_folder()

    from blockyard.kernel.host import environment, streams

    environment.clean()
    streams.prepare()
    try:
        _run()
    except OSError as error:  # from help and lists; ci.run.exits handles a command's own output
        if not streams.is_output(error):
            raise
        streams.silence(sys.stdout)
        from blockyard.ci.run.exits import lost_output

        sys.exit(lost_output(error))


def _check_current_folder() -> None:
    from pathlib import Path

    try:
        Path.cwd()
    except OSError as error:
        print(f"error: the current folder is gone ({error.strerror})", file=sys.stderr)
        sys.exit(2)


def _run() -> None:
    """Runs the program; a stderr that cannot be written does not change the exit code."""
    from blockyard.ci.cli.program import Program
    from blockyard.kernel.host import installation, streams

    try:
        Program(installation.program()).run(sys.argv)
    except OSError:
        if streams.broken(sys.stderr) is None:
            raise
        streams.silence(sys.stderr)
        sys.exit(2)  # only usage errors are written here
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            streams.silence(sys.stderr)
        sys.stdout.flush()
