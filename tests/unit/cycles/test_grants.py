"""Partitions and QOS of new members, from the offering and from the order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent_sandbox import Order, Resource
from waldur_site_agent_sandbox.records import JsonObject
from waldur_site_agent_slurm.simulator.state import SimMembership

PARTITIONS = {"enforce_offering_partitions": True}
ENFORCED = {
    "qos_enforcement_enabled": True,
    "enforce_offering_qos": True,
    "allowed_qos": ["High", "unheard"],
}


def offering_with(
    testbed: SimulatedSite, *names: str, qos: dict[str, tuple[str, ...]] | None = None, **more: Any
) -> None:
    partitions = dict.fromkeys(names, ()) | (qos or {})
    testbed.sandbox.customer.set_partitions(partitions, **more)
    with testbed.slurm.change() as state:
        state.qos += ["high", "long"]


def ordered(testbed: SimulatedSite, **attributes: str) -> Order:
    project = testbed.project(ada="ada01", bob="bob01")
    wanted: JsonObject = {**attributes}
    return testbed.sandbox.customer.place_create_order(project, "run", {"cpu": 10}, wanted)


def membership(testbed: SimulatedSite, resource: Resource, user: str = "ada01") -> SimMembership:
    return testbed.slurm.state.accounts[resource.backend_id].members[user]


def created(testbed: SimulatedSite, **attributes: str) -> Resource:
    order = ordered(testbed, **attributes)
    report = testbed.cycle()
    assert not report.failed, report.results
    return testbed.resource(order)


def test_members_get_an_association_for_each_partition_of_the_offering(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings=PARTITIONS | {"default_partition": "debug"})
    offering_with(testbed, "gpu", "CPU")
    resource = created(site)
    assert membership(site, resource).partitions == ["cpu", "gpu"]
    site.sandbox.customer.add_member("climate", site.person("cyd", "cyd01"))
    dry = site.sync(dry_run=True)
    (step,) = dry.membership.plan.steps
    assert str(step.action.grant) == "partition cpu,gpu"  # type: ignore[union-attr]
    assert not site.sync().failed
    assert membership(site, resource, "cyd01").partitions == ["cpu", "gpu"]


def test_the_default_partition_counts_where_the_offering_has_none(testbed: SimulatedSite) -> None:
    site = testbed.with_(settings=PARTITIONS | {"default_partition": "Debug"})
    resource = created(site)
    assert membership(site, resource).partitions == ["debug"]


def test_members_who_are_there_keep_the_associations_that_they_have(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"), cpu=1)
    site = testbed.with_(settings=PARTITIONS)
    offering_with(testbed, "gpu")
    report = site.sync()
    assert not report.failed
    assert membership(site, resource).partitions == [""]


@pytest.mark.parametrize(("setting", "share"), [("own", ""), ("parent", "parent")])
def test_new_members_have_a_share_of_their_own_or_that_of_their_account(
    testbed: SimulatedSite, setting: str, share: str
) -> None:
    resource = created(testbed.with_(settings={"fairshare_of_members": setting}))
    assert membership(testbed, resource).fairshare == share


@pytest.mark.parametrize("name", ["a b", "x,y", "p[1-3]"])
def test_a_partition_that_is_no_name_adds_nobody_and_removes_nobody(
    testbed: SimulatedSite, name: str
) -> None:
    site = testbed.with_(settings=PARTITIONS)
    project = site.project(ada="ada01", bob="bob01")
    resource = site.settled(project, cpu=1)
    offering_with(testbed, name)
    site.sandbox.customer.add_member(project, site.person("cyd", "cyd01"))
    site.sandbox.customer.remove_member(project, "bob")
    report = site.sync()
    (failure,) = report.failures
    assert "cyd01 not added" in failure
    assert "cannot be used in Slurm" in failure
    assert site.members_of(resource) == {"ada01"}
    site.sandbox.customer.remove_member(project, "cyd")
    assert not site.sync().failed


def test_the_ordered_qos_and_partition_are_those_of_the_members(testbed: SimulatedSite) -> None:
    site = testbed.with_(settings=ENFORCED)
    offering_with(testbed, "gpu", "cpu", qos={"gpu": ("high",)})
    resource = created(site, qos="High", partition="gpu")
    found = membership(site, resource)
    assert (found.partitions, found.qos, found.default_qos) == (["gpu"], ["high"], "high")
    site.sandbox.customer.add_member("climate", site.person("cyd", "cyd01"))
    assert not site.sync().failed
    assert membership(site, resource, "cyd01").qos == ["high"]


@pytest.mark.parametrize(
    ("setting", "option", "given"),
    [
        (True, False, True),
        (False, True, False),
        (None, True, True),
        (None, False, False),
        (None, None, False),
    ],
)
def test_setting_or_offering_decide_whether_the_ordered_qos_counts(
    testbed: SimulatedSite, setting: bool | None, option: bool | None, given: bool
) -> None:
    settings = ENFORCED | {"enforce_offering_qos": setting}
    site = testbed.with_(settings=settings)
    options = {} if option is None else {"enforce_qos": option}
    offering_with(testbed, plugin_options=options)
    resource = created(site, qos="high")
    assert membership(site, resource).qos == (["high"] if given else [])


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"qos": "urgent"}, "asks for the QOS 'urgent', which the offering does not have"),
        ({"qos": "high", "partition": "big"}, "asks for the partition 'big'"),
        ({"qos": "high,normal"}, "cannot be used in Slurm"),
        ({"qos": "long", "partition": "gpu"}, "asks for the QOS 'long'"),
    ],
)
def test_an_order_for_what_the_offering_does_not_have_fails_before_anything_is_made(
    testbed: SimulatedSite, attributes: dict[str, str], words: str
) -> None:
    site = testbed.with_(settings=ENFORCED)
    offering_with(testbed, "gpu", "cpu", qos={"gpu": ("high",), "cpu": ("high", "long")})
    order = ordered(site, **attributes)
    site.cycle()
    assert site.state(order) == "erred"
    assert words in site.sandbox.customer.current(order).error_message
    assert site.accounts == set()


@pytest.mark.parametrize(
    ("settings", "attributes", "words"),
    [
        ({"allowed_qos": []}, {"qos": "high"}, "list it at the offering in Waldur, or in backend"),
        ({}, {"qos": "long"}, "asks for the QOS 'long'"),
        ({"default_partition": "cpu"}, {"qos": "high", "partition": "gpu"}, "partition 'gpu'"),
        ({"allowed_partitions": ["cpu"]}, {"qos": "high", "partition": "gpu"}, "partition 'gpu'"),
    ],
)
@pytest.mark.guarantee("security: Threat model")
def test_nobody_orders_a_qos_or_a_partition_that_nothing_lists(
    testbed: SimulatedSite, settings: dict[str, Any], attributes: dict[str, str], words: str
) -> None:
    """Waldur's API takes any, and before Waldur 8.0 no offering lists them."""
    site = testbed.with_(settings=ENFORCED | settings)
    with testbed.slurm.change() as state:
        state.qos += ["high", "long"]
    order = ordered(site, **attributes)
    site.cycle()
    assert site.state(order) == "erred"
    assert words in site.sandbox.customer.current(order).error_message
    assert site.accounts == set()


@pytest.mark.parametrize("settings", [{}, {"allowed_partitions": ["GPU"]}])
def test_what_the_file_allows_can_be_ordered_where_the_offering_lists_nothing(
    testbed: SimulatedSite, settings: dict[str, Any]
) -> None:
    site = testbed.with_(settings=ENFORCED | settings)
    offering_with(testbed)
    found = membership(site, created(site, qos="high", partition="gpu"))
    assert (found.partitions, found.qos) == (["gpu"], ["high"])


def test_a_qos_that_slurm_does_not_have_keeps_members_out_and_is_named(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings=ENFORCED)
    order = ordered(site, qos="unheard")
    (result,) = site.cycle().results
    assert "sacctmgr add qos unheard" in result.reason
    assert (site.state(order), site.members(order)) == ("executing", set())
    with site.slurm.change() as state:
        state.qos.append("unheard")
    site.cycle()
    assert (site.state(order), site.members(order)) == ("done", {"ada01", "bob01"})


@pytest.mark.parametrize("flag", ["paused", "downscaled"])
def test_members_with_a_qos_of_their_own_are_paused_by_the_limit_of_the_account(
    testbed: SimulatedSite, flag: str
) -> None:
    site = testbed.with_(settings=ENFORCED)
    offering_with(testbed)
    resource = created(site, qos="high")
    site.sync()
    site.sandbox.customer.set_flags(resource, **{flag: True})
    assert not site.sync().failed
    account = site.slurm.state.accounts[resource.backend_id]
    assert (account.submit_limit, account.qos) == (0, [])
    assert membership(site, resource).qos == ["high"]
    site.forget()
    assert not site.sync().membership.plan
    assert site.writing_commands == 0
    site.sandbox.customer.set_flags(resource, **{flag: False})
    site.sync()
    assert site.slurm.state.accounts[resource.backend_id].submit_limit is None


def test_an_account_that_was_paused_by_qos_before_is_opened_again(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=1)
    testbed.sandbox.customer.set_flags(resource, paused=True)
    testbed.sync()
    assert testbed.slurm.state.accounts[resource.backend_id].qos == ["paused"]
    site = testbed.with_(settings=ENFORCED)
    assert not site.sync().failed
    site.sandbox.customer.set_flags(resource, paused=False)
    assert not site.sync().failed
    account = site.slurm.state.accounts[resource.backend_id]
    assert (account.qos, account.submit_limit) == ([], None)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_step_every_member_has_partitions_and_qos_in_the_end(
    tmp_path: Path, after_effect: bool
) -> None:
    with a_simulated_site(tmp_path / "lock") as bare:
        begun = bare.with_(settings=ENFORCED | PARTITIONS)
        offering_with(bare, "gpu", "cpu")
        order = ordered(begun, qos="high")
    number, steps = 0, 1
    while number <= steps:
        site = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=after_effect)
        agent = site.with_(runner=blade.runner, transport=blade.transport)
        if number == 0:
            agent.cycle()
            steps = len(blade.steps)
        else:
            with pytest.raises(KilledError):
                agent.cycle()
            site.cycle()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert site.state(order) == "done", where
        for user in ("ada01", "bob01"):
            found = membership(site, site.resource(order), user)
            given = (found.partitions, found.qos, found.default_qos)
            assert given == (["cpu", "gpu"], ["high"], "high"), where
        number += 1
    assert steps > 10
