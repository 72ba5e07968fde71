"""Budgets when the type of limit changes, beside prepaid limits, and beside unlisted accounts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from harness.budgets import START, a_budget, budget_of, next_quarter, resets, use
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator.jobs import counted

K_HOUR = 60_000
GPU = "gres/gpu"
GPU_HOURS = ComponentSettings.model_validate(
    {"measured_unit": "GPU-hours", "unit_factor": 60, "accounting_type": "one", "label": "GPU"}
)
SOLD = {"cpu": 10 * K_HOUR, "mem": 2 * 61440}


@pytest.fixture
def site(testbed: SimulatedSite) -> SimulatedSite:
    return a_budget(testbed)


def sold(site: SimulatedSite, name: str = "climate", **policy: Any) -> Resource:
    resource = site.created(site.project(name, ada="ada01"), name, cpu=10, mem=2)
    if not site.sandbox.customer.world.periodic_policies:
        site.sandbox.customer.add_periodic_policy(**{"grace_ratio": 0, **policy})
    site.sync()
    site.forget()
    return site.sandbox.customer.current(resource)


def change_policy(site: SimulatedSite, **changes: Any) -> None:
    (policy,) = site.sandbox.customer.world.periodic_policies.values()
    site.sandbox.customer.edit(policy, **changes)


def is_quiet(site: SimulatedSite) -> bool:
    site.forget()
    site.sync()
    return site.writing_commands == 0 and site.sandbox.requests.writes() == []


@pytest.mark.parametrize("there_and_back", [False, True])
def test_a_policy_that_comes_to_limit_single_jobs_leaves_no_budget_behind(
    site: SimulatedSite, there_and_back: bool
) -> None:
    resource = sold(site)
    before = budget_of(site, resource)
    assert before.keys() == {"cpu", "mem", "billing"}
    change_policy(site, limit_type="MaxTRESMins")
    site.sync()
    account = site.slurm.state.accounts[resource.backend_id]
    assert (account.limits, account.job_limits) == (SOLD, before)
    site.sync()
    assert is_quiet(site)
    if there_and_back:
        change_policy(site, limit_type="GrpTRESMins")
        site.sync()
        account = site.slurm.state.accounts[resource.backend_id]
        assert (account.limits, account.job_limits) == (before, {})
        site.sync()
        assert is_quiet(site)


@pytest.mark.guarantee("budgets: Killed at any step")
@pytest.mark.parametrize("first", ["GrpTRESMins", "MaxTRESMins"])
def test_a_change_of_the_limit_type_killed_at_any_step_leaves_no_limits_behind(
    tmp_path: Path, first: str
) -> None:
    with a_simulated_site(tmp_path / "lock") as plain:
        begun = a_budget(plain)
        resource = sold(begun, limit_type=first)
        billing = "billing" in begun.slurm.state.accounts[resource.backend_id].limits
        assert billing == (first == "GrpTRESMins")
        second = {"GrpTRESMins": "MaxTRESMins", "MaxTRESMins": "GrpTRESMins"}[first]
        change_policy(begun, limit_type=second, tres_billing_enabled=False)
    steps: list[str] = []
    for number in range(100, 0, -1):  # the first is not killed, and shows where the others are
        if steps and (number > len(steps) or not _writes(steps[number - 1])):
            continue
        site = begun.copy(tmp_path / f"{number}.lock")
        blade = KillSwitch(at=number, after_effect=False)
        with contextlib.suppress(KilledError):
            site.with_(runner=blade.runner, transport=blade.transport).sync()
        steps = steps or [*blade.steps]
        site.sync()
        site.sync()
        account = site.slurm.state.accounts[resource.backend_id]
        budget = {name: amount * 3 // 2 for name, amount in SOLD.items()}
        expected = (budget, {}) if first == "MaxTRESMins" else (SOLD, budget)
        assert (account.limits, account.job_limits) == expected, blade.steps[-1]
        assert is_quiet(site), blade.steps[-1]
    assert len([step for step in steps if _writes(step)]) >= 3


def _writes(step: str) -> bool:
    return "set_backend_metadata" in step or "modify account" in step


@pytest.mark.guarantee("budgets: What is set")
def test_what_was_prepaid_is_not_given_again_with_each_period(site: SimulatedSite) -> None:
    side = site.sandbox.customer
    other = site.created(site.project("ocean", bob="bob01"), "ocean", cpu=10, mem=2)
    side.add_component(GPU, "one", "GPU-hours", is_prepaid=True)
    site.components[GPU] = GPU_HOURS
    ends = (START + timedelta(days=180)).date()
    order = side.place_create_order(
        site.project(ada="ada01"), "run", {"cpu": 10, GPU: 10}, end_date=ends
    )
    site.cycle()
    name = site.resource(order).backend_id
    side.add_periodic_policy(grace_ratio=0, tres_billing_enabled=False)
    begin = site.sandbox.clock.now().replace(microsecond=0)
    site.slurm.run_job("ada01", name, {"cpu": 1, GPU: 10}, begin, begin + timedelta(hours=5))
    next_quarter(site)
    site.sync()
    account = site.slurm.state.accounts[name]
    assert counted(site.slurm.state, {name}, account.counted_since)[GPU] == 50 * 60
    assert f"what was prepaid ({GPU}) once more" in " ".join(site.sync().failures)
    assert budget_of(site, other)["cpu"] == 15 * K_HOUR
    change_policy(site, raw_usage_reset=False)
    site.sync()
    assert account.limits["cpu"] == 20 * K_HOUR - 5 * K_HOUR
    assert resets(site) == []


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_prepaid_limits_follow_the_end_date_beside_a_policy(
    site: SimulatedSite, limits: str
) -> None:
    site = site.with_(limits=limits)
    side = site.sandbox.customer
    side.add_component(GPU, "one", "GPU-hours", is_prepaid=True)
    site.components[GPU] = GPU_HOURS
    order = side.place_create_order(
        site.project(ada="ada01"),
        "run",
        {"cpu": 10, GPU: 10},
        end_date=START.date().replace(month=8),
    )
    site.cycle()
    resource = site.resource(order)
    side.add_periodic_policy(grace_ratio=0, tres_billing_enabled=False, raw_usage_reset=False)
    site.sync()
    assert budget_of(site, resource) == {"cpu": 15 * K_HOUR, GPU: 6 * 600}
    side.edit(side.current(resource), end_date=START.date().replace(month=11))
    site.sync()
    assert budget_of(site, resource) == {"cpu": 15 * K_HOUR, GPU: 9 * 600}
    assert is_quiet(site)


@pytest.mark.guarantee("budgets: Failures")
def test_an_account_that_slurmctld_does_not_list_holds_up_no_other(site: SimulatedSite) -> None:
    hidden, other = sold(site, "climate"), sold(site, "ocean")
    use(site, other, 8 * K_HOUR)
    next_quarter(site)
    report = site.with_(runner=lambda inner: _Hides(hidden.backend_id, inner)).sync()
    assert "does not list what it counts" in " ".join(report.failures)
    assert budget_of(site, other)["cpu"] == 12 * K_HOUR
    assert [name for _, name in resets(site)] == [other.backend_id]
    site.sync()
    assert is_quiet(site)


class _Hides:
    """An account is missing where slurmctld lists what it counts."""

    def __init__(self, account: str, inner: Runner) -> None:
        self._account, self._inner = account, inner

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        if "assoc_mgr" in argv:
            argv = [word.replace(self._account, "unknown") for word in argv]
        return self._inner.run(argv, timeout)


@pytest.mark.guarantee("budgets: Orders")
def test_an_order_sets_no_bare_limits_while_the_list_of_policies_is_empty_for_a_moment(
    site: SimulatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = sold(site)
    order = site.sandbox.customer.place_update_order(resource, {"cpu": 9, "mem": 2})
    monkeypatch.setattr("waldur_site_agent.cycles.budgets.terms_of", lambda _site: None)
    site.cycle()
    assert budget_of(site, resource)["cpu"] == 15 * K_HOUR
    monkeypatch.undo()
    site.cycle()
    assert site.state(order) == "done"
    assert budget_of(site, resource)["cpu"] == 9 * K_HOUR * 3 // 2


def restart(site: SimulatedSite, counted_since: int | None = None) -> None:
    """Slurmctld starts again, perhaps with a count that it had saved before."""
    with site.slurm.change() as cluster:
        cluster.configuration["BOOT_TIME"] = site.now().strftime("%Y-%m-%dT%H:%M:%S")
        for account in cluster.accounts.values():
            if counted_since is not None:
                account.counted_since = counted_since


@pytest.mark.guarantee("budgets: Carry-over and reset")
def test_a_reset_that_a_killed_slurmctld_has_forgotten_is_made_again(site: SimulatedSite) -> None:
    restart(site)
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    site.sync()
    assert len(resets(site)) == 1
    use(site, resource, 3 * K_HOUR)
    restart(site, counted_since=0)
    site.sync()
    account = site.slurm.state.accounts[resource.backend_id]
    rest = 12 * K_HOUR - 3 * K_HOUR
    assert len(resets(site)) == 2
    assert account.limits["cpu"] == rest
    assert counted(site.slurm.state, {account.name}, account.counted_since)["cpu"] == 0
    assert is_quiet(site)


def test_a_count_that_was_lost_is_taken_off_the_budget(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    restart(site, counted_since=int(site.now().timestamp()))
    site.sync()
    assert resets(site) == []
    assert budget_of(site, resource)["cpu"] == 7 * K_HOUR
    assert is_quiet(site)


def test_a_restart_of_slurmctld_that_loses_nothing_changes_no_budget(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    restart(site, counted_since=int((START + timedelta(minutes=1)).timestamp()))
    site.forget()
    site.sync()
    assert site.writing_commands == 0
    assert (resets(site), budget_of(site, resource)["cpu"]) == ([], 15 * K_HOUR)
    assert is_quiet(site)
