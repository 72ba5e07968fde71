"""Accounts in the lists of a partition: Slurm 22.05 and 24.11 read them differently."""

from __future__ import annotations

import pytest

from waldur_site_agent_slurm.controller import Controller
from waldur_site_agent_slurm.facts import Account, Cluster
from waldur_site_agent_slurm.refusals import PartitionRules, Reading, of_account
from waldur_site_agent_slurm.standing import parse_version

ACCOUNTS = {
    "root": Account("root"),
    "lab": Account("lab", "root"),
    "run": Account("run", "lab"),
}
OLD, NEW = "Job's account not permitted to use this partition", "PartitionConfig"


def answers(partition: PartitionRules, *, lists_include_subaccounts: bool) -> list[str]:
    reading = Reading(
        cluster=Cluster("c", ACCOUNTS),
        controller=Controller(),
        partitions=(partition,),
        lists_include_subaccounts=lists_include_subaccounts,
    )
    found = of_account("run", reading)
    return [each.answer for each in found if each.rule == "partition main"]


@pytest.mark.parametrize(
    ("allowed", "old", "new"),
    [("run", [], []), ("lab", [OLD], []), ("physics", [OLD], [NEW])],
)
def test_an_allowed_account_stands_for_those_below_it_since_24_11(
    allowed: str, old: list[str], new: list[str]
) -> None:
    partition = PartitionRules(name="main", allowed_accounts=frozenset({allowed}))
    assert old == answers(partition, lists_include_subaccounts=False)
    assert new == answers(partition, lists_include_subaccounts=True)


@pytest.mark.parametrize(
    ("denied", "old", "new"),
    [("run", [OLD], [NEW]), ("lab", [], [NEW]), ("physics", [], [])],
)
def test_a_denied_account_stands_for_those_below_it_since_24_11(
    denied: str, old: list[str], new: list[str]
) -> None:
    partition = PartitionRules(name="main", denied_accounts=frozenset({denied}))
    assert old == answers(partition, lists_include_subaccounts=False)
    assert new == answers(partition, lists_include_subaccounts=True)


@pytest.mark.parametrize(
    ("said", "version"), [("slurm 24.11.5", (24, 11)), ("slurm-wlm 22.05.8", (22, 5)), ("", ())]
)
def test_the_version_is_read_from_what_sacctmgr_says(said: str, version: tuple[int, ...]) -> None:
    assert version == parse_version(said)
