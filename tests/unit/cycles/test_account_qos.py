"""``qos_management``: each account has a QOS of its own, from the order to the termination."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.settings import SlurmSettings
from waldur_site_agent_slurm.simulator.state import SimAccount

OWN = {"qos_management": {"enabled": True, "grp_tres": "cpu=100", "max_jobs": 5}}
KEPT = {
    "qos_management": {"enabled": True, "skip_qos_swap": True, "additional_qos": ["limited"]},
    "qos_paused": "",
    "qos_downscaled": "",
}
ON_QOS = KEPT | {
    "qos_management": {"enabled": True, "skip_qos_swap": True, "apply_limits_to_qos": True}
}


def account_of(site: SimulatedSite, resource: Resource) -> SimAccount:
    return site.slurm.state.accounts[resource.backend_id]


def qos_of(site: SimulatedSite, resource: Resource) -> tuple[list[str], str]:
    account = account_of(site, resource)
    return account.qos, account.default_qos


def test_a_new_account_has_its_own_qos_as_default_beside_what_it_inherits(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings=OWN)
    resource = site.created(site.project(ada="ada01"), cpu=10)
    name = resource.backend_id
    assert qos_of(site, resource) == (sorted([name, "normal"]), name)
    columns = site.slurm.state.qos_columns[name]
    assert (columns["flags"], columns["grptres"]) == ("DenyOnLimit,NoDecay", "cpu=100")
    assert columns["maxjobspu"] == "5"
    assert account_of(site, resource).limits == {"cpu": 600000}


def test_a_membership_pass_leaves_the_qos_and_a_pause_gives_it_back(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings=OWN)
    resource = site.settled(site.project(ada="ada01"), cpu=10)
    own = qos_of(site, resource)
    assert not site.sync().membership.plan
    site.sandbox.customer.set_flags(resource, paused=True)
    site.sync()
    assert qos_of(site, resource) == (["paused"], "paused")
    site.sandbox.customer.set_flags(resource, paused=False)
    assert not site.sync().failed
    assert qos_of(site, resource) == own


def test_an_account_paused_by_an_earlier_agent_gets_its_own_qos_back(
    testbed: SimulatedSite,
) -> None:
    site = testbed.with_(settings=OWN)
    resource = site.settled(site.project(ada="ada01"), cpu=10)
    own = qos_of(site, resource)
    with site.slurm.change() as state:
        account = state.accounts[resource.backend_id]
        account.qos, account.default_qos = ["paused"], "paused"
    site.sandbox.customer.set_flags(resource, paused=True)
    site.sync()
    site.sandbox.customer.set_flags(resource, paused=False)
    site.sync()
    assert qos_of(site, resource) == own


@pytest.mark.parametrize("flag", ["paused", "downscaled"])
def test_with_skip_qos_swap_the_qos_stays_and_the_limit_pauses(
    testbed: SimulatedSite, flag: str
) -> None:
    site = testbed.with_(settings=KEPT)
    resource = site.settled(site.project(ada="ada01"), cpu=10)
    own = qos_of(site, resource)
    assert own == (sorted([resource.backend_id, "limited", "normal"]), resource.backend_id)
    site.sandbox.customer.set_flags(resource, **{flag: True})
    site.sync()
    assert (qos_of(site, resource), account_of(site, resource).submit_limit) == (own, 0)
    site.sandbox.customer.set_flags(resource, **{flag: False})
    site.sync()
    assert (qos_of(site, resource), account_of(site, resource).submit_limit) == (own, None)


def test_limits_are_those_of_the_qos_in_both_directions(testbed: SimulatedSite) -> None:
    site = testbed.with_(settings=ON_QOS)
    resource = site.settled(site.project(ada="ada01"), cpu=10, mem=2)
    name = resource.backend_id
    assert account_of(site, resource).limits == {}
    assert site.slurm.state.qos_limits[name] == {"cpu": 600000, "mem": 122880}
    assert not site.sync().membership.plan
    update = site.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    site.cycle()
    assert site.state(update) == "done"
    assert site.slurm.state.qos_limits[name]["cpu"] == 1200000
    with site.slurm.change() as state:
        state.qos_limits[name]["cpu"] = 300000
    assert not site.sync().failed
    assert site.sandbox.customer.current(resource).limits == {"cpu": 5, "mem": 2}


def test_an_update_waits_while_the_account_has_no_qos(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    site = testbed.with_(settings=ON_QOS)
    order = site.sandbox.customer.place_update_order(resource, {"cpu": 20})
    (result,) = site.cycle().results
    assert f"sacctmgr add qos {resource.backend_id}" in result.reason
    assert site.state(order) == "executing"


def test_a_qos_that_is_not_the_accounts_own_is_refused_and_stays(testbed: SimulatedSite) -> None:
    site = testbed.with_(settings=OWN | {"allocation_prefix": "x"})
    order = site.order(site.project(ada="ada01"), "run", cpu=1)
    name = f"x{site.resource(order).slug}"
    with site.slurm.change() as state:
        state.qos.append(name)
    site.cycle()
    assert site.state(order) == "erred"
    assert "was not made for this account" in site.sandbox.customer.current(order).error_message
    assert name in site.slurm.state.qos
    assert name not in site.accounts


@pytest.mark.parametrize("marked", [True, False], ids=["made by us", "made by version 1"])
def test_a_termination_removes_the_qos_too(testbed: SimulatedSite, marked: bool) -> None:
    site = testbed.with_(settings=OWN)
    resource = site.settled(site.project(ada="ada01"), cpu=10)
    if not marked:
        with site.slurm.change() as state:
            state.qos_columns[resource.backend_id]["descr"] = resource.backend_id
    site.sandbox.customer.place_terminate_order(resource)
    assert not site.cycle().failed
    assert site.accounts == {"c_uni"}
    assert site.slurm.state.qos == ["normal", "limited", "paused"]


def test_a_qos_of_the_site_with_the_name_of_an_account_survives_it(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    with testbed.slurm.change() as state:
        state.qos.append(resource.backend_id)
    site = testbed.with_(settings=OWN)
    site.sandbox.customer.place_terminate_order(resource)
    assert not site.cycle().failed
    assert resource.backend_id in site.slurm.state.qos


@pytest.mark.parametrize("settings", [OWN, ON_QOS], ids=["limits of accounts", "limits of QOS"])
def test_a_kept_account_loses_its_qos_and_gets_a_new_one_when_it_is_restored(
    testbed: SimulatedSite, settings: dict[str, Any]
) -> None:
    site = testbed.with_(settings=settings | {"soft_delete": True})
    resource = site.settled(site.project(ada="ada01"), cpu=10)
    own = qos_of(site, resource)
    side = site.sandbox.customer
    side.place_terminate_order(resource)
    assert not site.cycle().failed
    assert account_of(site, resource).members == {}
    assert (qos_of(site, resource), len(site.slurm.state.qos)) == (([], ""), 3)
    order = side.place_restore_order(side.current(resource))
    report = site.cycle()
    assert not report.failed, report.results
    assert site.state(order) == "done"
    assert qos_of(site, resource) == own
    limits = site.slurm.state.qos_limits[resource.backend_id] or account_of(site, resource).limits
    assert limits == {"cpu": 600000}
    assert site.members_of(resource) == {"ada01"}


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", ["create", "terminate", "terminate what version 1 made"])
def test_killed_at_any_step_account_and_qos_are_both_there_or_both_gone(
    tmp_path: Path, story: str, after_effect: bool
) -> None:
    with a_simulated_site(tmp_path / "lock") as bare:
        begun = bare.with_(settings=ON_QOS)
        order = begun.order(begun.project(ada="ada01"), "Ocean", cpu=10)
        if story != "create":
            begun.cycle()
            resource = begun.resource(order)
            if "version 1" in story:
                with begun.slurm.change() as state:
                    state.qos_columns[resource.backend_id]["descr"] = "x"
            order = begun.sandbox.customer.place_terminate_order(resource)
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
        assert not site.sandbox.requests.count("*_set_state_erred"), where
        own = set(site.slurm.state.qos) - {"normal", "limited", "paused"}
        if story == "create":
            name = site.resource(order).backend_id
            assert own == {name}, where
            assert qos_of(site, site.resource(order))[1] == name, where
            assert site.slurm.state.qos_limits[name] == {"cpu": 600000}, where
        else:
            assert (own, site.accounts) == (set(), {"c_uni"}), where
        number += 1
    assert steps > 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"qos_management": {"apply_limits_to_qos": True}}, "needs enabled: true"),
        ({"qos_management": {"skip_qos_swap": True}, "qos_paused": "p"}, "qos_paused are both"),
        ({"qos_management": {"skip_qos_swap": True}, "qos_default": "normal"}, "qos_default are"),
        ({"qos_management": {"grp_tres": "cpu=abc"}}, "grp_tres"),
        ({"qos_management": {"max_wall": "tomorrow"}}, "max_wall"),
        ({"qos_management": {"flags": "DenyOnLimit, x=1"}}, "flags"),
        ({"qos_management": {"additional_qos": ["a,b"]}}, "additional_qos"),
    ],
)
def test_settings_that_contradict_each_other_or_slurm_misreads_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        SlurmSettings.model_validate(settings)


@pytest.mark.parametrize(
    "values",
    [
        {"max_wall": 60},
        {"max_wall": "1-12:30:00"},
        {"max_wall": "12:00"},
        {"min_tres_per_job": "cpu=1,gres/gpu:a100=1", "grp_tres": "mem=10G"},
        {"flags": ""},
        {"additional_qos": None, "grp_tres": None},
    ],
)
def test_values_that_slurm_reads_are_accepted(values: dict[str, Any]) -> None:
    SlurmSettings.model_validate({"qos_management": values})
