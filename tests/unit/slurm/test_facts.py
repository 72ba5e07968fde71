"""What sacctmgr prints becomes values."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import PermanentError, TemporaryError
from waldur_site_agent_slurm import facts, tres

RECORDED = (Path(__file__).parents[2] / "data/slurm/accounts-22.05.txt").read_text(encoding="utf-8")


def test_a_recorded_listing_gives_tree_users_limits_and_organization() -> None:
    cluster = facts.parse_accounts(RECORDED)
    assert cluster.name == "testcluster"
    allocation = cluster.accounts["hpc-1"]
    assert allocation.parent == "proj1"
    assert allocation.organization == "proj1"
    assert allocation.users == {"U001", "u002"}
    assert allocation.limits == {"cpu": 600000, "mem": Decimal("1.5") * 1024 * 1024}
    assert cluster.accounts["cust1"].limits == {"cpu": 100, "gres/gpu": 5, "mem": 204800}
    assert cluster.children("cust1") == ("proj1",)


def test_qos_is_inherited_from_the_nearest_account_that_has_one() -> None:
    cluster = facts.parse_accounts(RECORDED)
    assert cluster.qos_of("hpc-1") == "normal"
    assert cluster.qos_of("odd") == "limited"


def test_an_account_without_association_does_not_count_as_there() -> None:
    cluster = facts.parse_accounts(RECORDED)
    assert cluster.find("left") is None
    assert cluster.accounts["left"].organization == "another"


def test_an_organization_with_separator_and_line_end_spoils_nothing_else() -> None:
    cluster = facts.parse_accounts(RECORDED)
    assert cluster.accounts["odd"].organization == "some | text second line"
    assert "second line" not in cluster.accounts


@pytest.mark.guarantee("orders: Slurm misbehaves")
@pytest.mark.parametrize(
    "output",
    [
        "",
        "testcluster|cust1|root|||||||cust1\n",
        "|root||||||||root\n",
        "sacctmgr: something odd\n",
    ],
    ids=["empty", "no root", "root of another cluster", "no table"],
)
def test_a_listing_without_the_root_account_is_a_failed_read(output: str) -> None:
    with pytest.raises(TemporaryError, match="without the root account"):
        facts.parse_accounts(output)


def test_several_clusters_without_a_choice_are_refused_with_the_remedy() -> None:
    output = "one|root||||normal||||root\ntwo|root||||normal||||root\n"
    with pytest.raises(TemporaryError, match=r"one, two.*set 'cluster'"):
        facts.parse_accounts(output)


def test_an_unreadable_limit_is_left_out_and_everything_else_read() -> None:
    output = (
        "c|root||||||||root\nc|big|root|||||cpu=5,mem=8?||big\nc|big||ada||||cpu=x||big\n"
        "c|small|root|||||mem=1G||small\n"
    )
    cluster = facts.parse_accounts(output)
    big = cluster.accounts["big"]
    assert big.limits == {"cpu": 5}
    assert big.users == {"ada"}
    assert big.unreadable == ("mem=8?", "cpu=x")
    assert cluster.accounts["small"].limits == {"mem": 1024}


def test_jobs_default_accounts_and_tres_are_read() -> None:
    assert facts.parse_jobs("7|Acc|Ada\nCLUSTER: x\n") == (facts.Job("7", "acc", "Ada"),)
    users = "hpc|A1|ada|Root|Operator\nhpc|a2|ada|Root|Operator\nold|a3|a|b|a3|None\n||bob||None\n"
    assert facts.parse_users(users, "hpc") == {
        "ada": facts.UserRecord("root", "Operator", frozenset({"a1", "a2"})),
        "a|b": facts.UserRecord("", "None"),
        "bob": facts.UserRecord("", "None"),
    }
    assert facts.parse_tres_names("cpu|\ngres|gpu\n") == {"cpu", "gres/gpu"}


def test_a_job_of_a_user_with_a_separator_in_the_name_is_a_job() -> None:
    assert facts.parse_jobs("7|climate|a|b\n") == (facts.Job("7", "climate", "a|b"),)


@given(st.integers(0, tres.LARGEST_COUNT))
def test_a_count_survives_printing_and_reading(amount: int) -> None:
    printed = tres.printed("cpu", amount)
    assert tres.parse(f"cpu={printed}") == {"cpu": amount}


@given(st.integers(0, tres.LARGEST_MEMORY))
def test_memory_is_recognised_and_read_back_within_half_a_percent(amount: int) -> None:
    found = tres.parse(f"mem={tres.printed('mem', amount)}")
    assert tres.is_set_to("mem", found, amount)
    assert abs(found["mem"] - amount) <= Decimal(amount) / 200


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (1536, "1.50G"), (204800, "200G"), (1048576, "1T"), (1572864, "1.50T"), (999, "999M"),
        (1073741824, "1P"), (999999999999, "999999999999M"), (1049088, "1.00T"), (0, "0M"),
    ],
)  # fmt: skip
def test_memory_is_printed_as_22_05_prints_it(amount: int, expected: str) -> None:
    assert tres.printed("mem", amount) == expected


@pytest.mark.parametrize(
    ("component", "amount"),
    [
        ("cpu", "0.5"), ("cpu", "-1"), ("cpu", "NaN"), ("cpu", "Infinity"),
        ("cpu", str(2**64 - 2)), ("mem", str(2**40)),
    ],
)  # fmt: skip
def test_an_amount_that_slurm_cannot_keep_is_refused_by_name_and_value(
    component: str, amount: str
) -> None:
    with pytest.raises(PermanentError, match=f"hpc-1: the limit of '{component}'.*{amount}"):
        tres.whole_amount(component, Decimal(amount), "hpc-1")


@given(st.text())
def test_no_output_whatever_crashes_the_reader(output: str) -> None:
    try:
        cluster = facts.parse_accounts(output)
    except TemporaryError:
        return
    assert "root" in cluster.accounts
