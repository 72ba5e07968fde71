"""What the mam-* commands print: read strictly, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from waldur_site_agent.backends import PermanentError, TemporaryError
from waldur_site_agent_moab import facts
from waldur_site_agent_moab.facts import Account, Books, Fund, Mam

ACCOUNTS = """\
root|True||root
Physics|False|Someone,-gone,+other|Department of A | B
c_uni|True||c_uni
p_climate|True||c_uni
a_ocean|True|ada,bob|p_climate
"""


def test_accounts_are_compared_in_lower_case_and_sent_as_they_are_spelled() -> None:
    accounts = facts.parse_accounts(ACCOUNTS)
    physics = accounts["physics"]
    assert (
        physics.name,
        physics.organization,
        physics.is_active,
    ) == ("Physics", "department of a | b", False)
    assert {"Someone", "other"} == physics.users
    assert {"ada", "bob"} == set(accounts["a_ocean"].users)


def test_of_two_accounts_that_differ_in_capitals_the_one_in_lower_case_counts() -> None:
    for lines in (("ABC|True||x", "abc|True||y"), ("abc|True||y", "ABC|True||x")):
        accounts = facts.parse_accounts("\n".join(lines) + "\n")
        assert accounts["abc"].organization == "y"


def test_the_tree_is_read_from_the_organizations() -> None:
    mam = Mam(accounts=facts.parse_accounts(ACCOUNTS))
    parents = {n: mam.parent_of(a, "root") for n, a in mam.accounts.items()}
    assert parents == {
        "root": None,
        "physics": None,
        "c_uni": "root",
        "p_climate": "c_uni",
        "a_ocean": "p_climate",
    }
    assert mam.parent_of(mam.accounts["c_uni"], "") is None
    assert mam.children("c_uni") == ("p_climate",)


@pytest.mark.parametrize(
    ("parse", "output"),
    [
        (facts.parse_accounts, ""),
        (facts.parse_accounts, "a_ocean|True|ada"),
        (facts.parse_accounts, ACCOUNTS[:-4]),
        (facts.parse_accounts, "a_ocean|True|ada\n"),
        (facts.parse_accounts, "a_ocean|maybe||x\n"),
        (facts.parse_accounts, "|True||x\n"),
        (facts.parse_accounts, "Failed to connect to server\n"),
        (facts.parse_funds, "one|Account=a\n"),
        (facts.parse_funds, "1\n"),
        (facts.parse_allocations, "1|1|10|10\n"),
        (facts.parse_allocations, "1|1|10,5|10|True\n"),
        (facts.parse_allocations, "1|1|NaN|10|True\n"),
        (facts.parse_allocations, "1|1||10|True\n"),
        (facts.parse_allocations, "1||10|10|True\n"),
        (facts.parse_allocations, "1|1|10|10|True\n2|1|1"),
        (facts.parse_withdrawals, "1|\n"),
        (facts.parse_withdrawals, "|5\n"),
        (lambda output: list(facts.parse_charges(output)), "a|ada|1|2|three\n"),
        (lambda output: list(facts.parse_charges(output)), "a|ada|2026-11-01|2|3\n"),
        (lambda output: list(facts.parse_charges(output)), "a|ada|1|2\n"),
    ],
)
def test_an_answer_that_is_short_or_odd_is_a_failed_read(
    parse: Callable[[str], object], output: str
) -> None:
    with pytest.raises(TemporaryError, match=r"not understood|failed read"):
        parse(output)


def test_funds_allocations_and_withdrawals_are_added_up_by_fund() -> None:
    allocations = facts.parse_allocations("1|7|10.5|20|True\n2|7|3|5|False\n3|8|-1.25|0.00|True\n")
    books = facts.books_of(allocations, facts.parse_withdrawals("7|4\n7|-2.5\n"))
    seven = Books(
        deposited=Decimal(25),
        left=Decimal("13.5"),
        usable=Decimal("10.5"),
        withdrawn=Decimal("6.5"),
    )
    assert seven == books["7"]
    assert seven.bought == Decimal("18.5")
    assert Decimal("-1.25") == books["8"].left


@pytest.mark.parametrize(
    ("constraints", "accounts", "is_exclusive"),
    [
        ("Account=a_ocean", {"a_ocean"}, True),
        ("Account=A_Ocean", {"a_ocean"}, True),
        ("Account=a_ocean,Account=b", {"a_ocean", "b"}, False),
        ("Account=a_ocean,User=ada", {"a_ocean"}, False),
        ("Account=a_ocean, Machine=!x|y", {"a_ocean"}, False),
        ("!Account=a_ocean", set(), False),
        ("", set(), False),
        ("Account=", set(), False),
    ],
)
def test_a_fund_belongs_to_an_account_only_when_it_is_constrained_to_nothing_else(
    constraints: str, accounts: set[str], is_exclusive: bool
) -> None:
    fund = facts.parse_funds(f"7|{constraints}\n")["7"]
    assert Fund(id="7", accounts=frozenset(accounts), is_exclusive=is_exclusive) == fund


def test_a_fund_without_constraints_is_nobodys_own() -> None:
    account = Account(name="a_ocean", organization="p_climate")
    mam = Mam(accounts={"a_ocean": account}, funds=facts.parse_funds("1|\n2|Account=b\n"))
    with pytest.raises(PermanentError, match="mam-create-fund -a a_ocean"):
        mam.fund_of("a_ocean")


def test_charges_are_exact_and_a_job_without_an_end_has_none() -> None:
    first, second = facts.parse_charges("A_Ocean|Ada|100|200|0.1000000001\nx||0||\n")
    assert ("a_ocean", "ada", Decimal("0.1000000001")) == (first.account, first.user, first.amount)
    assert first.start is not None
    assert first.start.timestamp() == 100
    assert second.start is None
    assert second.end is None
    assert second.amount == 0
