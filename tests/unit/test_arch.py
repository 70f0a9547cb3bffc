# SPDX-License-Identifier: GPL-2.0-or-later
"""Architectures are data: only their files name what differs between processors."""

import io
import re
import tokenize
from pathlib import Path

from blockyard.images.hardware.topology import DEFAULT
from blockyard.images.machine import pace, qemu
from blockyard.kernel import arch
from blockyard.kernel.host.settings import PROJECT

NAMED = re.compile(r"qemu-system-|\bq35\b|ttyS\d|arch/x86/(?:boot|configs|include)|qboot")


def test_target_is_complete() -> None:
    target = arch.target()
    assert target.tiny_config == f"arch/{target.srcarch}/configs/tiny.config"
    assert set(target.qemu.cpus) == {"kvm", "tcg"}
    assert target.image.path.endswith(f"/{target.image.target}")


def test_qemu_arguments_come_from_the_data() -> None:
    argv, data = qemu.machine_arguments(DEFAULT, "tcg"), arch.target()
    assert argv[0] == data.qemu.program
    assert argv[argv.index("-machine") + 1] == data.qemu.machine
    assert argv[argv.index("-cpu") + 1] == data.qemu.cpus["tcg"]
    assert data.qemu.program.startswith(pace.NAME)
    assert {*data.command_line, f"console={data.serial.log}"} <= set(qemu.command_line(0))


def test_code_does_not_name_an_architecture() -> None:
    """Only strings are checked; docstrings and comments may contain examples."""
    strings = [
        f"{path.relative_to(PROJECT)}: {text}"
        for folder in ("kernel", "images", "modules", "ci")
        for path in (PROJECT / folder).rglob("*.py")
        if NAMED.search(path.read_text())
        for text in _strings(path)
        if NAMED.search(text)
    ]
    assert strings == []


def _strings(path: Path) -> list[str]:
    kinds = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    texts = [token.string for token in tokens if token.type in kinds]
    return [text for text in texts if not text.startswith('"""')]
