# SPDX-License-Identifier: GPL-2.0-or-later
"""A command: a function whose parameters are its options, plus its help texts.

A parameter without a default is positional. One whose default is ``()`` is a list: the option may
be repeated, or have commas between its values. A command that is `on_a_kernel` also has the options
of `options.KERNEL`, and gets them as one `KernelSpec`. One with `project` reads the project file,
and is called once for each kernel, variant and topology in it.

A user's error ends as one message and an exit code, see ci.run.exits.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.parser.argument import Argument
from invoke.tasks import Task

from blockyard.ci.cli import options
from blockyard.ci.cli.options import Help

Words = Sequence[str]  # the values of a list option


class Group(Enum):
    """Headings of `./inv --help`, in this order."""

    ANSWER = "Get an answer"
    LOOK = "Look inside"
    KERNELS = "Kernels"
    COMPARE = "Compare"
    HOUSE = "Keep house"
    DEVELOP = "Develop Blockyard"


class Option(Argument):
    """An option of a command. metavar: the name of its value in help; empty for a flag."""

    def __init__(self, name: str, *, kind: type, metavar: str, help: str, **settings: Any) -> None:
        flag = name.strip("_").replace("_", "-")
        super().__init__(
            name=flag, kind=kind, help=help, attr_name=None if flag == name else name, **settings
        )
        self.metavar = metavar
        if kind is list:  # invoke's own default, [], would count as a given value
            self.raw_value, self._value = None, None if self.positional else []

    def set_value(self, value: Any, cast: bool = True) -> None:
        """Sets the value from the command line; raises UsageError for an invalid number."""
        from blockyard.kernel.host.errors import UsageError

        flag = f"-{self.names[0]}" if len(self.names[0]) == 1 else f"--{self.names[0]}"
        if self.kind is list:
            self.raw_value, self._value = value, [*(self._value or []), value]
            return
        if self.kind is int:
            digits = str(value).removeprefix("-")
            if not (digits.isascii() and digits.isdigit()):
                raise UsageError(f"invalid {flag} {value!r}: expected a whole number")
        super().set_value(value, cast)


class Command(Task[Callable[..., None]]):
    """A command of Blockyard, made by the decorator `command`.

    path: its name on the command line. examples: without the program's name. words: help for the
    words after `--`; empty if it takes none. ends: exit code → meaning, where help needs more than
    the general text. results: help on the files that it writes.
    """

    def __init__(
        self,
        body: Callable[..., None],
        path: str,
        group: Group,
        *,
        examples: Sequence[str],
        help: Help,
        on_a_kernel: bool,
        project: bool,
        words: str,
        ends: Mapping[int, str],
        results: str,
        optional: Iterable[str],
    ) -> None:
        super().__init__(
            body,
            name=path.rpartition(".")[2],
            optional=optional,
            auto_shortflags=False,
        )
        self.path = path
        self.group = group
        self.examples = tuple(examples)
        self.helps = {**options.SHARED, **help}
        self.on_a_kernel = on_a_kernel
        self.project = project
        self.words = words
        self.ends = dict(ends)
        self.results = results

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.body) or "").partition("\n")[0]

    @property
    def description(self) -> str:
        """The function's docstring after its first line."""
        return (inspect.getdoc(self.body) or "").partition("\n")[2].strip()

    def own_options(self) -> list[Option]:
        """The command's options, without those of `options.KERNEL`."""
        return [
            self._option(parameter)
            for parameter in self.argspec(self.body).parameters.values()
            if parameter.name not in ("spec", "words")
        ]

    def kernel_options(self) -> list[Option]:
        """The options of `options.KERNEL`; empty unless the command is on a kernel."""
        if not self.on_a_kernel:
            return []
        return [
            Option(
                name,
                kind=list if name in options.LISTS else str,
                metavar=metavar,
                help=text,
                default=None if name in options.LISTS else "",
            )
            for name, (metavar, text) in options.KERNEL.items()
        ]

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """All options; invoke's parser calls this."""
        return [*self.own_options(), *self.kernel_options()]

    def _option(self, parameter: inspect.Parameter) -> Option:
        metavar, text = self.helps[parameter.name]
        positional = parameter.default is parameter.empty
        several = parameter.default == () or "Words" in str(parameter.annotation)
        return Option(
            parameter.name,
            kind=list if several else str if positional else type(parameter.default),
            metavar=metavar,
            help=text,
            default=None if positional or several else parameter.default,
            positional=positional,
            optional=parameter.name in self.optional,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the command; raises Exit when its exit code is not 0."""
        from blockyard.ci.run import exits

        if code := exits.code_of(lambda: self._run(args[0], kwargs)):
            raise Exit(code=code)

    def _run(self, c: Context, values: dict[str, Any]) -> None:
        from blockyard.kernel.host.errors import UsageError

        self._check_installation(values)
        words = tuple(shlex.split(c.remainder))
        if words and not self.words:
            raise UsageError(f"{self.path} takes no words after --: {c.remainder}")
        if self.words:
            values["words"] = words
        self.times_called += 1
        if self.project and (several := options.cells(values)):
            from blockyard.ci.run import exits

            exits.each([functools.partial(self._call, c, cell) for cell in several])
        else:
            self._call(c, values)

    def _call(self, c: Context, values: dict[str, Any]) -> None:
        if self.on_a_kernel:
            of_kernel = {name: values.pop(name, None) for name in options.KERNEL}
            values["spec"] = options.kernel_spec(self.path, of_kernel)
        self.body(c, **values)

    def _check_installation(self, values: Mapping[str, Any]) -> None:
        """Raises UsageError when an installed package is asked for what needs a checkout."""
        from blockyard.kernel.host.errors import UsageError
        from blockyard.kernel.host.installation import INSTALLED

        if not INSTALLED:
            return
        if self.path in options.IN_A_CHECKOUT:
            raise UsageError(
                f"{self.path} needs a checkout of Blockyard; this is an installed package",
                hint=f"clone Blockyard's repository; its inv has {self.path}",
            )
        if values.get("write"):
            raise UsageError(
                "--write needs a checkout of Blockyard; this is an installed package",
                hint="--output FILE writes the page to another file",
            )


def command(
    path: str,
    group: Group,
    *examples: str,
    help: Help | None = None,
    on_a_kernel: bool = False,
    project: bool = False,
    words: str = "",
    ends: Mapping[int, str] | None = None,
    results: str = "",
    optional: Iterable[str] = (),
) -> Callable[[Callable[..., None]], Command]:
    """Decorator that turns a function into a `Command`; arguments as there."""
    return lambda body: Command(
        body,
        path,
        group,
        examples=examples,
        help=help or {},
        on_a_kernel=on_a_kernel,
        project=project,
        words=words,
        ends=ends or {},
        results=results,
        optional=optional,
    )
