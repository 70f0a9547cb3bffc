# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain pytest in a driver's own repository: `pytest --blockyard-module . tests/` (docs/pytest.md).

The options and the project's file (ci/project.py) name kernel, drivers and consoles. From them the
controlling process makes the plan of the run. Names are checked when pytest is configured; kernel
and modules are built when its session starts, unless tests are only listed. pytest-xdist's workers
get the plan's file. tests/harness/plugin.py then runs the tests in guests.

Without such an option or file, this plugin only adds the options to `pytest --help`. pytest loads
it in every project, so it imports the rest only when needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blockyard.ci import project_file

if TYPE_CHECKING:
    from blockyard.ci.run.plain_pytest import Request

OPTIONS = {  # of `--blockyard-*`: the value's name in help, help
    "kernel": ("NAME", "kernel to test, as --kernel of ./inv test; default: 7.3"),
    "variant": ("NAME", "plain, debug, kasan, ...; default: plain"),
    "module": ("DIRS", "folders of drivers outside the kernel tree, with commas"),
    "series": ("PATHS", "patch series for the kernel tree"),
    "fragment": ("PATHS", "Kconfig fragments of your own"),
    "toolchain": ("NAME", "which compilers build the kernel"),
    "compiler": ("NAME", "llvm (default) or gcc"),
    "driver": ("NAMES", "drivers to test; default: those of --blockyard-module, else Linux's"),
    "console": ("NAMES", "serial, ssh or both (default)"),
    "topology": ("NAME", "the guest's hardware: a name, or a TOML file"),
    "start": ("HOW", "how guests start: boot, or from a snapshot"),
    "accel": ("NAME", "auto (default: KVM where it works), kvm or tcg"),
    "budget": ("NAME", "how long loads and repetitions take: quick, default or long"),
}
HARNESS = "blockyard_harness"  # the name of the plugin that runs the tests
PLAN = "blockyard_plan"  # in a worker's input: the path of the plan
_REQUEST: pytest.StashKey[Request] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options; all are empty by default."""
    group = parser.getgroup("blockyard", "blockyard: drivers in Linux guests")
    for name, (metavar, text) in OPTIONS.items():
        group.addoption(f"--blockyard-{name}", metavar=metavar, default="", help=text)


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Registers the harness if drivers are tested, before pytest-xdist starts its workers."""
    options = vars(early_config.known_args_namespace)
    if options.get("blockyard_plan"):  # of `blockyard test`, which names the harness
        return
    if any(_given(options).values()) or project_file.find(early_config.invocation_params.dir):
        from blockyard.tests.harness import plugin

        early_config.pluginmanager.register(plugin, HARNESS)


def _given(options: Mapping[str, Any]) -> dict[str, str]:
    return {name: options[f"blockyard_{name}"] for name in OPTIONS}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Sets the plan: in a worker the controller's, else a plan that is enough to list tests."""
    if not config.pluginmanager.has_plugin(HARNESS):
        return
    from blockyard.tests.harness import plan, plugin

    if path := getattr(config, "workerinput", {}).get(PLAN):
        config.stash[plugin.PLAN] = plan.read(Path(path))
        config.stash[plugin.DIRECTORY] = Path(path).parent
        return
    from blockyard.ci.run import plain_pytest

    with _plain_errors():
        given = _given(vars(config.option))
        request = plain_pytest.request(given, config.invocation_params.dir)
    config.stash[_REQUEST] = request
    config.stash[plugin.PLAN] = request.selection.plan()
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist, with our scheduler
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Builds kernel, modules and the guest's files, unless no test will run."""
    options = session.config.option
    request = session.config.stash.get(_REQUEST, None)
    lists = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
    if request is None or any(getattr(options, name, False) for name in lists):
        return
    from blockyard.tests.harness import plugin

    with _plain_errors():
        plan, directory = request.prepared()
        session.config.stash[plugin.PLAN] = plan
        session.config.stash[plugin.DIRECTORY] = directory


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Sends the path of the plan to a worker of pytest-xdist."""
    if _REQUEST in node.config.stash:
        from blockyard.ci.run.plain_pytest import PLAN_FILE
        from blockyard.tests.harness import plugin

        node.workerinput[PLAN] = str(node.config.stash[plugin.DIRECTORY] / PLAN_FILE)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Lines with the kernel, the drivers and the folder of the logs."""
    request = config.stash.get(_REQUEST, None)
    if request is None:
        return []
    from blockyard.tests.harness import plugin

    return request.header(config.stash.get(plugin.DIRECTORY, None))


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turns a UsageError or a Failure into an error that pytest prints without a traceback."""
    from blockyard.kernel.host.errors import Failure, UsageError
    from blockyard.kernel.host.progress import printable

    try:
        yield
    except Failure as error:
        pytest.exit(printable(f"error: {error}"), error.exit_code)
    except UsageError as error:
        raise pytest.UsageError(printable(str(error))) from None
