# SPDX-License-Identifier: GPL-2.0-or-later
"""Tab completion: shell scripts that call `--complete -- WORD...` for candidates.

Completes commands, options and named values of options. The shell offers files where there are no
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from invoke.parser.context import ParserContext

from blockyard.ci.cli import namespace
from blockyard.kernel.host.errors import unknown

# Each script passes the words up to the cursor to the program, which it calls as it was typed.
SCRIPTS = {
    "bash": r"""_blockyard() {
	local program=${COMP_WORDS[0]/#\~/$HOME}
	local typed=("${COMP_WORDS[@]:1:COMP_CWORD}")
	COMPREPLY=($(compgen -W "$("$program" --complete -- "${typed[@]}" 2>/dev/null)" -- "$2"))
	compopt -o nosort 2>/dev/null
}
complete -o default -F _blockyard inv blockyard
""",
    "zsh": r"""_blockyard() {
	local -a found
	found=("${(@f)$(${~words[1]} --complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	[[ -n $found ]] && compadd -V blockyard -- $found || _files
}
compdef _blockyard inv blockyard
""",
    "fish": r"""function __blockyard
	set -l typed (commandline --tokenize --cut-at-cursor)
	$typed[1] --complete -- $typed[2..] (commandline --current-token) 2>/dev/null
end
for program in inv blockyard
	complete --command $program --keep-order --arguments '(__blockyard)'
end
""",
}


def script(shell: str) -> str:
    """The script for a shell to source; raises UsageError for an unknown shell."""
    if shell not in SCRIPTS:
        raise unknown("shell", shell, SCRIPTS)
    return SCRIPTS[shell]


def candidates(words: Sequence[str], common: ParserContext) -> list[str]:
    """Completions of the last word. words: after the program's name, up to the cursor."""
    *before, current = words or [""]
    before = [word for word in before if word != "="]  # bash splits --option=value into three words
    if "--" in before:
        return []
    command = next((word for word in before if word in namespace.known()), None)
    if command is None:
        texts: Iterable[str] = _flags(common) if current.startswith("-") else namespace.known()
        return _with_prefix(texts, current)
    options = {
        f"-{argument.names[0]}"
        if len(argument.names[0]) == 1
        else f"--{argument.names[0]}": argument
        for argument in namespace.known()[command].get_arguments()
    }
    name, equals, value = current.partition("=")
    option = name if equals else before[-1]
    if option in options and options[option].takes_value:
        complete, comma, partial = (value if equals else current.lstrip("=")).rpartition(",")
        head = (f"{name}=" if equals else "") + complete + comma
        return [head + text for text in _with_prefix(values(option.lstrip("-")), partial)]
    return _with_prefix([*options, *_flags(common)], current) if current.startswith("-") else []


def values(option: str) -> Sequence[str]:
    """The names that are values of an option; empty for other kinds of values."""
    return VALUES[option]() if option in VALUES else ()


def _flags(context: ParserContext) -> list[str]:
    return [flag for flag in context.flag_names() if flag != "--complete"]


def _with_prefix(texts: Iterable[str], prefix: str) -> list[str]:
    return [text for text in texts if text.startswith(prefix)]


def _kernels() -> Sequence[str]:
    from blockyard.kernel import catalog

    return tuple(catalog.catalog())


def _variants() -> Sequence[str]:
    from blockyard.kernel.config import variants

    return variants.names()


def _toolchains() -> Sequence[str]:
    from blockyard.kernel.build.toolchain import ORIGINS

    return ORIGINS


def _compilers() -> Sequence[str]:
    from blockyard.kernel.build.toolchain import COMPILERS

    return COMPILERS


def _drivers() -> Sequence[str]:
    from blockyard.modules import manifest

    return manifest.names()


def _suites() -> Sequence[str]:
    from blockyard.ci.run import selection

    return (selection.SMOKE, selection.ALL, *selection.suites())


def _topologies() -> Sequence[str]:
    from blockyard.images.hardware import topologies

    return topologies.names()


VALUES: Mapping[str, Callable[[], Sequence[str]]] = {
    "accel": lambda: ("auto", "kvm", "tcg"),
    "compiler": _compilers,
    "console": lambda: ("serial", "ssh", "both"),
    "driver": _drivers,
    "kernel": _kernels,
    "start": lambda: ("auto", "boot", "snapshot"),
    "suite": _suites,
    "toolchain": _toolchains,
    "topology": _topologies,
    "variant": _variants,
}
