# SPDX-License-Identifier: GPL-2.0-or-later
"""What `./inv` starts: invoke, sooner, and quiet when it is interrupted before it has begun.

inv starts this with Python's -I: neither PYTHON* nor the current folder has a say in what is
imported, and environment.clean() keeps it so for the processes that are started from here.

Until a task runs (tasks.py then has its own way), Ctrl-C just ends the process. invoke imports
modules that it uses in its own tests, for YAML configuration and for ``--version`` only: 35 ms of
the 100 that it takes. It gets stand-ins for them, which nobody else sees.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402

# our packages, whatever the current directory has (a kernel tree has a folder kernel, too)
ROOT = Path(__file__).parent.parent
if not sys.flags.safe_path:  # started by hand, without -I
    del sys.path[0]
sys.path.insert(0, str(ROOT))
if not __debug__:
    sys.exit("error: without -O: helpers of tests fail by assertions, which it removes")

from blockyard.kernel.host import environment  # noqa: E402

try:
    Path.cwd()
except OSError as error:
    print(f"error: the current folder is gone ({error.strerror})", file=sys.stderr)
    sys.exit(2)

environment.clean()


def version(package: str) -> str:
    """invoke's version, as the lock file has it: what importlib.metadata would look up."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return next(line.split()[0].split("==")[1] for line in lines if line.startswith(package))


from blockyard.kernel.host import streams  # noqa: E402

streams.prepare()

STANDINS: dict[str, dict[str, object]] = {
    "unittest.mock": {"Mock": object},
    "importlib.metadata": {"version": version},
}
for name, attributes in STANDINS.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(attributes)

from invoke.config import Config  # noqa: E402
from invoke.exceptions import Exit, ParseError  # noqa: E402
from invoke.main import program  # noqa: E402

for name in STANDINS:
    del sys.modules[name]


class _Config(Config):
    """invoke's settings, without the files that a user may have for other projects."""

    def load_base_conf_files(self) -> None:
        """Reads nothing: ~/.invoke.py would be run."""

    def load_project(self, merge: bool = True) -> None:
        """Reads nothing."""


# invoke's options that make sense here; those with a value of their own
OPTIONS = {"-h", "--help", "-l", "--list", "-V", "--version", "--complete"}
VALUED = {"-r", "--search-root", "-F", "--list-format", "-D", "--list-depth"}
VALUED |= {"--print-completion-script"}
SHELLS = {"bash", "fish", "zsh"}


def arranged(words: list[str]) -> list[str]:
    """The command line as invoke understands it: help of a task, whatever else it takes.

    Raises Exit for an option before the task that is not one of ours.
    """
    at = 0
    while at < len(words) and words[at].startswith("-"):
        name, _, value = words[at].partition("=")
        if name not in OPTIONS | VALUED:
            raise _usage(f"unknown option {name} before the command")
        if name in VALUED and not value:
            at += 1
            value = words[at] if at < len(words) else ""
        if name == "--print-completion-script" and value not in SHELLS:
            raise _usage(f"no completion for {value!r}: there is one for {', '.join(SHELLS)}")
        at += 1
        if name == "--complete":  # what a shell's completion asks: any words
            return words
    task, rest = words[at : at + 1], words[at + 1 :]
    if task and {"-h", "--help"} & set(rest[: rest.index("--")] if "--" in rest else rest):
        return [*words[:at], "--help", *task]
    return words


def parse_tasks(parse: Callable[[], None] = program.parse_tasks) -> None:
    """invoke's own, which raises ValueError for what is no number, and ends with 1."""
    try:
        parse()
    except ValueError as error:
        raise _usage(f"an option takes a whole number ({error})") from None
    except ParseError as error:
        raise _usage(str(error)) from None


def _usage(text: str) -> Exit:
    from blockyard.kernel.host.errors import ExitCode
    from blockyard.kernel.host.progress import printable

    return Exit(printable(f"error: {text}"), ExitCode.USAGE)


vars(program)["parse_tasks"] = parse_tasks
program.config_class = _Config


def run() -> None:
    """Runs the command; a broken stderr is not the answer's fault."""
    try:
        program.run([sys.argv[0], *arranged(sys.argv[1:])])
    except Exit as refused:  # of `arranged`
        print(refused.message, file=sys.stderr)
        sys.exit(refused.code)
    except OSError:
        if streams.broken(sys.stderr) is None:
            raise
        streams.silence(sys.stderr)
        sys.exit(2)  # invoke had something to say: it did not understand the command
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            streams.silence(sys.stderr)
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        run()
    except (
        OSError
    ) as error:  # invoke's own lists; a task's output is looked after in ci/run/exits.py
        if not streams.is_output(error):
            raise
        streams.silence(sys.stdout)
        from blockyard.ci.run.exits import lost_output

        sys.exit(lost_output(error))
