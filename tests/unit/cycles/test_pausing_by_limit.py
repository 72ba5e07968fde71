"""Sites without a paused QOS: GrpSubmitJobs=0 pauses accounts, and their own limit comes back."""

from __future__ import annotations

import pytest

from harness import KilledError, KillSwitch, SimulatedSite
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator.state import SimAccount

NO_PAUSED_QOS = {"qos_paused": ""}


@pytest.fixture
def site(testbed: SimulatedSite) -> SimulatedSite:
    return testbed.with_(settings=NO_PAUSED_QOS)


def account_of(site: SimulatedSite, resource: Resource) -> SimAccount:
    return site.slurm.state.accounts[resource.backend_id]


def flags(site: SimulatedSite, resource: Resource, **flags: bool) -> None:
    site.sandbox.customer.set_flags(resource, **{"paused": False, "downscaled": False} | flags)


def settled(site: SimulatedSite, submit_limit: int | None = None) -> Resource:
    """A resource whose account has a limit of the site's own."""
    resource = site.settled(site.project(ada="ada01"), cpu=1)
    with site.slurm.change() as state:
        state.accounts[resource.backend_id].submit_limit = submit_limit
    return resource


@pytest.mark.parametrize("own", [None, 7])
def test_a_paused_account_lets_no_jobs_in_and_gets_its_own_limit_back(
    site: SimulatedSite, own: int | None
) -> None:
    resource = settled(site, own)
    flags(site, resource, paused=True)
    assert not site.sync().failed
    assert account_of(site, resource).submit_limit == 0
    assert account_of(site, resource).qos == []
    flags(site, resource)
    assert not site.sync().failed
    assert account_of(site, resource).submit_limit == own
    metadata = site.sandbox.customer.current(resource).backend_metadata
    assert not [key for key in metadata if key.endswith("_before")]


def test_a_pass_without_news_writes_nothing_to_a_paused_account(site: SimulatedSite) -> None:
    resource = settled(site)
    flags(site, resource, paused=True)
    site.sync()
    site.forget()
    report = site.sync()
    assert not report.membership.plan
    assert site.writing_commands == 0
    assert site.sandbox.requests.writes() == []


def test_an_account_that_was_closed_by_an_earlier_agent_is_opened_again(
    site: SimulatedSite,
) -> None:
    resource = settled(site, 0)
    flags(site, resource, paused=True)
    assert not site.sync().failed
    flags(site, resource)
    site.sync()
    assert account_of(site, resource).submit_limit is None


def test_an_account_that_the_site_closed_stays_closed(site: SimulatedSite) -> None:
    resource = settled(site, 0)
    assert not site.sync().membership.plan
    assert account_of(site, resource).submit_limit == 0


def test_from_downscaled_to_paused_and_back_to_normal(site: SimulatedSite) -> None:
    resource = settled(site, 7)
    found = []
    for wanted in ("downscaled", "paused", "downscaled", "paused", ""):
        flags(site, resource, **({wanted: True} if wanted else {}))
        assert not site.sync().failed
        account = account_of(site, resource)
        found.append((account.submit_limit, account.qos, account.default_qos))
    limited = ["limited"]
    assert found == [
        (7, limited, "limited"),
        (0, limited, "limited"),
        (7, limited, "limited"),
        (0, limited, "limited"),
        (7, [], ""),
    ]


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_step_of_a_pause_the_limit_of_the_site_comes_back(
    site: SimulatedSite, after_effect: bool
) -> None:
    resource = settled(site, 7)
    number, steps = 0, 1
    while number <= steps:
        flags(site, resource, paused=True)
        blade = KillSwitch(at=number, after_effect=after_effect)
        agent = site.with_(runner=blade.runner, transport=blade.transport)
        if number == 0:
            agent.sync()
            steps = len(blade.steps)
        else:
            with pytest.raises(KilledError):
                agent.sync()
            site.sync()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert account_of(site, resource).submit_limit == 0, where
        flags(site, resource)
        site.sync()
        assert account_of(site, resource).submit_limit == 7, where
        number += 1
    assert steps > 5
