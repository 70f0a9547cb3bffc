# SPDX-License-Identifier: GPL-2.0-or-later
"""./inv doctor: whether the cache is what was put into it, and whether it can be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.ci.commands import doctor, integrity
from blockyard.kernel.host import seal, store
from blockyard.kernel.host.settings import PROJECT

KEYS = [f"{number:016x}" for number in range(1, 5)]


def entry(path: Path) -> None:
    (path / "root.erofs").write_bytes(b"image" * 1000)


@pytest.fixture(autouse=True)
def entries() -> None:
    for key in KEYS:
        store.get("images", key, "an image", entry)
    (store.directory("builds") / KEYS[0]).mkdir()
    store.forget()


def states() -> dict[str, str]:
    return {one.key: one.state for one in integrity.examine().entries}


def test_a_whole_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert integrity.show(as_json=False)
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["ok", f"images/{KEYS[0]}", "1", "files,", "0", "MB"]
    assert told[-1] == f"skipped     builds: {seal.UNSEALED['builds']}"


def test_each_broken_entry_is_named_and_made_again(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in KEYS[1:3]:
        with open(cache / "images" / key / "root.erofs", "r+b") as file:
            file.write(b"X")
    assert not integrity.show(as_json=False)
    told = capsys.readouterr().out
    for key in KEYS[1:3]:
        assert f"broken      images/{key}" in told
        assert f"  {cache}/images/{key}\n" in told
    assert "root.erofs was changed since it was made" in told
    assert "2 broken" in told
    store.get("images", KEYS[1], "an image", entry)
    assert states() == dict(zip(KEYS, ["ok", "ok", "broken", "ok"], strict=True))


def test_as_json(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "images" / KEYS[3] / "root.erofs").unlink()
    for name in (seal.SEAL, seal.MANIFEST):  # as in an entry from before there were seals
        (cache / "images" / KEYS[2] / name).unlink()
    (cache / "images" / KEYS[1] / seal.SEAL).write_text("{")
    assert not integrity.show(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [one["state"] for one in told["entries"]] == ["ok", "broken", "unsealed", "broken"]
    assert told["entries"][3]["problems"] == ["root.erofs is missing"]
    assert told["not_examined"] == {"builds": seal.UNSEALED["builds"]}


def test_the_exit_code(cache: Path) -> None:
    def run() -> int:
        argv = [sys.executable, "ci/start.py", "cache.check"]
        return subprocess.run(argv, cwd=PROJECT, capture_output=True).returncode

    assert run() == 0
    (cache / "images" / KEYS[3] / "root.erofs").unlink()
    assert run() == 1


class TestWritable:
    def test_a_folder_that_is_not_made_yet(self, tmp_path: Path) -> None:
        assert integrity.unwritable(tmp_path / "a" / "b") == ""
        assert list(tmp_path.iterdir()) == []

    def test_a_read_only_one_is_not_ok(self, cache: Path) -> None:
        script = (
            "import sys; from pathlib import Path; from blockyard.ci.commands import doctor\n"
            "check = doctor.space('cache', Path(sys.argv[1]), 0.0)\n"
            "print(check.state, check.found, check.fix)"
        )
        argv = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(cache), str(cache)]
        done = subprocess.run(
            [*argv, sys.executable, "-c", script, str(cache)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.stdout.startswith("missing cannot be written: Read-only file system")
        assert "BLOCKYARD_CACHE" in done.stdout

    def test_one_of_ours_is_ok(self, cache: Path) -> None:
        assert doctor.space("cache", cache, 0.0).state == "ok"
