# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command ends: one message for people, one exit code for scripts.

The codes are those of `kernel.host.errors.ExitCode`. Whatever happens to standard output, a run
that failed never ends like one that passed.
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
    """Does the work of a command; prints what it raises and returns the exit code."""
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
    except Exit as ended:
        if ended.message:
            note(ended.message)
        return int(ended.code)
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
    """Does several pieces of work, each although another failed, and ends like the worst of them.

    Raises Exit; an interrupt ends them all.
    """
    codes: list[int] = []
    for number, work in enumerate(works, 1):
        if len(works) > 1:
            note(f"run {number} of {len(works)}")
        codes.append(_tried(work))
        if codes[-1] > ExitCode.UNTESTABLE:  # a signal, or a defect
            break
    ranks = (ExitCode.FAILED, ExitCode.USAGE, ExitCode.UNTESTABLE)
    ended = codes and codes[-1] > ExitCode.UNTESTABLE
    if code := codes[-1] if ended else next((rank for rank in ranks if rank in codes), None):
        raise Exit(code=code)


def lost_output(error: OSError) -> int:
    """The end of a command whose answer could not be written to standard output."""
    streams.silence(sys.stdout)
    if isinstance(error, BrokenPipeError):  # its reader has seen enough; as cat would end
        return ExitCode.PIPE
    note(f"error: cannot write to standard output: {error.strerror}")
    return ExitCode.UNTESTABLE


def _defect() -> int:
    note(f"{traceback.format_exc()}\nerror: this is a defect of Blockyard: please report it")
    return ExitCode.DEFECT


def of_run(run: Run) -> int:
    """What a run says of the kernel that was tested; the report has the reasons."""
    if not run.tests or all(test.outcome == "skip" for test in run.tests):
        note("nothing was tested: every test was skipped")
        return ExitCode.UNTESTABLE
    if not run.ok and not run.booted:
        note(as_typed("nothing was tested: no guest came up; ./inv boot --run true shows why"))
        return ExitCode.UNTESTABLE
    return ExitCode.OK if run.ok else ExitCode.FAILED


def end(code: int, show: Callable[[], object]) -> None:
    """Shows the answer and ends the command; the code counts also when nobody can read it."""
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
    """For `./inv test`: a guest that does not even come up has been no test."""
    try:
        yield
    except GuestError as error:
        error.exit_code = ExitCode.UNTESTABLE
        raise
