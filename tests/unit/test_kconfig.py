# SPDX-License-Identifier: GPL-2.0-or-later
"""Kconfig fragments: parsing, merging, rendering, and the check of the resulting .config."""

from __future__ import annotations

import pytest

from blockyard.kernel.config.kconfig import (
    Contradiction,
    Dropped,
    Fragment,
    FragmentError,
    Merged,
    Promoted,
    Request,
    merge,
    parse,
    promoted,
    prove,
    render,
    whole_config_error,
)
from blockyard.kernel.host.errors import UsageError


def merged(**fragments: str) -> Merged:
    return merge([Fragment(f"{name}.config", text) for name, text in fragments.items()])


class TestParse:
    def test_all_kinds_of_values(self) -> None:
        text = (
            "# a comment\n"
            "\n"
            "CONFIG_BLOCK=y\n"
            "CONFIG_BLK_DEV_NVME=m\n"
            "CONFIG_SMP=n\n"
            "# CONFIG_MODULES is not set\n"
            "CONFIG_NR_CPUS=64\n"
            "CONFIG_MIN=-1\n"
            "CONFIG_PHYSICAL_START=0x1000000\n"
            'CONFIG_CMDLINE="console=ttyS0 # \\"quoted\\""\n'
        )
        assert parse(text) == {
            "BLOCK": "y",
            "BLK_DEV_NVME": "m",
            "SMP": "n",
            "MODULES": "n",
            "NR_CPUS": "64",
            "MIN": "-1",
            "PHYSICAL_START": "0x1000000",
            "CMDLINE": '"console=ttyS0 # \\"quoted\\""',
        }

    def test_last_line_of_a_symbol_wins(self) -> None:
        assert parse("CONFIG_A=y\n# CONFIG_A is not set\nCONFIG_A=m\n") == {"A": "m"}

    def test_crlf_and_a_missing_final_newline(self) -> None:
        assert parse("CONFIG_A=y\r\nCONFIG_B=m") == {"A": "y", "B": "m"}

    def test_commented_assignment_is_ignored(self) -> None:
        assert parse("#CONFIG_A=y\n# CONFIG_B=m\n") == {}

    @pytest.mark.parametrize(
        ("line", "hint"),
        [
            ("CONFIG_A=yes", "y, m and n"),
            ("CONFIG_A=Y", "y, m and n"),
            ("CONFIG_A=y # for tests", "line of its own"),
            ("CONFIG_A= y", "space after"),
            ("CONFIG_A = y", "remove the spaces"),
            (" CONFIG_A=y", "remove the spaces"),
            ("CONFIG_A=", 'CONFIG_A=""'),
            ('CONFIG_A="open', "string in double quotes"),
            ("BLOCK=y", "write CONFIG_BLOCK=y"),
            ("CONFIG_A", "write CONFIG_<symbol>=<value>"),
            ("#CONFIG_A is not set", "this exact form"),
            ("# CONFIG_A not set", "this exact form"),
            ("# CONFIG_A is not set.", "this exact form"),
        ],
    )
    def test_malformed_line_is_an_error_with_a_hint(self, line: str, hint: str) -> None:
        with pytest.raises(FragmentError) as caught:
            parse(f"CONFIG_FIRST=y\n{line}\n", "mine.config")
        assert isinstance(caught.value, UsageError)
        assert (caught.value.fragment, caught.value.line) == ("mine.config", 2)
        assert f"mine.config:2: cannot read {line!r}" in str(caught.value)
        assert hint in caught.value.hint


class TestMerge:
    def test_requests_know_their_fragment_and_line(self) -> None:
        result = merged(base="# base\nCONFIG_BLOCK=y\n", nvme="CONFIG_BLK_DEV_NVME=m\n")
        assert result.requests == {
            "BLOCK": Request("BLOCK", "y", "base.config", 2),
            "BLK_DEV_NVME": Request("BLK_DEV_NVME", "m", "nvme.config", 1),
        }
        assert result.contradictions == ()

    def test_later_fragment_wins_with_a_contradiction(self) -> None:
        result = merged(base="CONFIG_NET=y\n", mine="\n# CONFIG_NET is not set\n")
        earlier = Request("NET", "y", "base.config", 1)
        later = Request("NET", "n", "mine.config", 2)
        assert result.requests == {"NET": later}
        assert result.contradictions == (Contradiction(earlier, later),)

    def test_equal_requests_do_not_contradict(self) -> None:
        result = merged(base="CONFIG_NET=y\nCONFIG_A=0x10\n", mine="CONFIG_NET=y\nCONFIG_A=0x010\n")
        assert result.contradictions == ()
        assert result.requests["NET"].fragment == "mine.config"

    def test_fragment_can_contradict_itself(self) -> None:
        (contradiction,) = merged(base="CONFIG_NET=y\nCONFIG_NET=m\n").contradictions
        assert (contradiction.earlier.line, contradiction.later.line) == (1, 2)


class TestRender:
    def test_symbols_are_sorted(self) -> None:
        text = render(merged(base='CONFIG_B=m\nCONFIG_S="x"\n', mine="CONFIG_A=n\nCONFIG_B=y\n"))
        assert text == '# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_S="x"\n'

    def test_rendered_text_reads_back(self) -> None:
        result = merged(base='CONFIG_B=m\n# CONFIG_C is not set\nCONFIG_N=0x10\nCONFIG_S=""\n')
        assert parse(render(result)) == {s: r.value for s, r in result.requests.items()}

    def test_order_of_fragments_does_not_matter(self) -> None:
        first, second = Fragment("one", "CONFIG_A=y\n"), Fragment("other", "CONFIG_B=m\n")
        assert render(merge([first, second])) == render(merge([second, first]))


class TestProve:
    def prove(self, request: str, config: str) -> tuple[Dropped, ...]:
        return prove(merged(base=request).requests, parse(config))

    @pytest.mark.parametrize(
        ("request_line", "config"),
        [
            ("CONFIG_A=y", "CONFIG_A=y"),
            ("CONFIG_A=m", "CONFIG_A=m"),
            ("CONFIG_A=m", "CONFIG_A=y"),
            ("CONFIG_A=n", "# CONFIG_A is not set"),
            ("# CONFIG_A is not set", ""),
            ("CONFIG_A=0x10", "CONFIG_A=0x010"),
            ("CONFIG_A=010", "CONFIG_A=10"),
            ('CONFIG_A="x"', 'CONFIG_A="x"'),
            ('CONFIG_A=""', ""),
        ],
    )
    def test_honoured_requests(self, request_line: str, config: str) -> None:
        assert self.prove(request_line, config) == ()

    @pytest.mark.parametrize(
        ("request_line", "config", "requested", "got"),
        [
            ("CONFIG_A=y", "", "y", "n"),
            ("CONFIG_A=y", "# CONFIG_A is not set", "y", "n"),
            ("CONFIG_A=y", "CONFIG_A=m", "y", "m"),
            ("CONFIG_A=m", "", "m", "n"),
            ("# CONFIG_A is not set", "CONFIG_A=y", "n", "y"),
            ("CONFIG_A=64", "CONFIG_A=8", "64", "8"),
            ("CONFIG_A=64", "", "64", "n"),
            ('CONFIG_A="x"', 'CONFIG_A="y"', '"x"', '"y"'),
        ],
    )
    def test_dropped_requests(
        self, request_line: str, config: str, requested: str, got: str
    ) -> None:
        assert self.prove(request_line, config) == (Dropped("A", requested, got, "base.config", 1),)

    def test_module_that_became_built_in_is_reported(self) -> None:
        requests = merged(base="CONFIG_A=m\nCONFIG_B=m\nCONFIG_C=y\n").requests
        result = parse("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n")
        assert promoted(requests, result) == (Promoted("A", "base.config", 1),)

    def test_only_the_winning_line_is_checked(self) -> None:
        requests = merged(base="CONFIG_A=y\n", mine="CONFIG_A=m\n").requests
        assert prove(requests, {"A": "n"}) == (Dropped("A", "m", "n", "mine.config", 1),)


class TestWholeConfigError:
    def lost(self, count: int, fragment: str) -> list[Dropped]:
        return [Dropped(f"S{number}", "y", "n", fragment, number) for number in range(count)]

    def test_defconfig_gets_one_message(self) -> None:
        message = whole_config_error(
            [*self.lost(67, "x86_64_defconfig"), *self.lost(3, "mine.config")]
        )
        assert message.startswith(
            "x86_64_defconfig does not fit this kernel as a fragment: 67 of its symbols"
        )
        assert "(S0, S1, S2, ...)" in message
        assert "./inv kernel.explain S0" in message
        assert len(message.splitlines()) == 4

    @pytest.mark.parametrize("count", [0, 1, 10])
    def test_few_dropped_symbols_are_not_summarized(self, count: int) -> None:
        assert whole_config_error(self.lost(count, "mine.config")) == ""
