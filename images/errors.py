# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong with a guest, one class per thing that a user treats differently."""

from __future__ import annotations

from pathlib import Path

from blockyard.kernel.host.errors import ExitCode, Failure


class GuestError(Failure):
    """Something is wrong with the guest, not with the command. `kernel_log`: its last lines."""

    exit_code = ExitCode.FAILED  # the kernel was built: that it does not run is an answer

    def __init__(self, what: str, *, kernel_log: str = "", hint: str = "", log: Path | None = None):
        super().__init__(what, hint=hint, log=log)
        self.kernel_log = kernel_log

    def __str__(self) -> str:
        if not self.kernel_log:
            return super().__str__()
        quoted = "\n".join(f"    {line}" for line in self.kernel_log.splitlines())
        return f"{super().__str__()}\n  the kernel's last words:\n{quoted}"


class GuestPanicked(GuestError):
    """The guest's kernel panicked."""


class QemuDied(GuestError):
    """QEMU ended while the guest was needed."""


class GuestShutdown(QemuDied):
    """The guest rebooted or powered off while it was needed."""


class GuestHung(GuestError):
    """The guest's kernel, or the whole emulated machine, does nothing any more."""


class BootTimeout(GuestError):
    """The guest did not come up in time."""


class ImageDamaged(GuestError):
    """The guest cannot read its root or its modules: a file of the host's is damaged."""

    exit_code = ExitCode.UNTESTABLE


class ConsoleLost(GuestError):
    """The guest takes no commands over this console, or its answer made no sense.

    Its kernel may be well.
    """


class CommandTimedOut(GuestError):
    """A command had no end within its time; it was killed."""


class CommandHung(CommandTimedOut):
    """A command waits in the kernel for something that does not come; the guest goes on."""


class CommandFailed(Failure):
    """A command ended with another status than 0 where success was expected."""

    exit_code = ExitCode.FAILED
