# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv blktests` in guests, on a small tree with the interfaces of upstream's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blockyard.ci.run import record
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.harness.outcomes import CaseResult

CHECK = """\
#!/bin/bash
# runs a test with or without a device; like upstream's it ignores the test's exit status
_call_test() {
	mkdir -p "$RESULTS_DIR/${NAME%/*}"
	local file=$RESULTS_DIR/$NAME status=pass reason
	if [[ ! -v SKIP_REASONS ]]; then
		"$1" > "$file.out" 2>&1
		if ! diff "tests/$NAME.out" "$file.out" > /dev/null; then
			mv "$file.out" "$file.out.bad"
			status=fail reason=output
		fi
	fi
	[[ -v SKIP_REASONS ]] && status="not run"
	printf 'status\\t%s\\nreason\\t%s\\nexit_status\\t0\\n' "$status" "$reason" > "$file"
	echo "$NAME (a test)    [$status]"
	for reason in "${SKIP_REASONS[@]}"; do echo "    $reason"; done
}
while getopts c: option; do . "$OPTARG"; done
NAME=${!OPTIND}
. "tests/$NAME"
declare -F requires > /dev/null && requires
if declare -F test_device > /dev/null; then
	TEST_DEV=${TEST_DEVS[0]}
	RESULTS_DIR=$OUTPUT/${TEST_DEV##*/}
	_call_test test_device
else
	RESULTS_DIR=$OUTPUT/nodev
	_call_test test
fi
"""

COMMON = """\
_have_module_param() { [[ -e /sys/module/$1/parameters/$2 ]]; }
_have_driver() { modprobe "$1"; }
_have_null_blk() { _have_driver null_blk; }
_remove_null_blk_devices() { find /sys/kernel/config/nullb -mindepth 1 -type d -delete; }
_patient_rmmod() { modprobe -r "$1"; }
_configure_null_blk() {
	local path=/sys/kernel/config/nullb/$1 word
	mkdir "$path" || return
	for word in "${@:2}"; do
		echo "${word#*=}" > "$path/${word%%=*}" ||
			{ echo "Writing ${word#*=} into $path/${word%%=*} failed"; return 1; }
	done
}
_exit_null_blk() { _remove_null_blk_devices; _patient_rmmod null_blk; }
"""

TESTS = {
    "pass": "test() { src/hello; }",
    "fail": "test() { echo something else; }",
    "lost": "test() { echo hello; return 3; }",
    "skip": "requires() { SKIP_REASONS+=('no such thing'); }\ntest() { :; }",
    "splat": (
        "test() { echo hello; "
        "echo '<4>WARNING: drivers/block/mine.c:12 at mine+0x1/0x2, CPU#0: bash/1' > /dev/kmsg; }"
    ),
    "disk": 'test_device() { [[ -b $TEST_DEV ]] && echo hello; }',
    "configfs": (
        ". common/null_blk\n"
        "test() { _configure_null_blk nullb1 power=1 && [[ -b /dev/nullb1 ]] && echo hello; "
        "_exit_null_blk; }"
    ),
    "zoned": (
        ". common/null_blk\n"
        "test() { _configure_null_blk nullb1 zoned=1 power=1 && echo hello; }"
    ),
}  # fmt: skip
NUMBERS = {name: f"block/{number:03}" for number, name in enumerate(TESTS, start=1)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "check": CHECK,
        "common/null_blk": COMMON,
        "src/Makefile": "all: hello\n",
        "src/hello.c": '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n',
        "tests/block/rc": "",
    }
    for name, text in TESTS.items():
        files[f"tests/{NUMBERS[name]}"] = text + "\n"
        files[f"tests/{NUMBERS[name]}.out"] = "hello\n"
    folder = tmp_path / "tree"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "check").chmod(0o755)
    for path in [folder, *folder.rglob("*")]:  # nothing may write to a user's tree
        path.chmod(0o555 if path.is_dir() or path.name == "check" else 0o444)
    return folder


def test_each_outcome_is_recorded(ready: BootEnv, tree: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    run = subprocess.run(
        [str(PROJECT / "inv"), "blktests", "--tree", str(tree), "--driver", "null_blk,rnull"],
        env={**os.environ, "BLOCKYARD_RESULTS": str(tmp_path / "results")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 1, run.stderr
    finished = record.read(tmp_path / "results" / "latest" / "run.json")
    assert finished.upstream
    assert finished.upstream.folder == str(tree)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before

    results = {(test.id.removeprefix("blktests/"), test.driver): test for test in finished.tests}

    def of(name: str, driver: str = "null_blk") -> CaseResult:
        return results.pop((NUMBERS[name], driver))

    assert of("pass").outcome == "pass"
    assert (test := of("fail")).outcome == "fail"
    assert "-hello\n+something else" in test.reason
    test = of("lost")
    assert (test.outcome, test.reason) == ("fail", "exit status 3, ignored by check")
    test = of("skip")
    assert (test.outcome, test.reason) == ("skip", "no such thing")
    test = of("splat")
    assert test.outcome == "fail"
    assert "mine.c:12" in test.kernel_log
    for driver in ("null_blk", "rnull"):
        assert of("disk", driver).outcome == "pass"
        assert of("configfs", driver).outcome == "pass"
    assert of("zoned").outcome == "pass"
    test = of("zoned", "rnull")
    assert (test.outcome, test.reason) == ("skip", "rnull has no attribute zoned")
    assert not results
