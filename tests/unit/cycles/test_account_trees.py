"""Every shape of the account tree, from the order to the termination."""

from __future__ import annotations

from typing import Any

import pytest

from harness import SimulatedSite
from waldur_site_agent.backends import CheckStatus
from waldur_site_agent.cycles.importing import importable
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator.state import SimAccount

FLAT = {"parent_account": "hpc"}
FLATTER = {**FLAT, "parent_account_holds": "allocations"}
ROOTED = {"root_account": "orgs", "default_account": "everybody"}


def site_with(testbed: SimulatedSite, **settings: Any) -> SimulatedSite:
    """The same site with an account of its own for each key that names one."""
    with testbed.slurm.change() as state:
        for key in ("root_account", "parent_account", "default_account"):
            name = settings.get(key)
            if name and name not in state.accounts:
                state.accounts[name] = SimAccount(name, name, name, "root")
    return testbed.with_(settings=settings)


def tree_of(testbed: SimulatedSite, resource: Resource) -> list[tuple[str, str]]:
    """The resource's account and those above it, each with its organization."""
    found = []
    accounts = testbed.slurm.state.accounts
    account = accounts[resource.backend_id]
    while account.name != "root":
        found.append((account.name, account.organization))
        account = accounts[account.parent]
    return found


def test_customers_are_made_below_root_account_and_users_get_default_account(
    testbed: SimulatedSite,
) -> None:
    site = site_with(testbed, **ROOTED)
    resource = site.created(site.project(ada="ada01"))
    name = resource.backend_id
    assert tree_of(site, resource) == [
        (name, "p_climate"),
        ("p_climate", "p_climate"),
        ("c_uni", "c_uni"),
        ("orgs", "orgs"),
    ]
    assert site.slurm.state.users["ada01"].default_account == "everybody"


def test_a_flat_tree_has_projects_below_one_parent_and_no_customers(
    testbed: SimulatedSite,
) -> None:
    site = site_with(testbed, **FLAT)
    resource = site.created(site.project(ada="ada01"))
    assert tree_of(site, resource) == [
        (resource.backend_id, "p_climate"),
        ("p_climate", "p_climate"),
        ("hpc", "hpc"),
    ]
    assert "c_uni" not in site.accounts


def test_the_flattest_tree_has_resources_below_one_parent_and_nothing_else(
    testbed: SimulatedSite,
) -> None:
    site = site_with(testbed, **FLATTER)
    resource = site.created(site.project(ada="ada01"))
    assert tree_of(site, resource) == [(resource.backend_id, "p_climate"), ("hpc", "hpc")]
    assert site.accounts == {"hpc", resource.backend_id}


@pytest.mark.parametrize("settings", [ROOTED, FLAT, FLATTER], ids=["rooted", "flat", "flattest"])
def test_a_termination_takes_what_was_made_and_leaves_what_the_site_made(
    testbed: SimulatedSite, settings: dict[str, Any]
) -> None:
    site = site_with(testbed, **settings)
    before = site.accounts
    resource = site.created(site.project(ada="ada01"))
    site.sandbox.customer.place_terminate_order(resource)
    report = site.cycle()
    assert not report.failed
    assert site.accounts - {"c_uni"} == before


@pytest.mark.parametrize("settings", [FLAT, FLATTER], ids=["flat", "flattest"])
def test_the_parent_of_a_flat_tree_stays_when_a_resource_was_deleted_by_somebody_else(
    testbed: SimulatedSite, settings: dict[str, Any]
) -> None:
    site = site_with(testbed, **settings)
    resource = site.created(site.project(ada="ada01"))
    with site.slurm.change() as state:
        del state.accounts[resource.backend_id]
    site.sandbox.customer.place_terminate_order(resource)
    assert not site.cycle().failed
    assert site.accounts == {"hpc"}


def test_accounts_made_before_the_tree_became_flat_are_served_and_deleted(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    old = testbed.created(project, "old", cpu=1)
    site = site_with(testbed, **FLAT)
    assert not site.sync().failed
    new = site.created(project, "new", cpu=1)
    assert [name for name, _ in tree_of(site, new)] == [new.backend_id, "p_climate", "c_uni"]
    for resource in (old, new):
        site.sandbox.customer.place_terminate_order(resource)
    assert not site.cycle().failed
    assert site.accounts == {"hpc", "c_uni"}


@pytest.mark.parametrize("settings", [FLAT, FLATTER], ids=["flat", "flattest"])
def test_an_account_that_an_interrupted_run_made_is_adopted(
    testbed: SimulatedSite, settings: dict[str, Any]
) -> None:
    site = site_with(testbed, **settings)
    order = site.order(site.project(ada="ada01"), cpu=1)
    name = f"a_{site.resource(order).slug}"
    parent = "p_climate" if settings is FLAT else "hpc"
    with site.slurm.change() as state:
        state.accounts.setdefault(
            "p_climate", SimAccount("p_climate", "p_climate", "p_climate", "hpc")
        )
        state.accounts[name] = SimAccount(name, name, "p_climate", parent)
    site.cycle()
    assert site.state(order) == "done"
    assert site.resource(order).backend_id == name


def test_an_account_of_another_project_below_the_same_parent_is_not_taken(
    testbed: SimulatedSite,
) -> None:
    site = site_with(testbed, **FLATTER)
    order = site.order(site.project(ada="ada01"), cpu=1)
    name = f"a_{site.resource(order).slug}"
    with site.slurm.change() as state:
        state.accounts[name] = SimAccount(name, name, "p_ocean", "hpc")
    site.cycle()
    assert site.state(order) == "erred"
    assert (
        'organization "p_ocean", not "p_climate"'
        in site.sandbox.customer.current(order).error_message
    )
    assert site.slurm.state.accounts[name].organization == "p_ocean"


def test_accounts_below_one_parent_are_offered_to_the_project_of_their_organization(
    testbed: SimulatedSite,
) -> None:
    site = site_with(testbed, **FLATTER)
    site.created(site.project("climate", ada="ada01"))
    site.created(site.project("ocean", ada="ada01"))
    with site.slurm.change() as state:
        for name, organization in (("a_old", "p_ocean"), ("a_odd", "p_unknown")):
            state.accounts[name] = SimAccount(name, name, organization, "hpc")
    with site.agent() as agent:
        plan = importable(agent)
    assert [(offer.account, offer.project.slug) for offer in plan.offers] == [("a_old", "ocean")]


def test_a_parent_that_does_not_exist_keeps_the_order_waiting_and_is_named(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings=FLAT)
    order = site.order(site.project(ada="ada01"), cpu=1)
    (result,) = site.cycle().results
    assert "'hpc' above it does not exist" in result.reason
    assert "set another parent_account" in result.reason
    assert site.state(order) == "executing"
    with site.agent() as agent:
        failed = [c.name for c in agent.backend.diagnose() if c.verdict is CheckStatus.FAILED]
    assert failed[0] == "parent_account"


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    [("common", "everybody", "everybody"), ("individual", "a", "b"), ("none", "a", "a")],
)
def test_the_default_account_of_members_follows_the_policy(
    testbed: SimulatedSite, policy: str, first: str, second: str
) -> None:
    site = site_with(testbed, default_account="everybody", default_account_policy=policy)
    project = site.project(ada="ada01")
    one = site.created(project, "one", cpu=1)
    names = {"a": one.backend_id}
    assert site.slurm.state.users["ada01"].default_account == names.get(first, first)
    names["b"] = site.created(project, "two", cpu=1).backend_id
    assert site.slurm.state.users["ada01"].default_account == names.get(second, second)
    is_in_default = "ada01" in site.slurm.state.accounts["everybody"].members
    assert is_in_default is (policy == "common")


@pytest.mark.parametrize("policy", ["individual", "none"])
def test_who_leaves_the_default_account_gets_another_one(
    testbed: SimulatedSite, policy: str
) -> None:
    site = testbed.with_(settings={"default_account_policy": policy})
    one, two = site.project("climate", ada="ada01"), site.project("ocean", ada="ada01")
    kept = site.settled(one, "kept", cpu=1)
    left = site.settled(two, "left", cpu=1)
    with site.slurm.change() as state:
        state.users["ada01"].default_account = left.backend_id
    site.sandbox.customer.remove_member(two, "ada")
    assert not site.sync().failed
    assert site.members_of(left) == set()
    assert site.slurm.state.users["ada01"].default_account == kept.backend_id
