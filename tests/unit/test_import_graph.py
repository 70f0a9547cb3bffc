# SPDX-License-Identifier: GPL-2.0-or-later
"""The graph of imports, drawn for small checkouts."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from blockyard.ci.commands import check
from blockyard.ci.commands.import_graph import FOLDERS
from blockyard.kernel.host.errors import Failure


def drawn(folder: Path, **modules: str) -> str:
    """SVG of a checkout with these modules, name=text; ``__`` in a name means a dot."""
    for name in FOLDERS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    for name, text in modules.items():
        (folder / f"{name.replace('__', '/')}.py").write_text(text)
    check.draw_imports(str(folder), str(folder / "imports.svg"))
    text = (folder / "imports.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    return text


def test_downward_imports_are_good(tmp_path: Path) -> None:
    text = drawn(tmp_path, ci__run="import kernel.host\n", kernel__host="")
    assert "no import cycles" in text
    assert "url(#good)" in text
    assert "url(#bad)" not in text


def test_circles_and_upward_imports_are_bad(tmp_path: Path) -> None:
    text = drawn(
        tmp_path,
        kernel__host="def late():\n    import ci.run\n",
        ci__run="import kernel.host\n",
    )
    assert "cycle: ci.run, kernel.host" in text
    assert "url(#bad)" in text


def test_folder_without_a_checkout_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failure, match="cannot draw"):
        check.draw_imports(str(tmp_path), str(tmp_path / "x.svg"))
    assert "is not a checkout of Blockyard" in capfd.readouterr().err
