"""Answers that get lost, of Slurm and of Waldur, while what was asked for has happened."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import SimulatedSite, a_simulated_site
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent_slurm.client import CommandTimedOutError
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import SimAccount

ON_QOS: dict[str, Any] = {
    "qos_management": {"enabled": True, "skip_qos_swap": True, "apply_limits_to_qos": True},
    "qos_paused": "",
    "qos_downscaled": "",
}
FLATTEST = {"parent_account": "hpc", "parent_account_holds": "allocations"}
GRANTED = {
    "enforce_offering_partitions": True,
    "qos_enforcement_enabled": True,
    "allowed_qos": ["high"],
}


@dataclass
class Story:
    """What an agent does, and what must be so in the end."""

    settings: dict[str, Any]
    prepare: Callable[[SimulatedSite], SimulatedSite]
    """Until the agent has something to do; returns the site with that agent."""
    is_done: Callable[[SimulatedSite], None]


def run(site: SimulatedSite) -> None:
    """Everything that the agent's modes do, as far as it gets."""
    for job in (site.cycle, site.sync):
        with contextlib.suppress(TemporaryError):
            job()


def ordered(site: SimulatedSite) -> SimulatedSite:
    with site.slurm.change() as state:
        state.accounts["hpc"] = SimAccount("hpc", "hpc", "hpc", "root")
        state.qos.append("high")
    side = site.sandbox.customer
    side.set_partitions({"gpu": (), "cpu": ()}, plugin_options={"enforce_qos": True})
    side.place_create_order(site.project(ada="ada01"), "run", {"cpu": 10}, {"qos": "high"})
    return site


def created(site: SimulatedSite) -> SimulatedSite:
    run(ordered(site))
    return site


def terminated(site: SimulatedSite) -> SimulatedSite:
    site = created(site)
    site.sandbox.customer.place_terminate_order(only_resource(site))
    return site


def paused(site: SimulatedSite) -> SimulatedSite:
    site = created(site)
    with site.slurm.change() as state:
        state.accounts[only_resource(site).backend_id].submit_limit = 7
    site.sandbox.customer.set_flags(only_resource(site), paused=True)
    return site


def lost(site: SimulatedSite) -> SimulatedSite:
    site = created(site)
    site.slurm = SimulatedSlurm()
    return site.with_(recreate=True)


def only_resource(site: SimulatedSite) -> Any:
    (resource,) = site.sandbox.customer.world.resources.values()
    return resource


def is_there(site: SimulatedSite) -> None:
    resource, state = only_resource(site), site.slurm.state
    assert resource.state == "OK"
    account = state.accounts[resource.backend_id]
    assert set(account.members) == {"ada01"}
    limits = state.qos_limits.get(resource.backend_id) or account.limits
    assert limits == {"cpu": 600000}
    if site.settings.get("qos_management"):
        assert account.default_qos == account.name
    if site.settings == GRANTED:
        member = account.members["ada01"]
        assert (member.partitions, member.qos) == (["cpu", "gpu"], ["high"])


def is_gone(site: SimulatedSite) -> None:
    assert only_resource(site).state == "Terminated"
    assert site.accounts - {"hpc", "c_uni"} == set()
    assert only_resource(site).backend_id not in site.slurm.state.qos


def is_paused(site: SimulatedSite) -> None:
    resource = only_resource(site)
    assert site.slurm.state.accounts[resource.backend_id].submit_limit == 0
    site.sandbox.customer.set_flags(resource, paused=False)
    site.sync()
    assert site.slurm.state.accounts[resource.backend_id].submit_limit == 7


STORIES = {
    "create in the flattest tree": Story(FLATTEST, ordered, is_there),
    "create with a QOS": Story(ON_QOS, ordered, is_there),
    "create with grants": Story(GRANTED, ordered, is_there),
    "terminate in the flattest tree": Story(FLATTEST, terminated, is_gone),
    "terminate with a QOS": Story(ON_QOS, terminated, is_gone),
    "pause by limit": Story({"qos_paused": ""}, paused, is_paused),
    "recreate": Story({}, lost, is_there),
    "recreate with a QOS": Story(ON_QOS, lost, is_there),
}


@dataclass
class Losses:
    """Carries out every command, but never says what became of one that writes."""

    at: int
    writes: list[Sequence[str]] = field(default_factory=list)

    def runner(self, inner: Runner) -> Runner:
        """A way to Slurm on which that answer gets lost."""
        return _Losing(self, inner)


@dataclass
class _Losing:
    losses: Losses
    inner: Runner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self.inner.run(argv, timeout)
        if list(argv[:2]) == ["sacctmgr", "-i"]:
            self.losses.writes.append(argv)
            if len(self.losses.writes) == self.losses.at:
                raise CommandTimedOutError(f"{' '.join(argv)} did not end in time")
        return result


@pytest.mark.parametrize("name", STORIES)
def test_an_answer_of_slurm_that_gets_lost_changes_nothing_in_the_end(
    tmp_path: Path, name: str
) -> None:
    story, at, writes = STORIES[name], 0, 1
    while at <= writes:
        with a_simulated_site(tmp_path / f"{at}.lock") as bare:
            site = story.prepare(bare.with_(settings=story.settings))
            losses = Losses(at)
            run(site.with_(runner=losses.runner))
            if at == 0:
                writes = len(losses.writes)
                assert writes > 0
            run(site)
            run(site)
            story.is_done(site)
            assert not site.sandbox.requests.count("*_set_state_erred"), at
        at += 1


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
@pytest.mark.parametrize("name", STORIES)
def test_an_answer_of_waldur_that_gets_lost_changes_nothing_in_the_end(
    tmp_path: Path, name: str, kind: Any
) -> None:
    story = STORIES[name]
    for operation in ("approve_by_provider", "set_backend_id", "set_state_done",
                      "set_backend_metadata", "set_as_ok", "refresh_last_sync"):  # fmt: skip
        with a_simulated_site(tmp_path / f"{operation}.lock") as bare:
            site = story.prepare(bare.with_(settings=story.settings))
            site.sandbox.faults.add(f"*_{operation}", kind)
            for _ in range(3):
                run(site)
            site.sandbox.faults.clear()
            story.is_done(site)
            assert not site.sandbox.requests.count("*_set_state_erred"), operation
