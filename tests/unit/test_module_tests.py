# SPDX-License-Identifier: GPL-2.0-or-later
"""A module's own tests: collected and run in a sandbox, which hostile files cannot leave."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from blockyard.ci.run import collection, run, selection
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.execute import Execution
from blockyard.ci.run.module_tests import enclosure, runner
from blockyard.ci.run.module_tests import folder as module_folder
from blockyard.ci.run.selection import Selection
from blockyard.ci.run.verdicts import Collector
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.modules import manifest
from blockyard.tests.harness import plan as harness_plan
from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.known import Known
from blockyard.tests.harness.outcomes import CaseResult
from blockyard.tests.unit import samples

GOOD = "def test_works(driver): pass\n"
Module = Callable[..., Path]


@pytest.fixture
def module(tmp_path: Path) -> Module:
    """Return a function that makes a module folder with the given test files."""

    def module(folder: Path = tmp_path / "mine", **files: str) -> Path:
        shutil.copytree(PROJECT / "modules" / "examples" / "c_null", folder)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return folder

    return module


def selected(folder: Path, suite: str = "mine", expression: str = "") -> Selection:
    modules = [manifest.of_folder(folder)]
    return selection.select("mine", "serial", suite, expression, modules)


def listed(folder: Path, tmp_path: Path, **options: str) -> list[str]:
    return [str(test) for test in collection.collected(selected(folder, **options)).values()]


class TestCollection:
    def test_parametrized_tests_and_features_are_listed(
        self, module: Module, tmp_path: Path
    ) -> None:
        text = (
            "import pytest\nfrom blockyard.tests.harness.requirements import feature\n\n"
            "@feature('size')\n@pytest.mark.parametrize('n', [1, 2])\n"
            "def test_counts(disk, n): pass\n"
        )
        folder = module(test_a=GOOD, test_b=text)
        tests = list(collection.collected(selected(folder)).values())
        assert [str(test) for test in tests] == [
            "mine/works[mine-serial]",
            "mine/counts(1)[mine-serial]",
            "mine/counts(2)[mine-serial]",
        ]
        assert [test.features for test in tests] == [("a",), ("size",), ("size",)]
        assert listed(folder, tmp_path, expression="counts and 2") == [
            "mine/counts(2)[mine-serial]"
        ]

    def test_module_code_cannot_reach_the_host(self, module: Module, tmp_path: Path) -> None:
        secret, mark = tmp_path / "secret", tmp_path / "ran"
        secret.write_text("x")
        cache = settings().cache_dir / "used" / "of-a-module"
        attack = (
            "import pathlib\n"
            f"for path in {[str(mark), str(cache), str(PROJECT / 'ran'), '/tmp/ran']!r}:\n"
            "    try: pathlib.Path(path).write_text('x')\n"
            "    except OSError: pass\n"
            f"assert not pathlib.Path({str(secret)!r}).exists()\n"
        )
        folder = module(test_a=attack + GOOD, conftest=attack)
        assert listed(folder, tmp_path) == ["mine/works[mine-serial]"]
        for path in (mark, cache, PROJECT / "ran", Path("/tmp/ran")):
            assert not path.exists()

    def test_module_conftest_does_not_affect_repository_suites(
        self, module: Module, tmp_path: Path
    ) -> None:
        """Nor do pytest configurations in the module's folder."""
        evil = "def pytest_collection_modifyitems(items): items.clear()\n"
        folder = module(conftest=evil, test_a=GOOD)
        for name in ("pytest.ini", "tox.ini", "setup.cfg"):
            (folder / name).write_text("[pytest]\naddopts = --no-such-option\n")
        (tmp_path / "conftest.py").write_text("1 / 0")
        names = listed(folder, tmp_path, suite="mine,block")
        assert "block/read[mine-serial]" in names
        assert not [name for name in names if name.startswith("mine/")]

    def test_parent_conftest_and_pytest_ini_are_ignored(
        self, module: Module, tmp_path: Path
    ) -> None:
        (tmp_path / "conftest.py").write_text("1 / 0")
        folder = module(test_a=GOOD)
        (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
        assert listed(folder, tmp_path) == ["mine/works[mine-serial]"]

    @pytest.mark.parametrize("where", ["test_a", "conftest"])
    @pytest.mark.parametrize("code", [0, 1])
    def test_exit_during_collection_is_a_failure(
        self, module: Module, tmp_path: Path, where: str, code: int
    ) -> None:
        files = {"test_a": GOOD, where: f"import os\nos._exit({code})\n"}
        with pytest.raises(Failure, match=rf"early \(exit code {code}, .*{where}.py"):
            listed(module(**files), tmp_path)

    @pytest.mark.parametrize("where", ["test_a", "conftest"])
    def test_endless_import_times_out(
        self, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        monkeypatch.setattr(runner, "COLLECT_S", 4.0)
        files = {"test_a": GOOD, where: "import time\ntime.sleep(1e9)\n"}
        with pytest.raises(Failure, match=rf"no end after 4 s \(.*{where}.py"):
            listed(module(**files), tmp_path)

    def test_collected_test_of_another_driver_is_refused(
        self, module: Module, tmp_path: Path
    ) -> None:
        forged = (
            "import gc\nfrom blockyard.ci.run.module_tests import inside, reports as own_reports\n"
            "(reporter,) = [x for x in gc.get_objects() if type(x).__name__ == 'Reporter']\n"
            "reporter.write(own_reports.Test('n', 'size', 'null_blk', 'serial', ''))\n"
        )
        with pytest.raises(Failure, match="claims to be a test of null_blk-serial"):
            listed(module(test_a=forged), tmp_path)

    def test_memory_is_limited(self, module: Module, tmp_path: Path) -> None:
        with pytest.raises(Failure, match="MemoryError"):
            listed(module(test_a="x = bytearray(1 << 40)\n"), tmp_path)

    @pytest.mark.parametrize("name", ["-a [b]::c", "$HOME, ä"])
    def test_special_characters_in_paths(self, module: Module, tmp_path: Path, name: str) -> None:
        folder = module(tmp_path / name / "mine", test_a=GOOD)
        assert listed(folder, tmp_path) == ["mine/works[mine-serial]"]

    def test_path_that_is_not_utf8_is_refused(self, module: Module, tmp_path: Path) -> None:
        folder = module(tmp_path / os.fsdecode(b"\xfc") / "mine", test_a=GOOD)
        with pytest.raises(UsageError, match=r"\\xfc/mine is not UTF-8"):
            listed(folder, tmp_path)

    def test_trusted_tests_run_outside_the_sandbox(
        self, module: Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        chosen = selected(module(test_a=f"open({str(tmp_path / 'ran')!r}, 'w')\n" + GOOD))
        trusting = selection.trusting(chosen, trust=True)
        assert "--trust-tests: the tests in" in capsys.readouterr().err
        assert [str(test) for test in collection.collected(trusting).values()] == [
            "mine/works[mine-serial]"
        ]
        assert (tmp_path / "ran").exists()


def test_checkout_path_with_special_characters(tmp_path: Path) -> None:
    checkout = tmp_path / "a [b]::c, $HOME"
    for name in ("blockyard", "ci", "images", "kernel", "modules", "tests"):
        shutil.copytree(PROJECT / name, checkout / name, symlinks=True)
    for name in ("inv", "tasks.py", "pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, checkout / name)
    (checkout / ".venv").symlink_to((PROJECT / ".venv").resolve())
    argv = [str(checkout / "inv"), "test", "--list", "--driver", "null_blk", "-k", "size"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "configfs/size" in done.stdout


# A conftest.py that replaces the body of each test, so that no guest is needed.
CONFTEST = """
import gc, os, pathlib, pytest, time
from blockyard.ci.run.module_tests import reports as own_reports
def instance(name):
    (match,) = [x for x in gc.get_objects() if type(x).__name__ == name]
    return match
def report(nodeid, outcome="passed", facts=own_reports.Facts("pass")):
    for when in ("setup", "call", "teardown"):
        instance("Reporter").write(own_reports.Phase(nodeid, when, outcome, 0.1, facts=facts))
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    report(item.nodeid) if "first" in item.name else hostile(item)
    return True
def hostile(item):
"""
TESTS = "def test_first(driver): pass\ndef test_second(driver): pass\n"
OTHERS = CaseId("block", "read", Slot("null_blk", "serial"))


class TestRun:
    """Results of a hostile run. The run also has a test of another driver."""

    def run(
        self, module: Module, tmp_path: Path, hostile: str, **files: str
    ) -> tuple[dict[str, CaseResult], list[str], Path]:
        """Return the results by name, the reasons for an early end, and the run's folder."""
        body = "".join(f"    {line}\n" for line in hostile.splitlines())
        folder = module(test_a=TESTS, conftest=CONFTEST + body)
        chosen, directory = selected(folder), tmp_path / "run"
        directory.mkdir()
        for kind in ("kernels", "roots", "images"):
            (store.directory(kind) / "entry").mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        plan, path = chosen.plan(samples.env_keys()), directory / "plan.json"
        harness_plan.write(plan, path)
        names = collection.collect(path, chosen)
        collector = Collector({**names, "block": OTHERS}, Known((), "7.3.4", "plain"))
        execution = Execution(path, chosen, collector, (), 1)
        _, problems = execution.run(names, plan)
        assert not list(directory.glob(".own-*"))
        return {result.id: result for result in collector.finish()}, problems, directory

    def outcomes(self, results: dict[str, CaseResult]) -> dict[str, str]:
        return {name: result.outcome for name, result in results.items()}

    LOST: ClassVar = {"mine/first": "pass", "mine/second": "lost", "block/read": "lost"}

    @pytest.mark.parametrize("code", [0, 3])
    def test_exit_loses_the_remaining_tests(
        self, module: Module, tmp_path: Path, code: int
    ) -> None:
        results, problems, _ = self.run(module, tmp_path, f"os._exit({code})")
        assert self.outcomes(results) == self.LOST
        assert f"exited before its last report (exit code {code})" in problems[0]

    @pytest.mark.parametrize(
        "nodeid", ["block", "tests/suites/block/test_read.py::test_read[null_blk-serial]"]
    )
    def test_verdict_of_another_driver_is_refused(
        self, module: Module, tmp_path: Path, nodeid: str
    ) -> None:
        results, problems, _ = self.run(module, tmp_path, f"report({nodeid!r})")
        assert self.outcomes(results) == self.LOST
        assert "not a test of this module" in problems[0]

    def test_second_verdict_is_refused(self, module: Module, tmp_path: Path) -> None:
        hostile = "report(item.nodeid.replace('second', 'first'), 'failed')"
        results, problems, _ = self.run(module, tmp_path, hostile)
        assert self.outcomes(results) == self.LOST
        assert "a second outcome" in problems[0]

    def test_outcome_without_facts_is_refused(self, module: Module, tmp_path: Path) -> None:
        results, problems, _ = self.run(module, tmp_path, "report(item.nodeid, facts=None)")
        assert self.outcomes(results) == self.LOST
        assert "without facts" in problems[0]

    def test_endless_test_times_out(
        self, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "TEST_S", 4.0)
        hostile = "instance('Reporter').write(own_reports.Started(item.nodeid))\ntime.sleep(1e9)"
        results, problems, _ = self.run(module, tmp_path, hostile)
        assert self.outcomes(results) == {**self.LOST, "mine/second": "timeout"}
        assert results["mine/second"].reason == "no end after 4 s"
        assert "no end after 4 s" in problems[0]

    def test_only_logs_are_copied_to_the_results(self, module: Module, tmp_path: Path) -> None:
        (victim := tmp_path / "victim").mkdir()
        (victim / "key").write_text("secret")
        hostile = (
            f"guests = pathlib.Path({str(tmp_path)!r}, 'run', 'guests')\n"
            "(guests / 'null_blk-serial-2').mkdir()\n"
            "(guests / 'null_blk-serial-2' / 'kernel.log').write_text('forged')\n"
            f"(guests / 'mine-serial-own-2').symlink_to({str(victim)!r})\n"
            "(guests / 'mine-serial-own-1').mkdir()\n"
            "(guests / 'mine-serial-own-1' / 'kernel.log').write_text('booted')\n"
            "(guests / 'mine-serial-own-1' / 'kernel.log').chmod(0o777)\n"
            f"(guests / 'mine-serial-own-1' / 'link').symlink_to({str(victim / 'key')!r})\n"
            "os.mkfifo(guests / 'mine-serial-own-1' / 'pipe')\n"
            "os.truncate(os.open(guests / 'mine-serial-own-1' / 'sparse', 65), 1 << 30)\n"
            "for name in ('plan.json', 'run.json'):\n"
            "    try: (guests.parent / name).write_text('forged')\n"
            "    except OSError: pass\n"
            "report(item.nodeid)"
        )
        results, problems, directory = self.run(module, tmp_path, hostile)
        assert (self.outcomes(results)["mine/second"], problems) == ("pass", [])
        kept = {str(path.relative_to(directory)) for path in directory.rglob("*")}
        assert kept == {
            "plan.json",
            "guests",
            "guests/mine-serial-own-1",
            "guests/mine-serial-own-1/kernel.log",
        }
        assert (
            directory / "guests" / "mine-serial-own-1" / "kernel.log"
        ).stat().st_mode & 0o7777 == 0o644
        assert "forged" not in (directory / "plan.json").read_text()
        assert (victim / "key").read_text() == "secret"

    def test_files_of_other_guests_are_unchanged(self, module: Module, tmp_path: Path) -> None:
        own, other = "guests/mine-serial-own-1", "guests/null_blk-serial-1"
        present = {f"{own}/evidence/core": "real", f"{own}/qemu.log": "real"}
        present |= {f"{other}/evidence/core": "real", f"{other}/kernel.log": "real"}
        hostile = (
            f"for name in {[own, other]!r}:\n"
            f"    folder = pathlib.Path({str(tmp_path)!r}, 'run', name)\n"
            "    folder.mkdir()\n"
            "    for file in ('evidence', 'kernel.log', 'qemu.log', 'zone.log'):\n"
            "        (folder / file).write_text('new')\n"
            "report(item.nodeid)"
        )
        results, problems, directory = self.run(module, tmp_path, hostile, **present)
        assert (self.outcomes(results)["mine/second"], problems) == ("pass", [])
        kept = {
            str(path.relative_to(directory)): path.read_text()
            for path in (directory / "guests").rglob("*")
            if path.is_file()
        }
        assert kept == {**present, f"{own}/kernel.log": "new", f"{own}/zone.log": "new"}

    @pytest.mark.parametrize(
        "error",
        [
            Failure("no snapshot"),
            OSError(errno.ENOSPC, "no snapshot"),
            subprocess.CalledProcessError(1, "no snapshot"),
            shutil.Error([("a", "b", "no snapshot")]),
        ],
    )
    def test_failed_preparation_loses_only_the_tests_of_the_module(
        self,
        module: Module,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        def fails(*_: object) -> None:
            raise error

        monkeypatch.setattr(module_folder, "prepare", fails)
        results, problems, _ = self.run(module, tmp_path, "pass")
        assert self.outcomes(results) == {**self.LOST, "mine/first": "lost"}
        assert "no snapshot" in results["mine/first"].reason
        assert "no snapshot" not in results["block/read"].reason
        assert "no snapshot" in problems[0]

    def test_unfinished_cache_entries_are_not_copied(self, module: Module, tmp_path: Path) -> None:
        (store.directory("qemu") / ".half.json").symlink_to("gone")
        (store.directory("qemu") / "whole.json").write_text("{}")
        plan = selected(module(test_a=GOOD)).plan()
        module_folder.prepare(plan, tmp_path, ())
        assert [path.name for path in (tmp_path / "cache" / "qemu").iterdir()] == ["whole.json"]


class TestCheck:
    """Errors that are reported before anything is built."""

    def test_host_without_nested_sandboxes_is_refused(
        self, module: Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = selected(module(test_a=GOOD))
        run.check(chosen)
        monkeypatch.setattr(runner, "obstacle", lambda: "no permission")
        with pytest.raises(UsageError, match="a sandbox inside another one") as caught:
            run.check(chosen)
        assert "--trust-tests" in caught.value.hint
        run.check(selection.trusting(chosen, trust=True))

    def test_bwrap_error_is_quoted(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        bwrap = tmp_path / "bwrap"
        bwrap.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2; exit 1\n")
        bwrap.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        enclosure.obstacle.cache_clear()
        try:
            assert "uid map: Permission denied" in enclosure.obstacle()
        finally:
            enclosure.obstacle.cache_clear()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[[failure]]\n", "reason|test"),
            ("a = " + "[" * 5000, "nests more than 16 levels deep"),
            (
                '[[failure]]\ntest = "*"\nreason = "x"\ndriver = "null_blk"\n',
                "the driver of this folder",
            ),
        ],
        ids=["field", "depth", "driver"],
    )
    def test_invalid_known_failures_are_refused(
        self, module: Module, text: str, message: str
    ) -> None:
        folder = module()
        (folder / "known_failures.toml").write_text(text)
        with pytest.raises(UsageError, match=message):
            run.check(selected(folder, suite="block"))

    def test_known_failures_as_a_symlink_are_refused(self, module: Module) -> None:
        folder = module()
        (folder / "known_failures.toml").symlink_to("/dev/zero")
        with pytest.raises(UsageError, match="known_failures.toml"):
            run.check(selected(folder, suite="block"))

    @pytest.mark.parametrize("path", ["/proc/nowhere", "file", "new/folder"])
    def test_results_folder_must_be_writable(
        self, module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("BLOCKYARD_RESULTS", str(tmp_path / path))
        settings.cache_clear()
        chosen = selected(module(), suite="block")
        try:
            if path == "new/folder":
                run.check(chosen)
                assert not (tmp_path / "new").exists(), "the check must not create the folder"
            else:
                with pytest.raises(Failure, match=f"cannot write to .*{path}"):
                    run.check(chosen)
        finally:
            settings.cache_clear()


class TestNames:
    """A record names a test by suite, class and function."""

    def test_class_is_part_of_the_name(self, module: Module, tmp_path: Path) -> None:
        folder = module(
            test_a="class TestA:\n    def test_x(self, driver): pass\n"
            "class TestB:\n    def test_x(self, driver): pass\n"
        )
        names = {test.partition("[")[0] for test in listed(folder, tmp_path)}
        assert names == {"mine/TestA.x", "mine/TestB.x"}

    def test_duplicate_names_are_refused(self, module: Module, tmp_path: Path) -> None:
        test = "def test_x(driver): pass\n"
        with pytest.raises(UsageError, match="two tests are called mine/x: ") as caught:
            listed(module(test_a=test, test_b=test), tmp_path)
        assert {"test_a.py", "test_b.py"} <= set(re.findall(r"test_\w\.py", caught.value.what))
