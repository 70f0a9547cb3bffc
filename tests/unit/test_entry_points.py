# SPDX-License-Identifier: GPL-2.0-or-later
"""Topologies and reporters of installed packages; a real distribution is put on sys.path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.ci.report import reporters
from blockyard.images.hardware import topologies
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.tests.unit.samples import result, run_of

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution with one module and entry points, as pip would."""

    def install(module: str, entry_points: str) -> None:
        (tmp_path / "lab_of_a_test.py").write_text(module)
        (tmp_path / "lab.toml").write_text("cpus = 3\n")
        metadata = tmp_path / "lab_of_a_test-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Name: lab-of-a-test\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(tmp_path)

    def forget() -> None:
        topologies.names.cache_clear()
        topologies.installed.cache_clear()

    forget()
    yield install
    forget()
    sys.modules.pop("lab_of_a_test", None)


class TestTopologies:
    @pytest.mark.parametrize(
        "value",
        [
            "Path(__file__).with_name('lab.toml')",
            "str(Path(__file__).parent)",
            "lambda: Path(__file__).parent",
        ],
    )
    def test_topology_of_a_package_is_loaded(self, install: Install, value: str) -> None:
        install(
            f"from pathlib import Path\nTOPOLOGIES = {value}\n",
            "[blockyard.topologies]\nlab = lab_of_a_test:TOPOLOGIES\n",
        )
        topology = topologies.load("lab")
        assert (topology.name, topology.cpus) == ("lab", 3)
        assert {"lab", "default"} <= set(topologies.names())

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            ("1 / 0\n", "lab = lab_of_a_test:TOPOLOGIES.*ZeroDivisionError"),
            ("", "lab = lab_of_a_test:TOPOLOGIES.*has no attribute"),
            ("TOPOLOGIES = '/no/such/folder'\n", "lab.*/no/such/folder not found"),
        ],
    )
    def test_invalid_entry_point_is_named(
        self, install: Install, module: str, message: str
    ) -> None:
        install(module, "[blockyard.topologies]\nlab = lab_of_a_test:TOPOLOGIES\n")
        with pytest.raises(Failure, match=message):
            topologies.load("lab")

    def test_built_in_topologies_come_first(self, install: Install, tmp_path: Path) -> None:
        (tmp_path / "default.toml").write_text("cpus = 3\n")
        install(
            "TOPOLOGIES = __file__.rpartition('/')[0]\n",
            "[blockyard.topologies]\nlab = lab_of_a_test:TOPOLOGIES\n",
        )
        assert topologies.load("default").cpus != 3
        assert topologies.names().count("default") == 1

    def test_unknown_topology_offers_those_of_packages(self, install: Install) -> None:
        install(
            "TOPOLOGIES = __file__.rpartition('/')[0]\n",
            "[blockyard.topologies]\nlab = lab_of_a_test:TOPOLOGIES\n",
        )
        with pytest.raises(UsageError, match="unknown topology 'labb'") as caught:
            topologies.load("labb")
        assert "lab" in caught.value.hint


class TestReporters:
    def test_reporter_of_a_package_is_called(self, install: Install, tmp_path: Path) -> None:
        install(
            "def report(run, record):\n    record.with_name('mine').write_text(run.run)\n",
            "[blockyard.reporters]\nlab = lab_of_a_test:report\n",
        )
        chosen = reporters.named(["lab", "markdown"])
        reporters.report(chosen, run_of(result("fail")), tmp_path / "run.json")
        assert (tmp_path / "mine").read_text() == run_of().run
        assert "| null_blk |" in (tmp_path / "report.md").read_text()

    def test_failed_reporter_is_a_warning(
        self, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(
            "def report(run, record):\n    1 / 0\n",
            "[blockyard.reporters]\nlab = lab_of_a_test:report\n",
        )
        reporters.report(reporters.named(["lab"]), run_of(), tmp_path / "run.json")
        assert "the reporter lab failed: ZeroDivisionError" in capsys.readouterr().err

    def test_invalid_entry_point_is_named(self, install: Install) -> None:
        install("", "[blockyard.reporters]\nlab = lab_of_a_test:report\n")
        with pytest.raises(Failure, match="lab = lab_of_a_test:report.*AttributeError"):
            reporters.named(["lab"])

    def test_unknown_reporter_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="unknown reporter 'markdwon'") as caught:
            reporters.named(["markdwon"])
        assert caught.value.hint == "did you mean markdown?"
