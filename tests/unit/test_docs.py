# SPDX-License-Identifier: GPL-2.0-or-later
"""README.md and docs/: generated parts are up to date, links work, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tasks
from blockyard.ci.commands import docs
from blockyard.ci.run import selection
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import PROJECT, Settings

PAGES = docs.pages()
# [text](target), without the scheme of web pages
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s`$(])\./inv ([a-z][a-z.]*)")


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()) for head in heads]
    return {head.replace(" ", "-") for head in plain}


def test_tables_are_up_to_date() -> None:
    assert docs.stale() == [], "run ./inv dev.docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: no file for the link {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: no heading for the link {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # names commands of earlier versions
        return
    text = "\n".join(CODE.findall(page.read_text()))
    used = {name.rstrip(".") for name in COMMAND.findall(text)}
    assert used <= set(tasks.namespace.task_names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_test_files_in_pages_exist(page: Path) -> None:
    existing = {path.name for path in (PROJECT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", page.read_text()))
    assert named <= existing | {"test_disk.py"}


def test_every_suite_is_in_the_readme() -> None:
    text = (PROJECT / "README.md").read_text()
    for suite in selection.suites():
        assert f"| `{suite}` |" in text, f"README.md has no row for the suite {suite}"


def test_every_setting_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert [name for name in Settings.__struct_fields__ if f"`{name}`" not in text] == []


class TestGeneratedParts:
    PAGE = (
        "before\n<!-- made by: ./inv dev.docs --table exit-codes -->\nold\n<!-- end -->\n"
        "<!-- made by: ./inv kernel.list -->\nkept\n<!-- end -->\nafter\n"
    )

    @pytest.fixture(autouse=True)
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(docs, "PROJECT", tmp_path)
        monkeypatch.setattr(docs, "PICTURE", tmp_path / "run.svg")
        (tmp_path / "inv").write_text('#!/bin/sh\necho "ran $*"\n')
        (tmp_path / "inv").chmod(0o755)
        (tmp_path / "page.md").write_text(self.PAGE)
        return tmp_path

    def test_old_table_is_stale_until_updated(self, project: Path) -> None:
        assert docs.stale() == ["page.md: exit-codes"]
        docs.update(run=False)
        assert docs.stale() == []
        text = (project / "page.md").read_text()
        assert text.startswith("before\n<!-- made by: ./inv dev.docs --table exit-codes -->\n|")
        assert text.endswith("\nkept\n<!-- end -->\nafter\n")

    def test_transcripts_are_run_on_request(self, project: Path) -> None:
        docs.update(run=True, pattern="kernel.list")
        text = (project / "page.md").read_text()
        assert "```\n$ ./inv kernel.list\nran kernel.list\n```\n" in text
        assert "kept" not in text
        assert not (project / "run.svg").exists()

    def test_failed_command_leaves_the_page(self, project: Path) -> None:
        (project / "inv").write_text("#!/bin/sh\nexit 3\n")
        with pytest.raises(Failure, match="exited with 3"):
            docs.update(run=True, pattern="kernel.list")
        assert (project / "page.md").read_text() == self.PAGE

    def test_picture_shows_the_end_of_the_output_without_web_fonts(self, project: Path) -> None:
        lines = "\n".join(["1/9 pass", "  driver   pass", " null_blk  \x1b[32m12\x1b[0m"])
        (project / "inv").write_text(f"#!/bin/sh\ncat <<'X'\n{lines}\nX\n")
        svg = docs.picture("test")
        assert "null_blk" in svg
        assert "1/9" not in svg
        assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")

    def test_unknown_table_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="unknown table 'suite'"):
            docs.table("suite")
