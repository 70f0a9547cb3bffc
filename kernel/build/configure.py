# SPDX-License-Identifier: GPL-2.0-or-later
"""From fragments to a checked ``.config``, with a reason for each symbol that was dropped.

The lines of the kernel's tinyconfig and of the fragments go through allnoconfig in one pass (which
takes 7 s, most of it for probing the compiler): all other symbols are off. Each requested symbol is
compared with the result before anything is compiled.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from blockyard.kernel import arch
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config import explain, kconfig, quirks, variants
from blockyard.kernel.config.kconfig import Dropped, Merged, Promoted
from blockyard.kernel.config.reader.report import Report
from blockyard.kernel.host import store, untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import BIND
from blockyard.kernel.host.settings import PROJECT

# The parts of tinyconfig; the last line for a symbol wins (scripts/kconfig/Makefile).
TINY = (
    "kernel/configs/tiny-base.config",
    "kernel/configs/tiny.config",
    arch.target().tiny_config,
)
ANSWER = "answer.json"  # the reader's output
SHIPPED = ("kernel/fragments/", "modules/")  # prefixes of the names of Blockyard's fragments
REQUESTED = ".config.asked"  # in the output tree: the lines that its .config was made from
# Files of the reader, which runs in the sandbox, below the project's folder.
READER = (
    "kernel/__init__.py",
    "kernel/config/__init__.py",
    "kernel/config/reader/__init__.py",
    "kernel/config/reader/environment.py",
    "kernel/config/reader/keywords.py",
    "kernel/config/reader/reader.py",
)
ANSWER_MIB = 64  # limit of the reader's output; for a whole tree it has 1 MB
READ_S = 300  # time limit of the reader, which usually takes 4 s


class SymbolsDropped(Failure):
    """The ``.config`` does not honour all requests of the fragments.

    dropped: the requests that it does not honour. reasons: symbol → why, in one line.
    """

    def __init__(
        self, what: str, dropped: Sequence[Dropped], reasons: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(what, log=log)
        self.dropped = tuple(dropped)
        self.reasons = reasons


def configure(job: BuildSpec) -> None:
    """Write the output tree's ``.config`` and check it; raises SymbolsDropped.

    Print notes on unknown Kconfig keywords, on modules that are built in, and on lines of a user's
    fragment that override others.
    """
    merged = write_config(job)
    config = kconfig.parse(untrusted.read_text(job.out, ".config", untrusted.CONFIG_BYTES))
    for text in (
        *unknown_keywords(job),
        *_overridden(merged),
        *map(_promotion, kconfig.promoted(merged.requests, config)),
    ):
        note(text)
    dropped = kconfig.prove(merged.requests, config)
    if dropped:
        names = ", ".join(f"CONFIG_{entry.symbol}" for entry in dropped)
        users = [entry for entry in dropped if not entry.fragment.startswith(SHIPPED)]
        if what := kconfig.whole_config_error(users):
            with open(job.log, "a") as log:
                log.write(f"lost: {names}\n")
            raise SymbolsDropped(f"kernel {job.name}: {what}", dropped, {}, job.log)
        report = read_symbols(job, [entry.symbol for entry in dropped], merged)
        lost = f"kernel {job.name}: the configuration lost {names}\n"
        if failure := explain.explain_failure(report):
            raise SymbolsDropped(lost + failure, dropped, {}, job.log)
        what = lost + explain.explain_dropped(report, dropped, merged.requests)
        reasons = {
            entry.symbol: explain.explain(report, entry.symbol, merged.requests).chain
            for entry in dropped
        }
        raise SymbolsDropped(what, dropped, reasons, job.log)


def _overridden(merged: Merged) -> Iterator[str]:
    """Notes on lines that a user's fragment overrides; Blockyard's fragments do so by design."""
    for contradiction in merged.contradictions:
        earlier, later = contradiction.earlier, contradiction.later
        if not later.fragment.startswith(SHIPPED):
            yield (
                f"{later.location} wins: CONFIG_{later.symbol} is {later.value}, "
                f"not {earlier.value} as in {earlier.location}"
            )


def _promotion(entry: Promoted) -> str:
    where = f"{entry.fragment}:{entry.line}"
    return f"CONFIG_{entry.symbol} is built in, although {where} requests a module"


def write_config(job: BuildSpec) -> Merged:
    """Write the output tree's ``.config`` without a check; returns the requests."""
    job.out.mkdir(parents=True, exist_ok=True)
    merged = job.merged
    tree, out = job.tree.path, job.out
    tiny = [untrusted.read_text(tree, name) for name in TINY if untrusted.is_file(tree, name)]
    lines = "".join(tiny) + kconfig.render(merged)
    previous = untrusted.read_text(out, REQUESTED) if untrusted.is_file(out, REQUESTED) else ""
    if previous == lines and untrusted.is_file(out, ".config"):
        # an interrupted build, or another state of the same tree: do not recompile needlessly
        job.make("olddefconfig", doing="olddefconfig failed")
    else:
        untrusted.write(out, REQUESTED, lines.encode())
        all_config = f"KCONFIG_ALLCONFIG={BIND}/out/{REQUESTED}"
        job.make(all_config, "allnoconfig", doing="allnoconfig failed")
    if not untrusted.is_file(out, ".config"):
        raise Failure(f"kernel {job.name}: its makefiles wrote no .config", log=job.log)
    return merged


def checked(symbol: str) -> str:
    """Return a symbol's name; raises UsageError for an invalid one."""
    if not re.fullmatch(r"\w+", symbol, re.ASCII):
        raise UsageError(
            f"invalid Kconfig symbol {symbol!r}: expected letters, digits and _",
            hint="./inv --help kernel.explain",
        )
    return symbol


def why(job: BuildSpec, symbol: str, refusals: Sequence[str] = ()) -> str:
    """Explain why a symbol has its value in this tree with this toolchain and these fragments.

    refusals: known reasons why Blockyard does not request the symbol.
    """
    with store.locked("builds", job.out_key, f"the build of {job.name}"):
        with step(f"configuring kernel {job.name}", log=job.log):
            merged = write_config(job)
        for text in unknown_keywords(job):
            note(text)
        report = read_symbols(job, [symbol], merged)
    if failure := explain.explain_failure(report):
        raise Failure(f"kernel {job.name}: {failure}", log=job.log)
    reasons = [*refusals] or _refusals(job, symbol, merged, report)
    others = [f"or use --variant {name}, which sets it" for name in variants.with_symbol(symbol)]
    return str(explain.explain(report, symbol, merged.requests, reasons, others))


def _refusals(job: BuildSpec, symbol: str, merged: Merged, report: Report) -> list[str]:
    """Why Blockyard does not request a symbol for this tree; empty if it does or could."""
    if symbol in merged.requests:
        return []
    if "Rust" in job.omitted and "RUST" in report["symbols"]:
        return [f"Rust is left out of kernel {job.name}: {job.omitted['Rust']}"]
    reason = quirks.why_not(symbol, job.tree.version)
    return [f"not requested for Linux {job.tree.version}: {reason}"] if reason else []


def read_symbols(job: BuildSpec, symbols: Sequence[str], merged: Merged) -> Report:
    """What the tree's Kconfig says about some symbols, read in the sandbox (about 4 s).

    merged: the requests, so that the report has the conditions that they do not meet. Trees are
    not trusted, and they run programs while Kconfig is read.
    """
    arguments = ["--config", f"{BIND}/out/.config"]
    for symbol in symbols:
        if request := merged.requests.get(symbol):
            arguments += ["--fragment-value", f"{symbol}={request.value}"]
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        return _read(job, [*arguments, *symbols], Path(folder, ANSWER))


def unknown_keywords(job: BuildSpec) -> list[str]:
    """A message for each keyword in the tree's Kconfig files that the reader does not know.

    The files are searched once per tree (half a second).
    """

    def make(path: Path) -> None:
        _read(job, ["--unknown-keywords"], path / ANSWER)

    known = (PROJECT / "kernel" / "config" / "reader" / "keywords.py").read_text()
    key = store.digest("keywords", job.tree.identity, known)
    path = store.get("keywords", key, f"the Kconfig language of kernel {job.name}", make)
    report: Report = json.loads((path / ANSWER).read_bytes())
    return [
        f"kernel {job.name}: unknown Kconfig keyword '{unknown['keyword']}' "
        f"({unknown['file']}:{unknown['line']}): explanations of symbols there may be wrong"
        for unknown in report.get("unknown_keywords", ())
    ]


def _read(job: BuildSpec, arguments: Sequence[str], answer: Path) -> Report:
    """Run the reader in the sandbox, with its output in the file `answer`; returns the report."""
    argv = [
        "env",
        f"PYTHONPATH={BIND}/tools",
        "python3",
        "-m",
        "blockyard.kernel.config.reader.reader",
    ]
    argv += ["--srctree", f"{BIND}/src"]
    for variable in job.toolchain.make_arguments:
        argv += ["--make-var", variable]
    sandbox = job.sandbox(**_reader())
    # programs of the tree inherit the open file
    sandbox = replace(sandbox, limits=replace(sandbox.limits, file_mib=ANSWER_MIB))
    argv = sandbox.argv([*argv, *arguments], directory="/tmp")
    with step("reading the tree's Kconfig"):
        try:
            run(
                argv,
                log=job.log,
                doing=f"kernel {job.name}: reading its Kconfig",
                stdout=answer,
                timeout_s=READ_S,
                limits=sandbox.limits,
            )
        except Failure:
            # the reader also prints JSON when it fails
            if not answer.read_bytes().startswith(b"{"):
                raise
    try:
        report: Report = json.loads(answer.read_bytes())
    except ValueError:  # a program of the tree wrote into the file
        what = f"kernel {job.name}: the Kconfig reader's output is not JSON"
        raise Failure(what, log=job.log) from None
    return report


def _reader() -> dict[str, Path]:
    """The reader's files: path below BIND → path on the host."""
    kconfiglib = importlib.util.find_spec("kconfiglib")
    if kconfiglib is None or kconfiglib.origin is None:
        raise Failure("kconfiglib is not installed", hint="pip install kconfiglib")
    files = {f"tools/blockyard/{name}": PROJECT / name for name in READER}
    return {"tools/kconfiglib.py": Path(kconfiglib.origin), **files}
