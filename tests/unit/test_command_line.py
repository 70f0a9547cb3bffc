# SPDX-License-Identifier: GPL-2.0-or-later
"""Parsing of the command line: names, options, help, completion. No command runs here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from blockyard.ci.cli import completion, help, namespace, options
from blockyard.ci.cli.command import Command, Group, Option
from blockyard.ci.cli.program import Program
from blockyard.ci.run import selection
from blockyard.kernel.host import version
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.unit.repositories import git


class Read(Program):
    """Reads a command line and does not run it."""

    def execute(self) -> None:
        """Runs nothing."""


def read(*arguments: str) -> Read:
    program = Read("./inv")
    program.run(["./inv", *arguments])
    return program


def values(*arguments: str) -> Mapping[str, Any]:
    """Values of the options of the command in `arguments`."""
    (context,) = read(*arguments).tasks
    return context.as_kwargs


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    def refuse(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            read(*arguments)
        assert caught.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        return str(err)

    return refuse


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    def show(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            read(*arguments)
        assert caught.value.code == 0
        out, err = capsys.readouterr()
        assert err == ""
        return str(out)

    return show


INVOKES = (
    *("--dry", "-R", "--echo", "-e", "--pty", "-p", "--hide", "--debug", "-d", "--warn-only", "-w"),
    *("--config", "-f", "--collection", "-c", "--search-root", "-r", "--list-depth", "-D"),
    *("--list-format", "-F", "--command-timeout", "-T", "--no-dedupe", "--write-pyc"),
    "--prompt-for-sudo-password",
)
COMMANDS = list(dict.fromkeys(namespace.known().values()))
EXAMPLES = [(command, example) for command in COMMANDS for example in command.examples]


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("arguments", "message", "near"),
        [
            ("tset", "unknown command 'tset'", "did you mean test?"),
            ("kernal.list", "unknown command 'kernal.list'", "kernel.list"),
            ("mutants", "unknown command 'mutants'", "dev.mutants"),
            ("kernel.gc", "unknown command 'kernel.gc'", "did you mean cache.gc?"),
            ("zzz", "unknown command 'zzz'", "./inv --help"),
            ("kernel", "kernel is a group of commands", "kernel.fetch"),
            ("--help tset", "unknown command 'tset'", "did you mean test?"),
            ("test --drvier nvme", "unknown option --drvier of test", "did you mean --driver?"),
            ("test --zzz", "unknown option --zzz of test", "./inv test --help"),
            ("init --dyr-run", "unknown option --dyr-run of init", "--dry-run"),
            ("-k size test", "unknown option -k before the command", "./inv test -k"),
            ("test nvme", "test does not take 'nvme'", "./inv test --help"),
            ("test --quick bulid", "test does not take 'bulid'", "did you mean build?"),
        ],
    )
    def test_unknown_name_is_refused_with_the_nearest(
        self, refused: Any, arguments: str, message: str, near: str
    ) -> None:
        error = refused(*arguments.split())
        assert error.startswith(f"error: {message}\n")
        assert near in error.partition("\n")[2]

    def test_options_of_invoke_are_unknown(self, refused: Any, printed: Any) -> None:
        page = printed("--help")
        for flag in INVOKES:
            assert f"unknown option {flag} before the command" in refused(flag, "doctor")
            assert f"unknown option {flag} of doctor" in refused("doctor", flag)
            assert not re.search(rf"(^|\s){flag}(?![\w-])", page)


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("test --driver", "--driver needs a value"),
            ("test --driver --console ssh", "--driver needs a value"),
            ("boot --run", "--run needs a value"),
            ("boot --timeout soon", "invalid --timeout 'soon': expected a whole number"),
            ("boot --timeout ٣", "invalid --timeout '٣': expected a whole number"),
            ("test --variant a --variant b", "--variant takes one value and is given 2 times"),
            ("test --seed=1 --seed=2", "--seed takes one value and is given 2 times"),
            ("init", "init needs DIR"),
            ("kernel.diff 7.3", "kernel.diff needs NEW"),
            ("kernel.fetch", "kernel.fetch needs KERNELS"),
        ],
    )
    def test_missing_or_invalid_value_is_refused(
        self, refused: Any, arguments: str, message: str
    ) -> None:
        assert refused(*arguments.split()).startswith(f"error: {message}\n")

    def test_short_flags_mean_the_same_in_all_commands(self) -> None:
        short: dict[str, set[str]] = {}
        for command in COMMANDS:
            for option in command.get_arguments():
                assert isinstance(option, Option)
                for name in option.names:
                    if len(name) == 1:
                        short.setdefault(name, set()).add(option.metavar)
        assert short == {"k": {"PATTERN"}}

    def test_list_options_are_repeated_or_have_commas(self) -> None:
        parsed = values("test", "--driver", "nvme,rnull", "--driver", "null_blk", "--kernel", "7.2")
        assert parsed["driver"] == ["nvme,rnull", "null_blk"]
        assert parsed["kernel"] == ["7.2"]
        assert parsed["suite"] == []

    def test_positional_value_can_be_given_as_an_option(self) -> None:
        assert values("kernel.fetch", "7.2,6.12")["kernel"] == ["7.2,6.12"]
        named = values("kernel.fetch", "--kernel", "7.2", "--kernel", "6.12")
        assert named["kernel"] == ["7.2", "6.12"]

    @pytest.mark.parametrize(
        ("arguments", "verbosity"),
        [("doctor", 0), ("-v doctor", 1), ("doctor -v", 1), ("-v doctor -v", 2), ("doctor -vv", 2)],
    )
    def test_verbosity_before_and_after_the_command(self, arguments: str, verbosity: int) -> None:
        assert read(*arguments.split()).verbosity == verbosity

    def test_arguments_after_double_dash_stay_whole(self) -> None:
        remainder = read("blktests", "--", "-k", "a b", "c'd", "--help").core.remainder
        assert shlex.split(remainder) == ["-k", "a b", "c'd", "--help"]

    def test_defaults_of_kernel_options_are_those_of_the_spec(self) -> None:
        from blockyard.kernel.spec import KernelSpec

        assert options.kernel_spec("build", {}) == KernelSpec()

    def test_help_names_the_default_value(self, printed: Any) -> None:
        assert "(default: pinned)" in " ".join(printed("build", "--help").split())

    def test_help_text_with_a_default_of_its_own_gets_no_other(self, printed: Any) -> None:
        assert "all of the catalog (default" not in printed("kernel.survey", "--help")

    def test_path_options_are_repeated_or_have_commas(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a", "b", "c,d"):
            Path(name).mkdir()
        spec = options.kernel_spec("build", {"module": ["a,b", "c,d"], "variant": "kasan"})
        assert spec.modules == (Path("a"), Path("b"), Path("c,d"))
        assert spec.variant == "kasan"


class TestHelp:
    def test_all_commands_are_listed_in_groups_with_an_example(self, printed: Any) -> None:
        page = printed("--help")
        assert printed() == page
        titles = [
            line for line in page.splitlines() if line.rstrip(":") in {g.value for g in Group}
        ]
        assert titles == [f"{group.value}:" for group in Group]
        for command in COMMANDS:
            assert f"  ./inv {command.examples[0]}" in page

    def test_help_shows_the_program_name_as_typed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            Read("blockyard").run(["blockyard", "test", "--help"])
        page = capsys.readouterr().out
        assert page.startswith("usage: blockyard test ")
        assert "./inv" not in page

    @pytest.mark.parametrize("path", namespace.known())
    def test_help_page_has_options_examples_and_exit_codes(self, printed: Any, path: str) -> None:
        page = printed(path, "--help")
        assert page == printed("--help", path) == printed("help", path)
        command = namespace.known()[path]
        for option in command.get_arguments():
            assert isinstance(option, Option)
            assert option.help
            flag = f"-{option.names[0]}" if len(option.names[0]) == 1 else f"--{option.names[0]}"
            assert (option.metavar if option.positional else flag) in page
        assert "Examples:" in page
        assert "Exit codes:\n  0 " in page

    @pytest.mark.parametrize("arguments", [["kernel.explain"], ["boot", "--run"]])
    def test_help_is_shown_despite_missing_values(self, printed: Any, arguments: list[str]) -> None:
        assert printed(*arguments, "--help").startswith("usage: ")

    @pytest.mark.parametrize(("command", "example"), EXAMPLES)
    def test_examples_are_command_lines(self, command: Command, example: str) -> None:
        line = re.sub(r"<\(.*\)", "FILE", example).partition("  #")[0]
        arguments = shlex.split(re.split(r" [<>] ", line)[0])
        (context,) = read(*arguments).tasks
        assert namespace.known()[str(context.name)] is command

    def test_lines_of_help_fit_the_width(self) -> None:
        pages = [
            help.overview("./inv"),
            *(help.of_command(command, "./inv") for command in COMMANDS),
        ]
        assert max(len(line) for page in pages for line in page.splitlines()) <= help.MOST_COLUMNS

    def test_help_of_a_group_lists_its_commands(self, printed: Any) -> None:
        page = printed("help", "cache")
        assert "cache.gc" in page
        assert "kernel.list" not in page


class TestVersion:
    def test_version_is_that_of_blockyard(self, printed: Any) -> None:
        assert re.fullmatch(r"blockyard \d+\.\d+\.\d+.*\n", printed("--version"))

    def test_version_of_a_checkout_has_the_commit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(version, "PROJECT", tmp_path)
        number = version.current().version
        assert str(version.current()) == number
        git(tmp_path, "init", "-q")
        (tmp_path / "file").write_text("a")
        git(tmp_path, "add", "file")
        git(tmp_path, "commit", "-q", "-m", "x")
        own = version.current()
        assert re.fullmatch(r"[0-9a-f]{40}", own.commit)
        assert str(own) == f"{number} (commit {own.commit[:12]})"
        (tmp_path / "file").write_text("b")
        assert str(version.current()).endswith(", modified)")


class TestCompletion:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["kernel.l"], ["kernel.list"]),
            (["test", "--cons"], ["--console"]),
            (["--verb"], ["--verbose"]),
            (["test", "--console", "s"], ["serial", "ssh"]),
            (["test", "--console", "serial,ss"], ["serial,ssh"]),
            (["test", "--console=ss"], ["--console=ssh"]),
            (["test", "--console", "=", "ss"], ["ssh"]),  # bash splits the word at =
            (["boot", "--kernel", "7.3-d"], ["7.3-debian"]),
            (["boot", "--variant", "kas"], ["kasan"]),
            (["test", "--driver", "rn"], ["rnull", "rnvme"]),
            (["test", "--suite", "mod"], ["module"]),
            (["boot", "--topology", "zn"], ["zns"]),
            (["boot", "--run", ""], []),
            (["blktests", "--", "--tr"], []),
        ],
    )
    def test_candidates(self, arguments: list[str], expected: list[str]) -> None:
        common = Program("./inv").initial_context
        assert completion.candidates(arguments, common) == expected

    def test_all_completed_values_belong_to_an_option(self) -> None:
        names = {str(option.name) for command in COMMANDS for option in command.get_arguments()}
        assert completion.VALUES.keys() <= names
        assert selection.SMOKE in completion.values("suite")

    def test_empty_word_completes_to_all_commands(self, printed: Any) -> None:
        assert printed("--complete", "--", "").split() == list(namespace.known())

    def test_bash_completion_runs_the_program_as_typed(self, tmp_path: Path) -> None:
        script = tmp_path / "script"
        script.write_text(completion.script("bash"))
        typed = [str(PROJECT / "inv"), "boot", "--console", "s"]
        line = (
            f"source {script}; COMP_WORDS=({shlex.join(typed)}); COMP_CWORD=3; "
            '_blockyard inv s --console; echo "${COMPREPLY[@]}"; complete -p inv blockyard'
        )
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == "serial ssh"
        assert done.stdout.count("-F _blockyard") == 2

    @pytest.mark.parametrize("shell", ["zsh", "fish"])
    def test_completion_script_is_valid_shell_code(self, shell: str) -> None:
        if shutil.which(shell) is None:
            pytest.skip(f"no {shell} here")
        argv = [shell, "-n", "/dev/stdin"]
        done = subprocess.run(argv, input=completion.script(shell), text=True, env=os.environ)
        assert done.returncode == 0

    def test_unknown_shell_is_refused(self, refused: Any) -> None:
        error = refused("--print-completion-script=tcsh")
        assert error.startswith("error: unknown shell 'tcsh'")
