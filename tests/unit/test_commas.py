# SPDX-License-Identifier: GPL-2.0-or-later
"""Options with several values: commas, repetition, paths that contain commas."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.commas import kernels, one_kernel
from blockyard.kernel.host.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestKernels:
    @pytest.mark.parametrize(
        "texts", [["7.3,6.12"], ["7.3", "6.12"], [" 7.3 , 6.12 ,"], ["7.3,6.12", "7.3"]]
    )
    def test_values_are_repeated_or_separated_by_commas(self, texts: list[str]) -> None:
        assert kernels(texts) == ("7.3", "6.12")

    def test_missing_option(self) -> None:
        assert kernels([]) == ()
        assert one_kernel([], "boot") is None

    @pytest.mark.parametrize("text", ["", ",", " , "])
    def test_empty_value_is_a_usage_error(self, text: str) -> None:
        with pytest.raises(UsageError, match="no kernel in"):
            kernels([text])

    @pytest.mark.parametrize("ref", ["", "#v7.2"])
    def test_existing_path_with_a_comma_is_one_kernel(self, folder: Path, ref: str) -> None:
        (folder / "linux, mine").mkdir()
        assert kernels([f"linux, mine{ref}"]) == (f"linux, mine{ref}",)
        assert kernels([f"7.3,linux, mine{ref},6.1"]) == ("7.3", f"linux, mine{ref}", "6.1")

    def test_ambiguous_path_with_a_comma_is_a_usage_error(self, folder: Path) -> None:
        for name in ("a", "b", "a,b"):
            (folder / name).mkdir()
        with pytest.raises(UsageError, match="'a,b' is ambiguous: one path, or 2"):
            kernels(["a,b"])

    def test_escaped_comma_does_not_separate(self) -> None:
        url = r"https://example.org/a\,b.tar.xz sha256=0"
        assert kernels([f"{url},7.3"]) == ("https://example.org/a,b.tar.xz sha256=0", "7.3")


class TestOneKernel:
    def test_single_kernel_is_returned(self) -> None:
        assert one_kernel(["7.2"], "boot") == "7.2"
        assert one_kernel(["7.2", "7.2"], "boot") == "7.2"

    @pytest.mark.parametrize("texts", [["7.3,7.2"], ["7.3", "7.2"]])
    def test_several_kernels_are_a_usage_error(self, texts: list[str]) -> None:
        with pytest.raises(UsageError, match="boot takes one kernel, not 2: 7.3, 7.2"):
            one_kernel(texts, "boot")
