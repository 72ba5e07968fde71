"""Prepaid components: limits for all months at once, renewals, end dates that move."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog

from harness import SimulatedSite, a_simulated_site
from waldur_site_agent.cli.plan import report_text
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.account_check import check_account
from waldur_site_agent.cycles.limits import sync_resource_limits
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent_sandbox import Resource

GPU = "gres/gpu"
HOURS = ComponentSettings.model_validate(
    {"measured_unit": "GPU-hours", "unit_factor": 60, "accounting_type": "one", "label": "GPU"}
)


def in_months(number: int, start: date | None = None) -> date:
    """The same day some months later; the last one of a shorter month."""
    day = start or datetime.now(UTC).date()
    later = day.month - 1 + number
    year, month = day.year + later // 12, later % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    """A site that sells GPU-hours in advance, beside limits."""
    with a_simulated_site(tmp_path / "writer.lock") as made:
        made.sandbox.customer.add_component(GPU, "one", "GPU-hours", is_prepaid=True)
        made.components[GPU] = HOURS
        yield made


def bought(site: SimulatedSite, hours: int = 10, months: int = 6) -> Resource:
    side = site.sandbox.customer
    limits: dict[str, Any] = {"cpu": 1, GPU: hours}
    order = side.place_create_order(
        site.project(ada="ada01"), "run", limits, end_date=in_months(months)
    )
    site.cycle()
    assert site.state(order) == "done"
    return site.resource(order)


def gpu_minutes(site: SimulatedSite, resource: Resource) -> int:
    return site.slurm.state.accounts[resource.backend_id].limits[GPU]


def is_quiet(site: SimulatedSite) -> bool:
    site.sync()
    site.forget()
    site.cycle()
    site.sync()
    return site.writing_commands == 0 and site.sandbox.requests.writes() == []


def text_of_orders(site: SimulatedSite) -> str:
    return " ".join(report_text(site.cycle(dry_run=True)).split())


def text_of_members(site: SimulatedSite) -> str:
    return " ".join(report_text(site.sync(dry_run=True)).split())


@pytest.mark.parametrize("limits", ["backend", "waldur", "report"])
def test_an_account_gets_all_months_at_once_and_no_pass_counts_them_again(
    site: SimulatedSite, limits: str
) -> None:
    site = replace(site, limits=limits)
    resource = bought(site)
    assert gpu_minutes(site, resource) == 10 * 6 * 60
    for _ in range(3):
        site.sync()
    assert gpu_minutes(site, resource) == 10 * 6 * 60
    assert site.sandbox.customer.current(resource).limits == {"cpu": 1, GPU: 10}
    assert is_quiet(site)


@pytest.mark.parametrize("extends_when", ["approved", "done"])
@pytest.mark.parametrize("limits", ["backend", "waldur", "report"])
def test_a_resource_is_renewed_twice(
    site: SimulatedSite, limits: str, extends_when: Literal["approved", "done"]
) -> None:
    site, side = replace(site, limits=limits), site.sandbox.customer
    resource = bought(site)
    for months, minutes in ((9, 10 * 9 * 60), (21, 10 * 21 * 60)):
        order = side.place_renewal_order(
            resource, months - (6 if months == 9 else 9), extends_when=extends_when
        )
        site.cycle()
        assert site.state(order) == "done"
        assert gpu_minutes(site, resource) == minutes
        assert is_quiet(site)
        assert gpu_minutes(site, resource) == minutes
    assert side.current(resource).end_date == in_months(21)


def test_a_renewal_may_change_the_limit_for_all_months(site: SimulatedSite) -> None:
    resource = bought(site)
    limits: dict[str, Any] = {"cpu": 2, GPU: 20}
    site.sandbox.customer.place_renewal_order(resource, 6, limits)
    site.cycle()
    assert gpu_minutes(site, resource) == 20 * 12 * 60
    assert is_quiet(site)


def test_a_larger_limit_counts_for_the_months_that_were_bought(site: SimulatedSite) -> None:
    resource = bought(site)
    limits: dict[str, Any] = {"cpu": 1, GPU: 15}
    site.sandbox.customer.place_update_order(resource, limits)
    site.cycle()
    assert gpu_minutes(site, resource) == 15 * 6 * 60


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_an_end_date_that_moves_without_an_order_is_followed(
    site: SimulatedSite, limits: str
) -> None:
    site = replace(site, limits=limits)
    resource = bought(site)
    site.sandbox.customer.edit(resource, end_date=in_months(8))
    until = in_months(8)
    shown = text_of_members(site)
    assert (
        f"~ limit gres/gpu 3600 -> 4800 sold in Waldur: 10 GPU-hours a month for 8 months, "
        f"until {until}" in shown
    )
    site.sync()
    assert gpu_minutes(site, resource) == 10 * 8 * 60
    assert site.sandbox.customer.current(resource).limits == {"cpu": 1, GPU: 10}
    assert is_quiet(site)


def test_a_site_that_only_reports_differences_sees_an_end_date_that_moved(
    site: SimulatedSite,
) -> None:
    site = replace(site, limits="report")
    resource = bought(site)
    site.sandbox.customer.edit(resource, end_date=in_months(8))
    assert "for 8 months" in text_of_members(site)
    site.sync()
    assert gpu_minutes(site, resource) == 10 * 6 * 60


def test_what_somebody_types_for_a_prepaid_component_is_never_reported(
    site: SimulatedSite,
) -> None:
    resource = bought(site)
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    site.slurm.run(["sacctmgr", "-i", *words, "GrpTRESMins=gres/gpu=60,cpu=120000"])
    with site.agent() as agent:
        outcome = sync_resource_limits(agent)
    assert any("prepaid, so it follows Waldur" in remark for remark in outcome.remarks)
    assert site.sandbox.customer.current(resource).limits == {"cpu": 2, GPU: 10}
    site.sync()
    assert gpu_minutes(site, resource) == 10 * 6 * 60
    assert site.sandbox.customer.current(resource).limits == {"cpu": 2, GPU: 10}


def test_the_plan_of_an_order_says_why_a_limit_is_what_it_is(site: SimulatedSite) -> None:
    limits: dict[str, Any] = {"cpu": 1, GPU: 10}
    side = site.sandbox.customer
    until = in_months(6)
    side.place_create_order(site.project(ada="ada01"), "run", limits, end_date=until)
    assert (
        f"limit gres/gpu none -> 3600 ordered: 10 GPU-hours a month for 6 months, until {until}"
        in text_of_orders(site)
    )
    site.cycle()
    (resource,) = side.world.resources.values()
    side.place_renewal_order(resource, 1)
    assert (
        f"limit gres/gpu 3600 -> 4200 ordered: 10 GPU-hours a month for 7 months, "
        f"until {in_months(1, until)}" in text_of_orders(site)
    )


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_without_an_end_date_an_existing_limit_is_left_alone(
    site: SimulatedSite, limits: str
) -> None:
    """An answer without an end date must not cut what was paid for to one month."""
    site = replace(site, limits=limits)
    resource = bought(site)
    site.sandbox.customer.edit(resource, end_date=None)
    assert (
        "left unchanged: the resource has no end date, so its months are not known"
        in text_of_members(site)
    )
    site.sync()
    assert gpu_minutes(site, resource) == 10 * 6 * 60


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_what_a_renewal_paid_for_stays_where_the_server_sets_no_end_date(
    site: SimulatedSite, limits: str
) -> None:
    site = replace(site, limits=limits)
    resource, side = bought(site), site.sandbox.customer
    until = in_months(6, resource.end_date)
    order = side.place_renewal_order(resource, 6, extends_when="never")
    assert f'"until": "{until}"' in text_of_orders(site)
    with structlog.testing.capture_logs() as logs:
        site.cycle()
    assert site.state(order) == "done"
    (warning,) = (line for line in logs if "keeps the old end date" in line["event"])
    assert warning["renewed_until"] == str(until)
    assert gpu_minutes(site, resource) == 10 * 12 * 60
    assert is_quiet(site)
    assert gpu_minutes(site, resource) == 10 * 12 * 60
    side.edit(resource, end_date=in_months(8))  # by somebody who knows better
    site.sync()
    assert gpu_minutes(site, resource) == 10 * 8 * 60


@pytest.mark.parametrize("killed", ["limits", "end date"])
def test_a_list_that_is_a_moment_old_cuts_no_renewal(site: SimulatedSite, killed: str) -> None:
    resource = bought(site)
    side = site.sandbox.customer
    if killed == "limits":
        side.place_renewal_order(resource, 6)
        site.cycle()
    else:
        side.edit(resource, end_date=in_months(12))
        site.sync()
    assert gpu_minutes(site, resource) == 10 * 12 * 60
    with site.lists_a_moment_old(4, up_to=True):
        site.sync()
    assert gpu_minutes(site, resource) == 10 * 12 * 60


def test_an_end_date_is_followed_with_a_token_that_may_not_report_limits(
    site: SimulatedSite,
) -> None:
    resource = bought(site)
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    site.slurm.run(["sacctmgr", "-i", *words, "GrpTRESMins=cpu=120000"])
    site.sandbox.faults.add("*_set_limits", "status", status=403, times=9)
    with site.agent() as agent:
        sync_membership(agent)
        site.sandbox.customer.edit(resource, end_date=in_months(8))
        sync_membership(agent)
    assert gpu_minutes(site, resource) == 10 * 8 * 60


def test_a_renewal_waits_while_its_note_is_refused(site: SimulatedSite) -> None:
    resource, side = bought(site), site.sandbox.customer
    order = side.place_renewal_order(resource, 6, extends_when="never")
    site.sandbox.faults.add("*_set_backend_metadata", "status", status=403)
    (result,) = site.cycle().results
    assert site.state(order) == "executing"
    assert "the new end date could not be noted" in result.reason
    site.cycle()
    assert site.state(order) == "done"
    site.sync()
    assert gpu_minutes(site, resource) == 10 * 12 * 60


def test_plans_show_when_a_resource_ends(site: SimulatedSite) -> None:
    side, until = site.sandbox.customer, in_months(6)
    limits: dict[str, Any] = {"cpu": 1, GPU: 10}
    project = site.project(ada="ada01")
    order = side.place_create_order(project, "run", limits, end_date=until)
    assert f"ends on {until}" in text_of_orders(site)
    site.cycle()
    earlier = in_months(2)
    side.edit(side.current(project), end_date=earlier)
    side.add_member(project, site.person("bob", "bob01"))
    assert f"(project climate), ends on {earlier}, with its project" in text_of_members(site)
    assert gpu_minutes(site, site.resource(order)) == 10 * 6 * 60


def test_a_one_time_fee_has_no_limit(site: SimulatedSite) -> None:
    fee = {"measured_unit": "times", "accounting_type": "one", "label": "Setup"}
    site.components["setup"] = ComponentSettings.model_validate({**fee, "is_prepaid": False})
    site.sandbox.customer.add_component("setup", "one", "times")
    resource = bought(site)
    assert set(site.slurm.state.accounts[resource.backend_id].limits) == {"cpu", GPU}
    assert is_quiet(site)


def test_the_check_of_an_account_knows_the_months(site: SimulatedSite) -> None:
    resource = bought(site)
    with site.agent() as agent:
        check = check_account(agent, resource.backend_id)
    (gpu,) = (each for each in check.comparisons if each.field == f"limit of {GPU}")
    assert (check.status, gpu.expected, gpu.waldur_value) == ("ok", "3600", "10")
    assert gpu.waldur_unit == f"GPU-hours a month for 6 months, until {in_months(6)}"


def test_an_account_that_is_lost_is_made_again_with_all_months(site: SimulatedSite) -> None:
    resource = bought(site)
    site.slurm.state.accounts.pop(resource.backend_id)
    replace(site, recreate=True).sync()
    assert gpu_minutes(site, resource) == 10 * 6 * 60


@pytest.mark.parametrize(("version", "is_told"), [("8.1.3", True), ("8.0.7", False)])
def test_usage_of_prepaid_components_is_reported_where_the_server_takes_it(
    tmp_path: Path, version: str, is_told: bool
) -> None:
    with a_simulated_site(tmp_path / "writer.lock", version) as site:
        side = site.sandbox.customer
        side.add_component(GPU, "one", "GPU-hours", is_prepaid=True)
        site.components[GPU] = HOURS
        resource = bought(site)
        with site.agent() as agent:
            report = report_usage(agent)
            assert not report.has_failures
            report_usage(agent)
        rows = side.world.component_usages.values()
        assert {row.component_type for row in rows} == {"cpu", "mem"} | (
            {GPU} if is_told else set()
        )
        order = side.place_terminate_order(resource)
        site.cycle()
        assert site.state(order) == "done"
