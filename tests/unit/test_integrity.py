# SPDX-License-Identifier: GPL-2.0-or-later
"""./inv cache.check and doctor: whether cache entries are intact and the cache is writable."""

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
    return {entry.key: entry.state for entry in integrity.examine().entries}


def test_intact_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert integrity.show(as_json=False)
    output = capsys.readouterr().out.splitlines()
    assert output[0].split() == ["ok", f"images/{KEYS[0]}", "1", "files,", "0", "MB"]
    assert output[-1] == f"skipped     builds: {seal.UNSEALED['builds']}"


def test_broken_entries_are_named_and_made_again(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in KEYS[1:3]:
        with open(cache / "images" / key / "root.erofs", "r+b") as file:
            file.write(b"X")
    assert not integrity.show(as_json=False)
    output = capsys.readouterr().out
    for key in KEYS[1:3]:
        assert f"broken      images/{key}" in output
        assert f"  {cache}/images/{key}\n" in output
    assert "root.erofs was changed since it was made" in output
    assert "2 broken" in output
    store.get("images", KEYS[1], "an image", entry)
    assert states() == dict(zip(KEYS, ["ok", "ok", "broken", "ok"], strict=True))


def test_json_output(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "images" / KEYS[3] / "root.erofs").unlink()
    for name in (seal.SEAL, seal.MANIFEST):  # as in an old entry
        (cache / "images" / KEYS[2] / name).unlink()
    (cache / "images" / KEYS[1] / seal.SEAL).write_text("{")
    assert not integrity.show(as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [entry["state"] for entry in report["entries"]] == ["ok", "broken", "unsealed", "broken"]
    assert report["entries"][3]["problems"] == ["root.erofs is missing"]
    assert report["not_examined"] == {"builds": seal.UNSEALED["builds"]}


def test_exit_code_of_cache_check(cache: Path) -> None:
    def run() -> int:
        argv = [sys.executable, "ci/start.py", "cache.check"]
        return subprocess.run(argv, cwd=PROJECT, capture_output=True).returncode

    assert run() == 0
    (cache / "images" / KEYS[3] / "root.erofs").unlink()
    assert run() == 1


class TestWritable:
    def test_missing_folder_is_writable(self, tmp_path: Path) -> None:
        assert integrity.unwritable(tmp_path / "a" / "b") == ""
        assert list(tmp_path.iterdir()) == []

    def test_read_only_cache_is_missing(self, cache: Path) -> None:
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
        assert done.stdout.startswith("missing not writable: Read-only file system")
        assert "BLOCKYARD_CACHE" in done.stdout

    def test_writable_cache_is_ok(self, cache: Path) -> None:
        assert doctor.space("cache", cache, 0.0).state == "ok"
