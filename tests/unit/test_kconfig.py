# SPDX-License-Identifier: GPL-2.0-or-later
"""What Kconfig fragments mean: reading, merging, rendering, and the proof of the result."""

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
    def test_every_kind_of_value(self) -> None:
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

    def test_the_last_line_for_a_symbol_counts(self) -> None:
        assert parse("CONFIG_A=y\n# CONFIG_A is not set\nCONFIG_A=m\n") == {"A": "m"}

    def test_line_ends_of_other_systems_and_a_missing_final_newline(self) -> None:
        assert parse("CONFIG_A=y\r\nCONFIG_B=m") == {"A": "y", "B": "m"}

    def test_a_disabled_assignment_is_a_comment(self) -> None:
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
    def test_a_malformed_line_is_named_and_the_remedy_told(self, line: str, hint: str) -> None:
        with pytest.raises(FragmentError) as caught:
            parse(f"CONFIG_FIRST=y\n{line}\n", "mine.config")
        assert isinstance(caught.value, UsageError)
        assert (caught.value.fragment, caught.value.line) == ("mine.config", 2)
        assert f"mine.config:2: cannot read {line!r}" in str(caught.value)
        assert hint in caught.value.hint


class TestMerge:
    def test_each_request_remembers_its_line(self) -> None:
        result = merged(base="# base\nCONFIG_BLOCK=y\n", nvme="CONFIG_BLK_DEV_NVME=m\n")
        assert result.requests == {
            "BLOCK": Request("BLOCK", "y", "base.config", 2),
            "BLK_DEV_NVME": Request("BLK_DEV_NVME", "m", "nvme.config", 1),
        }
        assert result.contradictions == ()

    def test_the_later_fragment_wins_and_the_contradiction_is_recorded(self) -> None:
        result = merged(base="CONFIG_NET=y\n", mine="\n# CONFIG_NET is not set\n")
        earlier = Request("NET", "y", "base.config", 1)
        later = Request("NET", "n", "mine.config", 2)
        assert result.requests == {"NET": later}
        assert result.contradictions == (Contradiction(earlier, later),)

    def test_agreement_is_no_contradiction(self) -> None:
        result = merged(base="CONFIG_NET=y\nCONFIG_A=0x10\n", mine="CONFIG_NET=y\nCONFIG_A=0x010\n")
        assert result.contradictions == ()
        assert result.requests["NET"].fragment == "mine.config"

    def test_a_fragment_can_contradict_itself(self) -> None:
        (contradiction,) = merged(base="CONFIG_NET=y\nCONFIG_NET=m\n").contradictions
        assert (contradiction.earlier.line, contradiction.later.line) == (1, 2)


class TestRender:
    def test_one_sorted_line_per_symbol(self) -> None:
        text = render(merged(base='CONFIG_B=m\nCONFIG_S="x"\n', mine="CONFIG_A=n\nCONFIG_B=y\n"))
        assert text == '# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_S="x"\n'

    def test_what_is_rendered_reads_back(self) -> None:
        result = merged(base='CONFIG_B=m\n# CONFIG_C is not set\nCONFIG_N=0x10\nCONFIG_S=""\n')
        assert parse(render(result)) == {s: r.value for s, r in result.requests.items()}

    def test_the_order_of_fragments_that_agree_does_not_show(self) -> None:
        one, other = Fragment("one", "CONFIG_A=y\n"), Fragment("other", "CONFIG_B=m\n")
        assert render(merge([one, other])) == render(merge([other, one]))


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
    def test_honoured(self, request_line: str, config: str) -> None:
        assert self.prove(request_line, config) == ()

    @pytest.mark.parametrize(
        ("request_line", "config", "wanted", "got"),
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
    def test_dropped(self, request_line: str, config: str, wanted: str, got: str) -> None:
        assert self.prove(request_line, config) == (Dropped("A", wanted, got, "base.config", 1),)

    def test_a_module_that_became_built_in_is_noted(self) -> None:
        requests = merged(base="CONFIG_A=m\nCONFIG_B=m\nCONFIG_C=y\n").requests
        result = parse("CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\n")
        assert promoted(requests, result) == (Promoted("A", "base.config", 1),)

    def test_only_the_winning_line_is_proved(self) -> None:
        requests = merged(base="CONFIG_A=y\n", mine="CONFIG_A=m\n").requests
        assert prove(requests, {"A": "n"}) == (Dropped("A", "m", "n", "mine.config", 1),)


class TestWholeConfigError:
    def lost(self, count: int, fragment: str) -> list[Dropped]:
        return [Dropped(f"S{number}", "y", "n", fragment, number) for number in range(count)]

    def test_a_defconfig_gets_one_message(self) -> None:
        told = whole_config_error(
            [*self.lost(67, "x86_64_defconfig"), *self.lost(3, "mine.config")]
        )
        assert told.startswith(
            "x86_64_defconfig does not fit this kernel as a fragment: 67 of its symbols"
        )
        assert "(S0, S1, S2, ...)" in told
        assert "./inv kernel.explain S0" in told
        assert len(told.splitlines()) == 4

    @pytest.mark.parametrize("count", [0, 1, 10])
    def test_a_few_lost_symbols_are_explained_one_by_one(self, count: int) -> None:
        assert whole_config_error(self.lost(count, "mine.config")) == ""
