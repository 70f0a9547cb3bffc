# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: what `./inv` and the installed `blockyard` run.

`main` prepares the process and starts `program`, which is invoke with our own help and messages.
Each command is a function in one of the modules here: it reads its options (`options` has those
that many commands share), calls one function, prints what that returns. `namespace` lists them all.

Nothing heavy is imported before a command runs: `./inv --list` has to answer at once.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs the command in `sys.argv`; ends the process with its exit code when that is not 0."""
    # until a task runs (ci.run.exits catches signals then), Ctrl-C just ends the process
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not __debug__:
        sys.exit("error: without -O: helpers of tests fail by assertions, which it removes")
    _check_current_folder()

    from blockyard.kernel.host import environment, streams

    environment.clean()
    streams.prepare()
    try:
        _run()
    except OSError as error:  # our own help and lists; ci.run.exits looks after a task's output
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
        sys.exit(2)  # the message that could not be written: the command was not understood
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            streams.silence(sys.stderr)
        sys.stdout.flush()
