# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of guests: one class for each that a user or a caller handles differently."""

from __future__ import annotations

from pathlib import Path

from blockyard.kernel.host.errors import ExitCode, Failure


class GuestError(Failure):
    """The guest failed, not the user's command. `kernel_log`: the last lines of its kernel log."""

    exit_code = ExitCode.FAILED  # the kernel was built; that it does not run is a result

    def __init__(self, what: str, *, kernel_log: str = "", hint: str = "", log: Path | None = None):
        super().__init__(what, hint=hint, log=log)
        self.kernel_log = kernel_log

    def __str__(self) -> str:
        if not self.kernel_log:
            return super().__str__()
        quoted = "\n".join(f"    {line}" for line in self.kernel_log.splitlines())
        return f"{super().__str__()}\n  end of the kernel log:\n{quoted}"


class GuestPanicked(GuestError):
    """The guest's kernel panicked."""


class QemuDied(GuestError):
    """QEMU ended while the guest was needed."""


class GuestShutdown(QemuDied):
    """The guest rebooted or powered off while it was needed."""


class GuestHung(GuestError):
    """The guest's kernel or QEMU itself hangs."""


class BootTimeout(GuestError):
    """The guest did not come up in time."""


class ImageDamaged(GuestError):
    """The guest cannot read its root or its modules: an image file on the host is damaged."""

    exit_code = ExitCode.UNTESTABLE


class ConsoleLost(GuestError):
    """The guest does not accept commands over this console, or its answer is invalid.

    Its kernel may still run.
    """


class CommandTimedOut(GuestError):
    """A command did not end within its time limit and was killed."""


class CommandHung(CommandTimedOut):
    """A command is blocked in the kernel while the guest is idle. The guest itself still runs."""


class CommandFailed(Failure):
    """A command that was expected to succeed ended with a status other than 0."""

    exit_code = ExitCode.FAILED
