# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command ends: a message for people, an exit code for scripts.

The codes are in `kernel.host.errors.ExitCode`. A failed run has the exit code of a failed run even
if standard output cannot be written.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from invoke.exceptions import Exit

from blockyard.ci.run.record import Run
from blockyard.images.errors import GuestError
from blockyard.kernel.host import interrupts, store, streams
from blockyard.kernel.host.errors import BlockyardError, ExitCode
from blockyard.kernel.host.installation import as_typed
from blockyard.kernel.host.progress import note


def code_of(work: Callable[[], object]) -> int:
    """Calls the function of a command, prints the error that it raises, returns the exit code."""
    interrupts.catch()
    try:
        code = _tried(work)
    except KeyboardInterrupt:  # while an error was printed
        code = interrupts.exit_code()
    if error := streams.broken(sys.stdout):
        code = code or lost_output(error)
    streams.close()
    return code


def _tried(work: Callable[[], object]) -> int:
    try:
        work()
    except Exit as request:
        if request.message:
            note(request.message)
        return int(request.code)
    except BlockyardError as error:
        note(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        note("interrupted")
        return interrupts.exit_code()
    except OSError as error:
        if streams.is_output(error):
            return lost_output(error)
        if (known := store.explained(error)) is not None:
            note(f"error: {known}")
            return known.exit_code
        if not store.is_full(error):
            return _defect()
        note(f"error: the disk is full ({error.filename or 'while copying'})")
        return ExitCode.UNTESTABLE
    except Exception:
        return _defect()
    return ExitCode.OK


def each(works: Sequence[Callable[[], object]]) -> None:
    """Calls several functions, also after one has failed. Raises Exit with the worst code.

    An interrupt or an internal error stops it.
    """
    codes: list[int] = []
    for number, work in enumerate(works, 1):
        if len(works) > 1:
            note(f"run {number} of {len(works)}")
        codes.append(_tried(work))
        if codes[-1] > ExitCode.UNTESTABLE:  # a signal or an internal error
            break
    ranks = (ExitCode.FAILED, ExitCode.USAGE, ExitCode.UNTESTABLE)
    stopped = codes and codes[-1] > ExitCode.UNTESTABLE
    if code := codes[-1] if stopped else next((rank for rank in ranks if rank in codes), None):
        raise Exit(code=code)


def lost_output(error: OSError) -> int:
    """The exit code of a command whose answer cannot be written to standard output."""
    streams.silence(sys.stdout)
    if isinstance(error, BrokenPipeError):  # the reader, such as head, has exited
        return ExitCode.PIPE
    note(f"error: cannot write to standard output: {error.strerror}")
    return ExitCode.UNTESTABLE


def _defect() -> int:
    note(f"{traceback.format_exc()}\nerror: this is a defect of Blockyard: please report it")
    return ExitCode.DEFECT


def of_run(run: Run) -> int:
    """The exit code for a run; prints why when nothing was tested."""
    if not run.tests or all(test.outcome == "skip" for test in run.tests):
        note("nothing was tested: every test was skipped")
        return ExitCode.UNTESTABLE
    if not run.ok and not run.booted:
        note(as_typed("nothing was tested: no guest booted; ./inv boot --run true shows why"))
        return ExitCode.UNTESTABLE
    return ExitCode.OK if run.ok else ExitCode.FAILED


def end(code: int, show: Callable[[], object]) -> None:
    """Prints the answer and raises Exit for a code other than 0, even if printing fails."""
    try:
        show()
        sys.stdout.flush()
    except OSError as error:
        if not code or not streams.is_output(error):
            raise
        streams.silence(sys.stdout)
    if code:
        raise Exit(code=code)


@contextmanager
def untestable() -> Iterator[None]:
    """Changes the exit code of a GuestError to UNTESTABLE: no guest booted, nothing was tested."""
    try:
        yield
    except GuestError as error:
        error.exit_code = ExitCode.UNTESTABLE
        raise
