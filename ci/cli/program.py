# SPDX-License-Identifier: GPL-2.0-or-later
"""The program behind `./inv` and `blockyard`: invoke with our own options, help and messages.

Of invoke's own options only those that are useful here exist; all others are unknown options. A
command line that is not understood ends with exit code 2 and suggestions.
"""

from __future__ import annotations

import shlex

from invoke.config import Config
from invoke.exceptions import Exit, ParseError
from invoke.parser import Parser, ParseResult
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext
from invoke.program import Program as InvokeProgram

from blockyard.ci.cli import help, namespace
from blockyard.ci.cli.command import Option
from blockyard.kernel.host import installation
from blockyard.kernel.host.errors import UsageError


class _Config(Config):
    """invoke's settings, without its configuration files: they are for other projects."""

    def load_base_conf_files(self) -> None:
        """Reads nothing; invoke would execute ~/.invoke.py."""


class Program(InvokeProgram):
    """Runs one command line. called_as: the program's name for help and messages."""

    def __init__(self, called_as: str) -> None:
        super().__init__(
            namespace=namespace.namespace,
            name="blockyard",
            binary=called_as,
            config_class=_Config,
        )
        self.verbosity = 0

    def core_args(self) -> list[Argument]:
        """Options that every command has; they may stand before or after the command."""
        return [
            Argument(names=("help", "h"), kind=bool, default=False, help=help.HELP),
            Argument(names=("list", "l"), kind=bool, default=False, help=help.LIST),
            Argument(names=("version", "V"), kind=bool, default=False, help=help.VERSION),
            Argument(
                names=("verbose", "v"), kind=int, default=0, incrementable=True, help=help.VERBOSE
            ),
            Argument(names=("print-completion-script",), default="", help=help.COMPLETION),
            Argument(names=("complete",), kind=bool, default=False),  # called by that script
        ]

    def parse_core(self, argv: list[str] | None) -> None:
        """Parses the options before the command; handles those that need no command."""
        self.normalize_argv(argv)
        try:
            self.parse_core_args()
        except ParseError as error:
            raise refused(_incomplete(error, self.argv[1:], self.initial_context)) from None
        if self.args.complete.value:
            from blockyard.ci.cli import completion

            print(
                "\n".join(completion.candidates(self._words_after_dashes(), self.initial_context))
            )
            raise Exit
        if self.args.version.value:
            self.print_version()
            raise Exit
        if shell := self.args["print-completion-script"].value:
            from blockyard.ci.cli import completion

            try:
                print(completion.script(shell), end="")
            except UsageError as error:
                raise refused(error) from None
            raise Exit

    def print_version(self) -> None:
        """Prints Blockyard's version and commit."""
        from blockyard.kernel.host import version

        print(f"blockyard {version.current()}")

    def parse_tasks(self) -> None:
        """Parses the command and its options; shows help and lists."""
        words = self.core.unparsed
        if self._wants_help(words):
            self._show_help([word for word in words if word not in ("-h", "--help")])
            raise Exit
        if self.args.list.value:
            print(help.names(self.binary))
            raise Exit
        self.parser = Parser(
            initial=self.initial_context,
            contexts=self.collection.to_contexts(),
            ignore_unknown=True,
        )
        try:
            self.tasks: ParseResult = self.parser.parse_argv(words)
            common = self.tasks.pop(0)
            self._check(self.tasks, words)
        except ParseError as error:
            raise refused(_incomplete(error, words, self.initial_context)) from None
        except UsageError as error:
            raise refused(error) from None
        self.verbosity = self.args.verbose.value + common.args.verbose.value
        # quoted again, since invoke joins the words with spaces
        self.core.remainder = shlex.join(self._words_after_dashes())

    def parse_cleanup(self) -> None:
        """Shows the overview when no command is given."""
        if not self.tasks:
            print(help.overview(self.binary))
            raise Exit

    def update_config(self, merge: bool = True) -> None:
        """Skips invoke's step that copies options to settings: ours set none."""
        self.config.merge()

    def execute(self) -> None:
        """Runs the command, with logging as -v says."""
        from blockyard.kernel.host import log

        log.setup(self.verbosity)
        super().execute()

    def _words_after_dashes(self) -> list[str]:
        return self.argv[self.argv.index("--") + 1 :] if "--" in self.argv else []

    def _wants_help(self, words: list[str]) -> bool:
        typed = words[: words.index("--")] if "--" in words else words
        return bool(self.args.help.value or {"-h", "--help"} & set(typed) or words[:1] == ["help"])

    def _show_help(self, words: list[str]) -> None:
        topic = next((word for word in words if word != "help"), "")
        known = namespace.known()
        if not topic:
            print(help.overview(self.binary))
        elif topic in known:
            print(help.of_command(known[topic], self.binary))
        elif topic in self.collection.collections:
            print(help.overview(self.binary, prefix=f"{topic}."))
        else:
            raise refused(_unknown_command(topic))

    def _check(self, tasks: ParseResult, words: list[str]) -> None:
        """Raises UsageError for a word that is neither a command nor an option nor a value."""
        for context in tasks:
            for argument in context.positional_args:
                values = argument.value if isinstance(argument.value, list) else [argument.value]
                if flags := [value for value in values if str(value).startswith("-")]:
                    raise _unknown_option(flags[0], context)
        if not tasks.unparsed:
            return
        word, context = tasks.unparsed[0], tasks[-1] if tasks else self.initial_context
        if word.startswith("-"):
            raise _unknown_option(word, context)
        if not context.name:
            raise _unknown_command(word)
        _check_given_once(context, words)
        raise _unknown_word(word, context)


def refused(error: UsageError) -> Exit:
    """The Exit that prints an error and has its exit code."""
    from blockyard.kernel.host.progress import printable

    return Exit(printable(f"error: {error}"), int(error.exit_code))


def _unknown_command(word: str) -> UsageError:
    if commands := [path for path in namespace.known() if path.startswith(f"{word}.")]:
        return UsageError(
            f"{word} is a group of commands", hint=f"choose a command: {', '.join(commands)}"
        )
    hint = f"did you mean {' or '.join(near)}?" if (near := namespace.near(word)) else ""
    return UsageError(f"unknown command {word!r}", hint=hint or "./inv --help lists all commands")


def _unknown_option(word: str, context: ParserContext) -> UsageError:
    """The error for an option that the command does not have."""
    import difflib

    name = word.partition("=")[0]
    where = f"of {context.name}" if context.name else "before the command"
    if not context.name and (owners := namespace.with_option(name)):
        hint = f"options go after the command: ./inv {owners[0]} {name} ..."
    elif near := difflib.get_close_matches(name, context.flag_names(), n=3, cutoff=0.7):
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"./inv {context.name or ''} --help lists all options".replace("  ", " ")
    return UsageError(f"unknown option {name} {where}", hint=hint)


def _check_given_once(context: ParserContext, words: list[str]) -> None:
    """Raises UsageError if an option that takes one value is repeated."""
    typed = [word.partition("=")[0] for word in words]
    for flag, argument in context.flags.items():
        if argument.takes_value and argument.kind is not list and typed.count(flag) > 1:
            raise UsageError(f"{flag} takes one value and is given {typed.count(flag)} times")


def _unknown_word(word: str, context: ParserContext) -> UsageError:
    """The error for a surplus word after a command."""
    near = namespace.near(word)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    hint += f"./inv {context.name} --help shows how values are given"
    return UsageError(f"{context.name} does not take {word!r}", hint=hint)


def _incomplete(error: ParseError, words: list[str], initial: ParserContext) -> UsageError:
    """The error for a command or an option whose value is missing."""
    context = error.context or initial
    if missing := context.missing_positional_args:
        command = str(context.name)
        names = " and ".join(
            argument.metavar for argument in missing if isinstance(argument, Option)
        )
        return UsageError(
            f"{command} needs {names}", hint=help.usage(command, installation.program())
        )
    flags = {**initial.flags, **context.flags}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        takes_value = word in flags and flags[word].takes_value and not flags[word].optional
        if takes_value and (following == "--" or following in flags):
            return UsageError(f"{word} needs a value")
    return UsageError(str(error))
