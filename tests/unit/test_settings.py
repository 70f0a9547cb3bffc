# SPDX-License-Identifier: GPL-2.0-or-later
"""Where settings come from, and the errors for invalid ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT, settings


@pytest.fixture
def file(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file; nothing is set in the environment."""
    monkeypatch.delenv("BLOCKYARD_CACHE")
    monkeypatch.delenv("BLOCKYARD_RESULTS")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    path = home / "config" / "blockyard" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


class TestSources:
    @pytest.mark.usefixtures("file")
    def test_defaults(self) -> None:
        values = settings()
        assert values.cache_dir == Path.home() / ".cache" / "blockyard"
        assert values.results_dir == PROJECT / "results"
        assert values.mirror == ""
        assert values.jobs == os.cpu_count()

    def test_file_sets_values(self, file: Path) -> None:
        file.write_text('mirror = "http://mirror.example/debian"\njobs = 3\ncache = "/c"\n')
        values = settings()
        assert (values.mirror, values.jobs) == ("http://mirror.example/debian", 3)
        assert values.cache_dir == Path("/c")

    def test_environment_overrides_the_file(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file.write_text('mirror = "http://file.example/debian"\njobs = 3\n')
        monkeypatch.setenv("BLOCKYARD_JOBS", "5")
        assert (settings().jobs, settings().mirror) == (5, "http://file.example/debian")

    @pytest.mark.usefixtures("file")
    def test_cache_follows_xdg_cache_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        assert settings().cache_dir == Path("/xdg/blockyard")

    def test_cache_setting_overrides_xdg_cache_home(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
        file.write_text('cache = "/mine"\n')
        assert settings().cache_dir == Path("/mine")

    @pytest.mark.usefixtures("file")
    def test_paths_are_expanded_and_absolute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOCKYARD_CACHE", "~/fast")
        monkeypatch.setenv("BLOCKYARD_RESULTS", "records")
        values = settings()
        assert values.cache_dir == Path.home() / "fast"
        assert values.results_dir == Path.cwd() / "records"

    @pytest.mark.usefixtures("file")
    def test_empty_variable_counts_as_unset(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty path would put the cache in the current directory."""
        monkeypatch.setenv("BLOCKYARD_CACHE", "")
        monkeypatch.setenv("BLOCKYARD_JOBS", "")
        assert settings().cache_dir == Path.home() / ".cache" / "blockyard"
        assert settings().jobs == os.cpu_count()

    def test_settings_are_read_once(self, file: Path) -> None:
        before = settings()
        file.write_text("jobs = 77\n")
        assert settings() is before


class TestInvalid:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("jobs = 'many'\n", "jobs"),
            ("cahce = '/c'\n", "cahce"),
            ("jobs = 0\n", "jobs"),
            ("jobs = -1\n", "jobs"),
            ("cache = 5\n", "cache"),
            ("cache_gb = inf\n", "cache_gb"),
            ("ccache_gb = nan\n", "ccache_gb"),
        ],
    )
    def test_invalid_setting_names_file_and_variable(
        self, file: Path, text: str, words: str
    ) -> None:
        file.write_text(text)
        with pytest.raises(UsageError, match="invalid setting") as caught:
            settings()
        assert words in caught.value.what
        assert str(file) in caught.value.hint
        assert "BLOCKYARD_" in caught.value.hint

    @pytest.mark.usefixtures("file")
    def test_invalid_variable_is_a_usage_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLOCKYARD_JOBS", "many")
        with pytest.raises(UsageError, match="jobs"):
            settings()

    @pytest.mark.parametrize("data", [b"jobs = \n", b"= 5", b"mirror = '\xff'\n"])
    def test_invalid_toml_is_a_usage_error(self, file: Path, data: bytes) -> None:
        file.write_bytes(data)
        with pytest.raises(UsageError, match=r"config.toml: ") as caught:
            settings()
        assert str(file) in str(caught.value)
