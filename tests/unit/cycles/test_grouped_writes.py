"""Accounts with the same change share a command, and still have an outcome each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import SimulatedSite
from harness.testbed import a_simulated_site
from waldur_site_agent.backends import AddMembers, Outcome, RemoveMembers, Result
from waldur_site_agent.backends.batches import Task
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent_slurm.grouping import ASSOCIATIONS_PER_COMMAND, grouped
from waldur_site_agent_slurm.simulator import Version


@pytest.mark.guarantee("Requests and processes per cycle are a constant plus the number of changes")
@pytest.mark.parametrize("slurm", ["22.05", "24.11"])
def test_thirty_orders_in_five_projects_of_five_take_forty_five_commands(
    tmp_path: Path, slurm: Version
) -> None:
    with a_simulated_site(tmp_path / "lock", slurm=slurm) as testbed:
        people = [{f"u{n}{k}": f"u{n}{k}" for k in range(5)} for n in range(5)]
        projects = [testbed.project(f"p{n}", **team) for n, team in enumerate(people)]
        orders = [testbed.order(projects[n % 5], f"run{n}") for n in range(30)]
        testbed.cycle()
        assert {testbed.state(order) for order in orders} == {"done"}
        for number, order in enumerate(orders):
            assert testbed.members(order) == people[number % 5].keys()
        assert sum(testbed.slurm.commands_run.values()) <= 45


def three_resources(testbed: SimulatedSite) -> list[str]:
    """The accounts of three resources of one project with a member."""
    project = testbed.project(ada="ada01")
    return [testbed.settled(project, name).backend_id for name in ("one", "two", "six")]


def applied(testbed: SimulatedSite, *actions: AddMembers | RemoveMembers) -> list[Outcome]:
    testbed.forget()
    with testbed.agent() as site:
        return list(site.backend.apply(actions))


def commands(testbed: SimulatedSite, verb: str) -> list[str]:
    """The commands of one verb on users, but those that introduce users to the cluster."""
    return [
        " ".join(argv[2:])
        for argv in testbed.slurm.history
        if argv[1:4] == ("-i", verb, "user") and not any(w.startswith("Default") for w in argv)
    ]


def test_who_joins_and_leaves_several_accounts_does_so_by_one_command(
    testbed: SimulatedSite,
) -> None:
    one, two, six = names = three_resources(testbed)
    joined = applied(testbed, *(AddMembers(name, ("bob01", "cyd01")) for name in names))
    assert [outcome.result for outcome in joined] == [Result.DONE] * 3
    assert commands(testbed, "add") == [f"add user name=bob01,cyd01 account={one},{two},{six}"]
    left = applied(testbed, *(RemoveMembers(name, ("bob01", "cyd01")) for name in names))
    assert [outcome.result for outcome in left] == [Result.DONE] * 3
    gone = f"remove user where name=bob01,cyd01 account={one},{two},{six}"
    assert commands(testbed, "remove") == [gone]
    assert all(testbed.slurm.state.accounts[name].members.keys() == {"ada01"} for name in names)


def test_each_account_gets_its_own_members_where_they_differ(testbed: SimulatedSite) -> None:
    one, two, six = three_resources(testbed)
    wanted = {one: ("bob01",), two: ("bob01", "cyd01"), six: ("bob01",)}
    outcomes = applied(testbed, *(AddMembers(name, wanted[name]) for name in wanted))
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 3
    assert len(commands(testbed, "add")) == 2
    for name, members in wanted.items():
        assert testbed.slurm.state.accounts[name].members.keys() == {"ada01", *members}


def test_where_each_member_gets_the_account_as_default_no_command_has_two(
    testbed: SimulatedSite,
) -> None:
    names = three_resources(testbed)
    site = testbed.with_(settings={"default_account_policy": "individual"})
    outcomes = applied(site, *(AddMembers(name, ("bob01",)) for name in names))
    assert [outcome.result for outcome in outcomes] == [Result.DONE] * 3
    added = [argv for argv in testbed.slurm.history if "add" in argv]
    assert [
        f"account={name}" in argv for name, argv in zip(sorted(names), sorted(added), strict=True)
    ]


@dataclass
class RefusesAny:
    """A Slurm that refuses every command in which an account is named."""

    account: str
    inner: Runner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        lists = [word.partition("=")[2].split(",") for word in argv if word.startswith("account=")]
        if "-i" in argv and any(self.account in names for names in lists):
            return CommandResult(tuple(argv), 1, "", " This account 'x' doesn't exist.\n")
        return self.inner.run(argv, timeout)


def test_an_account_that_is_refused_does_not_stop_the_others_of_its_command(
    testbed: SimulatedSite,
) -> None:
    names = three_resources(testbed)
    site = testbed.with_(runner=lambda inner: RefusesAny(names[1], inner))
    actions = [AddMembers(name, ("bob01",)) for name in names]
    outcomes = applied(site, *actions)
    assert [outcome.result for outcome in outcomes] == [Result.DONE, Result.FAILED, Result.DONE]
    found = [set(testbed.slurm.state.accounts[name].members) for name in names]
    assert found == [{"ada01", "bob01"}, {"ada01"}, {"ada01", "bob01"}]
    again = applied(testbed, *actions)
    results = [Result.UNCHANGED, Result.DONE, Result.UNCHANGED]
    assert results == [outcome.result for outcome in again]


def test_a_job_in_one_account_does_not_keep_its_owner_in_the_others(
    testbed: SimulatedSite,
) -> None:
    names = three_resources(testbed)
    applied(testbed, *(AddMembers(name, ("bob01",)) for name in names))
    testbed.slurm.submit_job("bob01", names[1])
    site = testbed.with_(settings={"cancel_jobs_on_removal": False})
    outcomes = applied(site, *(RemoveMembers(name, ("bob01",)) for name in names))
    assert [outcome.result for outcome in outcomes] == [Result.DONE, Result.FAILED, Result.DONE]
    found = [set(testbed.slurm.state.accounts[name].members) for name in names]
    assert found == [{"ada01"}, {"ada01", "bob01"}, {"ada01"}]


def test_somebody_whose_last_accounts_go_together_leaves_all_of_them(tmp_path: Path) -> None:
    """24.11 refuses the default account while the user has another one."""
    with a_simulated_site(tmp_path / "lock", slurm="24.11") as testbed:
        names = three_resources(testbed)
        with testbed.slurm.change() as state:
            del state.accounts["root"].members["ada01"]
            state.users["ada01"].default_account = names[0]
        outcomes = applied(testbed, *(RemoveMembers(name, ("ada01",)) for name in names))
        assert [outcome.result for outcome in outcomes] == [Result.DONE] * 3
        assert "ada01" not in testbed.slurm.state.users


def sizes(accounts: int, users: int) -> Iterable[int]:
    names = tuple(f"u{n}" for n in range(users))
    wanted = {Task(n, AddMembers(f"a{n}", names)): frozenset(names) for n in range(accounts)}
    for people, tasks in grouped(wanted):
        if len(tasks) > 1:
            yield len(people) * len(tasks)


def test_a_command_for_several_accounts_stays_short_of_what_takes_minutes() -> None:
    assert max(sizes(accounts=300, users=3)) <= ASSOCIATIONS_PER_COMMAND
    assert max(sizes(accounts=300, users=90)) <= ASSOCIATIONS_PER_COMMAND
    assert list(sizes(accounts=3, users=700)) == []
