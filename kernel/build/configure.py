# SPDX-License-Identifier: GPL-2.0-or-later
"""From fragments to a proved ``.config``, and the reason for a symbol that was lost.

What the kernel's tinyconfig asks for and what the fragments ask for goes through its allnoconfig,
in one pass (a pass takes 7 s, most of it probing the compiler): what nobody asks for is off. Every
symbol that was asked for is compared with what came out, before anything is compiled.
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

# What makes up tinyconfig, the last line for a symbol counting (scripts/kconfig/Makefile).
TINY = (
    "kernel/configs/tiny-base.config",
    "kernel/configs/tiny.config",
    arch.target().tiny_config,
)
ANSWER = "answer.json"  # of the reader
OWN = ("kernel/fragments/", "modules/")  # how the names of our fragments begin
ASKED = ".config.asked"  # in the output tree: what its .config was made from
# Files of the reader, which runs in the sandbox, below our packages' folder
READER = (
    "kernel/__init__.py",
    "kernel/config/__init__.py",
    "kernel/config/reader/__init__.py",
    "kernel/config/reader/environment.py",
    "kernel/config/reader/keywords.py",
    "kernel/config/reader/reader.py",
)
ANSWER_MIB = 64  # that of a whole tree has 1 MB
READ_S = 300  # reading a Kconfig takes 4 s; a tree whose Kconfig never ends is not waited for


class SymbolsDropped(Failure):
    """The tree or the toolchain cannot give what the fragments ask for.

    dropped: what. reasons: symbol → why, in one line.
    """

    def __init__(
        self, what: str, dropped: Sequence[Dropped], reasons: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(what, log=log)
        self.dropped = tuple(dropped)
        self.reasons = reasons


def configure(job: BuildSpec) -> None:
    """Writes the output tree's ``.config`` and proves it; raises Lost for a dropped symbol.

    What is worth a note and no error is told: unknown words of Kconfig, modules that came out built
    in, lines of a user's fragment that win over others.
    """
    merged = write_config(job)
    config = kconfig.parse(untrusted.read_text(job.out, ".config", untrusted.CONFIG_BYTES))
    for text in (
        *unknown_keywords(job),
        *_overruled(merged),
        *map(_promotion, kconfig.promoted(merged.requests, config)),
    ):
        note(text)
    dropped = kconfig.prove(merged.requests, config)
    if dropped:
        names = ", ".join(f"CONFIG_{one.symbol}" for one in dropped)
        users = [one for one in dropped if not one.fragment.startswith(OWN)]
        if what := kconfig.whole_config_error(users):
            with open(job.log, "a") as log:
                log.write(f"lost: {names}\n")
            raise SymbolsDropped(f"kernel {job.name}: {what}", dropped, {}, job.log)
        report = ask(job, [one.symbol for one in dropped], merged)
        lost = f"kernel {job.name}: the configuration lost {names}\n"
        if failure := explain.explain_failure(report):
            raise SymbolsDropped(lost + failure, dropped, {}, job.log)
        what = lost + explain.explain_dropped(report, dropped, merged.requests)
        reasons = {
            one.symbol: explain.explain(report, one.symbol, merged.requests).chain
            for one in dropped
        }
        raise SymbolsDropped(what, dropped, reasons, job.log)


def _overruled(merged: Merged) -> Iterator[str]:
    """What a user's fragment takes the place of; our own do so by design."""
    for one in merged.contradictions:
        if not one.later.fragment.startswith(OWN):
            yield (
                f"{one.later.location} wins: CONFIG_{one.later.symbol} is {one.later.value}, "
                f"not {one.earlier.value} as in {one.earlier.location}"
            )


def _promotion(one: Promoted) -> str:
    return f"CONFIG_{one.symbol} is built in: {one.fragment}:{one.line} asks for a module"


def write_config(job: BuildSpec) -> Merged:
    """Writes the output tree's ``.config``, not proved; returns what was asked for."""
    job.out.mkdir(parents=True, exist_ok=True)
    merged = job.merged
    tree, out = job.tree.path, job.out
    tiny = [untrusted.read_text(tree, name) for name in TINY if untrusted.is_file(tree, name)]
    wanted = "".join(tiny) + kconfig.render(merged)
    made_from = untrusted.read_text(out, ASKED) if untrusted.is_file(out, ASKED) else ""
    if made_from == wanted and untrusted.is_file(out, ".config"):
        # a build that goes on, or another state of the same tree: nothing is compiled needlessly
        job.make("olddefconfig", doing="olddefconfig failed")
    else:
        untrusted.write(out, ASKED, wanted.encode())
        all_config = f"KCONFIG_ALLCONFIG={BIND}/out/{ASKED}"
        job.make(all_config, "allnoconfig", doing="allnoconfig failed")
    if not untrusted.is_file(out, ".config"):
        raise Failure(f"kernel {job.name}: its makefiles made no .config", log=job.log)
    return merged


def checked(symbol: str) -> str:
    """A symbol's name; raises UsageError for text that cannot be one."""
    if not re.fullmatch(r"\w+", symbol, re.ASCII):
        raise UsageError(f"{symbol!r} is no Kconfig symbol", hint="./inv --help kernel.explain")
    return symbol


def why(job: BuildSpec, symbol: str, refusals: Sequence[str] = ()) -> str:
    """In words: why a symbol has its value in this tree with this toolchain and these fragments.

    refusals: what is known of why the symbol is not asked for.
    """
    with store.locked("builds", job.out_key, f"the build of {job.name}"):
        with step(f"configuring kernel {job.name}", log=job.log):
            merged = write_config(job)
        for text in unknown_keywords(job):
            note(text)
        report = ask(job, [symbol], merged)
    if failure := explain.explain_failure(report):
        raise Failure(f"kernel {job.name}: {failure}", log=job.log)
    reasons = [*refusals] or _refusals(job, symbol, merged, report)
    others = [
        f"or take --variant {name}, which asks for it" for name in variants.with_symbol(symbol)
    ]
    return str(explain.explain(report, symbol, merged.requests, reasons, others))


def _refusals(job: BuildSpec, symbol: str, merged: Merged, report: Report) -> list[str]:
    """Why Blockyard does not ask this tree for a symbol; empty when it does or could."""
    if symbol in merged.requests:
        return []
    if "Rust" in job.omitted and "RUST" in report["symbols"]:
        return [f"Rust is left out of kernel {job.name}: {job.omitted['Rust']}"]
    reason = quirks.why_not(symbol, job.tree.version)
    return [f"not asked of Linux {job.tree.version}: {reason}"] if reason else []


def ask(job: BuildSpec, symbols: Sequence[str], merged: Merged) -> Report:
    """What the tree's Kconfig says of some symbols, read in the sandbox (about 4 s).

    merged: what was asked for, so that the answer says what stands against it. A tree runs
    programs while its Kconfig is read, and trees are not trusted.
    """
    arguments = ["--config", f"{BIND}/out/.config"]
    for symbol in symbols:
        if request := merged.requests.get(symbol):
            arguments += ["--fragment-value", f"{symbol}={request.value}"]
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        return _read(job, [*arguments, *symbols], Path(folder, ANSWER))


def unknown_keywords(job: BuildSpec) -> list[str]:
    """A sentence for each word of the tree's Kconfig files that our reader does not know.

    The words are looked for once per tree (half a second).
    """

    def make(path: Path) -> None:
        _read(job, ["--unknown-keywords"], path / ANSWER)

    known = (PROJECT / "kernel" / "config" / "reader" / "keywords.py").read_text()
    key = store.digest("keywords", job.tree.identity, known)
    path = store.get("keywords", key, f"the Kconfig language of kernel {job.name}", make)
    report: Report = json.loads((path / ANSWER).read_bytes())
    return [
        f"kernel {job.name}: '{one['keyword']}' ({one['file']}:{one['line']}) is not known to our "
        "Kconfig reader: what it says of symbols there may be wrong"
        for one in report.get("unknown_keywords", ())
    ]


def _read(job: BuildSpec, arguments: Sequence[str], answer: Path) -> Report:
    """What the reader says, which is kept in the file `answer`."""
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
    # programs of the tree have the answer open, too
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
            # the reader's own complaint is an answer too
            if not answer.read_bytes().startswith(b"{"):
                raise
    try:
        report: Report = json.loads(answer.read_bytes())
    except ValueError:  # a program of the tree wrote into it
        what = f"kernel {job.name}: reading its Kconfig gave no answer"
        raise Failure(what, log=job.log) from None
    return report


def _reader() -> dict[str, Path]:
    """What the reader consists of: its path below BIND → its file."""
    kconfiglib = importlib.util.find_spec("kconfiglib")
    if kconfiglib is None or kconfiglib.origin is None:
        raise Failure("kconfiglib is not installed", hint="pip install kconfiglib")
    ours = {f"tools/blockyard/{name}": PROJECT / name for name in READER}
    return {"tools/kconfiglib.py": Path(kconfiglib.origin), **ours}
