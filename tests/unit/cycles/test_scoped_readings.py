"""Passes over a part of an offering read that part of the cluster, and trust no short answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from harness import SimulatedSite
from harness.testbed import a_simulated_site
from waldur_site_agent.backends import AddMembers, RemoveMembers, Result, SetAccess, TemporaryError
from waldur_site_agent.backends.actions import Access
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.backend import ProjectScope, UserScope
from waldur_site_agent_slurm.backend import FEW_ACCOUNTS, SlurmBackend
from waldur_site_agent_slurm.simulator import Version
from waldur_site_agent_slurm.simulator.state import SimAccount, SimMembership, SimUser

WHOLE = "every account"


@pytest.fixture(params=["22.05", "24.11"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> SimulatedSite:
    version: Version = request.param
    with a_simulated_site(tmp_path / "lock", slurm=version) as testbed:
        return testbed


def commands(testbed: SimulatedSite) -> list[str]:
    """What was asked and written: the accounts that were read, and the other commands in short."""
    shown = []
    for argv in testbed.slurm.history:
        named = next((word for word in argv if word.startswith("name=")), "")
        if {"account", "withassoc"} <= {*argv}:
            shown.append(f"read {named or WHOLE}")
        else:
            kind = " ".join(argv[2:4] if "-i" in argv else argv[3:5])
            shown.append(f"{kind} {named}".strip())
    return shown


def known(site: Site) -> Site:
    """The same offering after a pass over all of it, as event mode begins with."""
    sync_membership(site)
    return site


def scoped(site: Site, project: str) -> None:
    assert not sync_membership(site, scopes=[ProjectScope(UUID(project))]).failed


def test_somebody_who_joins_takes_four_commands_and_no_reading_of_the_cluster(
    cluster: SimulatedSite,
) -> None:
    project = cluster.project(ada="ada01")
    resource, name = cluster.settled(project), ""
    name = resource.backend_id
    with cluster.agent() as site:
        known(site)
        cluster.sandbox.customer.add_member(project, cluster.person("bob", "bob01"))
        cluster.forget()
        scoped(site, project.uuid)
        own = f"read name={name},c_uni,p_climate,root"
        assert commands(cluster) == [
            own,
            "show user name=bob01,root",
            "add user name=bob01",
            "add user name=bob01",
            own,
        ]
        assert cluster.members_of(resource) == {"ada01", "bob01"}
        other = cluster.settled(cluster.project("ocean", bob="bob01"))
        sync_membership(site)
        cluster.sandbox.customer.add_member(project, cluster.person("cyd", "cyd01"))
        sync_membership(site)
        cluster.sandbox.customer.add_member(
            next(p for p in cluster.sandbox.customer.world.projects.values() if p.slug == "ocean"),
            cluster.person("cyd", "cyd01"),
        )
        cluster.forget()
        scoped(site, other.project)
        here = f"read name={other.backend_id},c_uni,p_ocean,root"
        assert commands(cluster) == [here, "add user name=cyd01", here]
        assert cluster.members_of(other) == {"bob01", "cyd01"}


def test_somebody_who_leaves_takes_no_reading_of_the_cluster(cluster: SimulatedSite) -> None:
    project = cluster.project(ada="ada01", bob="bob01")
    resource = cluster.settled(project)
    with cluster.agent() as site:
        known(site)
        person = cluster.person("bob", "bob01")
        cluster.sandbox.customer.remove_member(project, person)
        cluster.forget()
        scoped(site, project.uuid)
    assert cluster.members_of(resource) == {"ada01"}
    assert not [line for line in commands(cluster) if line.endswith(WHOLE)]
    assert "show user name=bob01,root" in commands(cluster)


def test_a_user_is_looked_for_by_name_and_no_other_account_is_read(cluster: SimulatedSite) -> None:
    project = cluster.project(ada="ada01")
    resource = cluster.settled(project)
    cluster.settled(cluster.project("ocean", eve="eve01"))
    with cluster.agent() as site:
        known(site)
        bob = cluster.person("bob", "bob01")
        scope = UserScope(UUID(bob.uuid))
        cluster.sandbox.customer.add_member(project, bob)
        cluster.forget()
        assert not sync_membership(site, scopes=[scope]).failed
        assert cluster.members_of(resource) == {"ada01", "bob01"}
        cluster.sandbox.customer.remove_member(project, bob)
        assert not sync_membership(site, scopes=[scope]).failed
        assert cluster.members_of(resource) == {"ada01"}
    asked = commands(cluster)
    assert f"read {WHOLE}" not in asked
    assert not [line for line in asked if "ocean" in line]


def test_a_user_is_looked_for_in_the_whole_cluster_where_an_answer_may_be_short(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    testbed.settled(project)
    with testbed.agent() as site:
        known(site)
        bob = testbed.person("bob", "bob01")
        testbed.sandbox.customer.add_member(project, bob)
        with testbed.slurm.change() as state:
            del state.users["root"]
        testbed.forget()
        assert not sync_membership(site, scopes=[UserScope(UUID(bob.uuid))]).failed
    assert f"read {WHOLE}" in commands(testbed)


def test_accounts_with_a_qos_of_their_own_are_read_with_no_other_qos(
    testbed: SimulatedSite,
) -> None:
    cluster = testbed.with_(settings={"qos_management": {"enabled": True}})
    project = cluster.project(ada="ada01")
    resource = cluster.settled(project)
    cluster.settled(cluster.project("ocean", eve="eve01"))
    with cluster.agent() as site:
        known(site)
        cluster.sandbox.customer.add_member(project, cluster.person("bob", "bob01"))
        cluster.forget()
        scoped(site, project.uuid)
    asked = [argv for argv in cluster.slurm.history if argv[1:5] == ("-P", "-n", "show", "qos")]
    assert asked
    for argv in asked:
        (named,) = [word for word in argv if word.startswith("name=")]
        assert resource.backend_id in named
        assert "ocean" not in named
    assert cluster.members_of(resource) == {"ada01", "bob01"}


def test_the_first_pass_of_a_process_reads_everything_for_the_guard(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    testbed.settled(project)
    with testbed.agent() as site:
        scoped(site, project.uuid)
        assert f"read {WHOLE}" in commands(testbed)


@pytest.mark.guarantee("Removals are bounded")
def test_a_pass_over_a_project_is_guarded_by_the_members_of_the_whole_offering(
    testbed: SimulatedSite,
) -> None:
    crowd = {f"u{n}": f"u{n}" for n in range(60)}
    big, small = (
        testbed.project("big", **crowd),
        testbed.project("small", **dict([*crowd.items()][:15])),
    )
    testbed.settled(big)
    resource = testbed.settled(small)
    with testbed.agent() as site:
        known(site)
        for name in [*crowd][:12]:
            testbed.sandbox.customer.remove_member(small, testbed.person(name, name))
        assert not sync_membership(site, scopes=[ProjectScope(UUID(small.uuid))]).refused_reason
    assert len(testbed.members_of(resource)) == 3


def test_accounts_below_keep_no_coordinator_who_left(cluster: SimulatedSite) -> None:
    """Those below are not in a reading of some accounts, and are looked for."""
    project = cluster.project(ada="ada01", bob="bob01")
    resource = cluster.settled(project)
    with cluster.slurm.change() as state:
        state.accounts["below"] = SimAccount("below", "x", "x", resource.backend_id)
        state.accounts["below"].coordinators = ["bob01"]
    with cluster.agent() as site:
        site.backend.observe([resource.backend_id])
        (outcome,) = site.backend.apply([RemoveMembers(resource.backend_id, ("bob01",))])
    assert outcome.result is Result.DONE
    assert cluster.slurm.state.accounts["below"].coordinators == []
    assert not [line for line in commands(cluster) if line.endswith(WHOLE)]


def test_who_has_an_account_elsewhere_gets_that_as_default_and_keeps_it(
    cluster: SimulatedSite,
) -> None:
    project = cluster.project(ada="ada01", bob="bob01")
    resource = cluster.settled(project)
    with cluster.slurm.change() as state:
        state.accounts["lab"] = SimAccount("lab", "x", "x", "root")
        state.accounts["lab"].members["bob01"] = SimMembership()
        del state.accounts["root"].members["bob01"]
        state.users["bob01"].default_account = resource.backend_id
    with cluster.agent() as site:
        (outcome,) = site.backend.apply([RemoveMembers(resource.backend_id, ("bob01",))])
    assert outcome.result is Result.DONE
    assert cluster.slurm.state.users["bob01"].default_account == "lab"


def test_who_is_known_elsewhere_keeps_the_default_account(cluster: SimulatedSite) -> None:
    resource = cluster.settled(cluster.project(ada="ada01"))
    with cluster.slurm.change() as state:
        state.accounts["lab"] = SimAccount("lab", "x", "x", "root")
        state.accounts["lab"].members["cyd01"] = SimMembership()
        state.users["cyd01"] = SimUser("cyd01", "lab")
    with cluster.agent() as site:
        (outcome,) = site.backend.apply([AddMembers(resource.backend_id, ("cyd01",))])
    assert outcome.result is Result.DONE
    assert cluster.slurm.state.users["cyd01"].default_account == "lab"
    assert "cyd01" not in cluster.slurm.state.accounts["root"].members


def test_a_moved_account_is_read_with_what_is_above_it_now(cluster: SimulatedSite) -> None:
    resource = cluster.settled(cluster.project(ada="ada01"))
    with cluster.agent() as site:
        site.backend.observe()
        with cluster.slurm.change() as state:
            state.accounts["paid"] = SimAccount("paid", "x", "x", "root", qos=["limited"])
            state.accounts[resource.backend_id].parent = "paid"
        found = site.backend.observe([resource.backend_id]).resources[resource.backend_id]
    assert (found.parent, found.metadata["qos"]) == ("paid", "limited")


def test_more_than_a_few_accounts_are_read_with_the_whole_cluster(testbed: SimulatedSite) -> None:
    with testbed.agent() as site:
        site.backend.observe([f"a{n}" for n in range(FEW_ACCOUNTS)])
        assert f"read {WHOLE}" not in commands(testbed)
        site.backend.observe([f"a{n}" for n in range(FEW_ACCOUNTS + 1)])
        assert commands(testbed)[-1] == f"read {WHOLE}"


@pytest.mark.parametrize("name", ["a,b", "a[1-2]", "-a", "a b", "a=b", ""])
def test_a_name_that_a_command_would_misread_is_looked_for_in_the_whole_cluster(
    testbed: SimulatedSite, name: str
) -> None:
    with testbed.slurm.change() as state:
        state.accounts[name or "x"] = SimAccount(name or "x", "x", "x", "root")
    with testbed.agent() as site:
        found = site.backend.observe(["c", name])
    assert (name in found.resources) == bool(name)
    assert commands(testbed) == [f"read {WHOLE}"]


@dataclass
class Shortens:
    """A Slurm whose answers to some questions lack rows, with exit code 0."""

    inner: Runner
    lacks: Callable[[Sequence[str], str], bool]

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self.inner.run(argv, timeout)
        lines = [line for line in result.stdout.splitlines(True) if not self.lacks(argv, line)]
        return replace(result, stdout="".join(lines))


def shortened(testbed: SimulatedSite, lacks: Callable[[Sequence[str], str], bool]) -> SimulatedSite:
    return testbed.with_(runner=lambda inner: Shortens(inner, lacks))


@pytest.mark.guarantee("Nobody loses access because a read failed")
@pytest.mark.parametrize("missing", [("root",), ("root", "c_uni", "p_climate", "a_run")])
def test_an_answer_without_the_root_account_is_a_failed_reading(
    testbed: SimulatedSite, missing: Collection[str]
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    site = shortened(testbed, lacks=lambda _, line: any(f"|{name}" in line for name in missing))
    with site.agent() as agent:
        with pytest.raises(TemporaryError, match="without the root account"):
            agent.backend.observe([resource.backend_id])
        (outcome,) = agent.backend.apply([AddMembers(resource.backend_id, ("ada01",))])
    assert isinstance(outcome.error, TemporaryError)
    assert testbed.writing_commands == 0


@pytest.mark.guarantee("Nobody loses access because a read failed")
def test_an_account_that_one_answer_lacks_is_there(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    name = resource.backend_id
    asked = [0]

    def lacks(argv: Sequence[str], line: str) -> bool:
        asked[0] += "withassoc" in argv and f"|{name}|" in line and "ada01" not in line
        return asked[0] <= 1 and f"|{name}|" in line

    with shortened(testbed, lacks).agent() as agent:
        state = agent.backend.observe([name])
    assert state.members_of(name) == {"ada01"}
    assert len(commands(testbed)) >= 2


def test_users_that_an_answer_without_proof_lacks_are_looked_for_in_the_whole_cluster(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    with testbed.slurm.change() as state:
        state.accounts["lab"] = SimAccount("lab", "x", "x", "root")
        state.accounts["lab"].members["cyd01"] = SimMembership()
        state.users["cyd01"] = SimUser("cyd01", "lab")
    site = shortened(testbed, lacks=lambda argv, _: "user" in argv and "-i" not in argv)
    with site.agent() as agent:
        (outcome,) = agent.backend.apply([AddMembers(resource.backend_id, ("cyd01",))])
    assert outcome.result is Result.DONE
    assert "cyd01" not in testbed.slurm.state.accounts["root"].members
    assert f"read {WHOLE}" in commands(testbed)


def test_a_list_of_accounts_below_that_lacks_the_account_itself_is_a_failed_reading(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    site = shortened(testbed, lacks=lambda argv, _: "withsubaccounts" in argv)
    with site.agent() as agent:
        (outcome,) = agent.backend.apply([RemoveMembers(resource.backend_id, ("ada01",))])
    assert isinstance(outcome.error, TemporaryError)


def test_what_is_paused_is_read_alone_afterwards(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"))
    with testbed.agent() as site:
        assert isinstance(site.backend, SlurmBackend)
        (outcome,) = site.backend.apply([SetAccess(resource.backend_id, Access.PAUSED)])
    assert outcome.result is Result.DONE
    assert not [line for line in commands(testbed) if line.endswith(WHOLE)]
