"""A customer, or a hostile Waldur: numbers and dates that nobody means."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import yaml
from structlog.testing import capture_logs

from harness import Installation, SimulatedSite, a_simulated_site
from harness.testbed import Relay
from waldur_site_agent.cli.plan import report_text
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.model.budget_notices import Budget, Consumption
from waldur_site_agent.model.budgets import PeriodicPolicy
from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.marketplace import Component, Resource, Term
from waldur_site_agent.planning.budget_notices import NOTED, budget_changes
from waldur_site_agent.planning.budgets import BudgetNote, BudgetPeriod, Terms, budget_of
from waldur_site_agent.planning.limits import ordered_limits
from waldur_site_agent.service import overview

HUGE = [10**30, 10**400, 1e308, -1, 10**4200]
CPU = Component(
    type="cpu",
    measured_unit="h",
    label="CPU",
    accounting_type="limit",
    unit_factor=Decimal(60),
)
POLICY = PeriodicPolicy(
    uuid=UUID(int=1),
    period=2,
    limit_type="GrpTRESMins",
    carryover_enabled=True,
    carryover_factor=Decimal(50),
    grace_ratio=Decimal("0.2"),
    tres_billing_enabled=True,
)
PREPAID = ComponentSettings(
    measured_unit="GPU-hours", unit_factor=Decimal(60), accounting_type="one", label="GPU"
)


@pytest.mark.guarantee("security: Threat model")
def test_a_limit_that_no_cluster_has_concerns_its_resource_alone(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    content: dict[str, Any] = yaml.safe_load(installation.file.read_text())
    content["offerings"][0] |= {"membership_sync_backend": "slurm", "reporting_backend": "slurm"}
    installation.file.write_text(yaml.safe_dump(content))
    project = testbed.project(ada="ada01")
    hostile = [testbed.order(project, f"huge{n}", cpu=limit) for n, limit in enumerate(HUGE)]
    honest = testbed.order(project, "honest", cpu=10)
    said = ""
    for words in (
        ("plan", "-m", "order_process"),
        ("run", "-m", "order_process", "--once"),
        ("plan", "-m", "membership_sync", "--output", "json"),
        ("run", "-m", "membership_sync", "--once"),
    ):
        done = installation.run(*words, command="waldur-site-agent")
        said += done.out + done.err
    assert "Traceback" not in said
    assert testbed.state(honest) == "done"
    assert [testbed.state(order) for order in hostile] == ["erred"] * len(HUGE)


@pytest.mark.parametrize(
    "amount", ["1e30", "1e400", "1e999999", "-1", "-1e999999", "NaN", "Infinity"]
)
def test_a_limit_is_refused_in_words_however_large_it_is(amount: str) -> None:
    for read in (
        lambda limits: ordered_limits(limits, {"cpu": CPU}),
        lambda limits: budget_of(limits, terms(POLICY), BudgetNote(period="2026-11")),
    ):
        with pytest.raises(PermanentError, match='limit of component "cpu" is') as caught:
            read({"cpu": Decimal(amount)})
        assert len(str(caught.value)) < 300


def terms(policy: PeriodicPolicy) -> Terms:
    period = BudgetPeriod.at(2, datetime(2026, 11, 20, tzinfo=UTC), UTC)
    return Terms(policy=policy, period=period, components={"cpu": CPU})


@pytest.mark.parametrize("key", ["grace_ratio", "carryover_factor"])
@pytest.mark.parametrize("amount", ["-0.1", "1e6", "1e400", "1e999999"])
def test_a_policy_with_impossible_numbers_is_refused_in_words(key: str, amount: str) -> None:
    hostile: dict[str, Any] = {key: Decimal(amount)}
    problem = terms(replace(POLICY, **hostile)).problem()
    assert "periodic policy" in problem
    assert len(problem) < 200


@pytest.mark.parametrize(
    "weights",
    [{"cpu": "1e999999"}, {"cpu": "NaN"}, {"cpu": -1}, {"cpu": [1]}, {"cpu": True}, {"\ud800": 1}],
    ids=str,
)
def test_weights_that_cannot_be_used_are_those_of_nobody(weights: dict[str, object]) -> None:
    note = BudgetNote(period="2026-11")
    limits = {"cpu": Decimal(100)}
    hostile = budget_of(limits, terms(replace(POLICY, tres_billing_weights=weights)), note)
    assert hostile.limits["cpu"] == Decimal(7200) + Decimal(3600)
    assert hostile.limits.get("billing", Decimal(0)).is_finite()


@pytest.mark.parametrize(
    "note",
    [
        {"period": "0000-Q1"}, {"period": "2026-Q9"}, {"period": "-1"}, {"period": ["2026"]},
        {"period": "2026-11", "used_before": {"cpu": "NaN"}},
        {"period": "2026-11", "deducted": {"cpu": "-1"}},
        {"period": "2026-11", "deducted": {"cpu": "x" * 5000}},
        {"period": "9" * 5000}, [], "2026-11", None,
    ],
    ids=lambda note: str(note)[:40],
)  # fmt: skip
def test_a_note_in_waldur_that_nobody_wrote_is_none(note: object) -> None:
    assert BudgetNote.read({"budget": note}) is None


@pytest.mark.parametrize(
    "note",
    [
        {"percent": float("inf"), "limit": "100"}, {"percent": float("nan"), "limit": "100"},
        {"percent": 10**400, "limit": "100"}, {"percent": 80, "limit": "sNaN"},
        {"percent": 80, "limit": "1e999999"}, {"percent": 80, "limit": "1e-999999"},
        {"percent": 80, "limit": "Infinity"}, {"percent": "x" * 5000, "limit": []}, [], None,
    ],
    ids=lambda note: str(note)[:40],
)  # fmt: skip
def test_a_note_of_a_budget_notice_that_nobody_wrote_is_none(note: object) -> None:
    budget = Budget(
        resource=UUID(int=1), account="a", title="", project="p", ends_on=None, component="cpu",
        label="CPU", unit="h", limit=Decimal(100), used=Decimal(85),
    )  # fmt: skip
    metadata: dict[str, Any] = {NOTED: {"cpu": note, "gone": note}}
    resource = Resource(uuid=UUID(int=1), backend_id="a", backend_metadata=metadata)
    (change,) = budget_changes({"a": resource}, [budget], [80])
    assert change.metadata({}) == {NOTED: {"cpu": {"percent": 80, "limit": "100"}}}


def test_a_number_in_metadata_that_json_cannot_write_concerns_its_resource_alone(
    testbed: SimulatedSite,
) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    orders = [testbed.order(project, name, cpu=1) for name in ("broken", "honest")]
    testbed.cycle()
    broken, honest = (testbed.resource(order) for order in orders)
    side.edit(broken, backend_metadata={"x": "a number"}, paused=True)
    side.edit(honest, paused=True)
    testbed.transport = Infinite
    failures = testbed.sync().failures
    assert any("a_broken" in each and "JSON" in each for each in failures)
    accounts = testbed.slurm.state.accounts
    assert accounts[honest.backend_id].qos == ["paused"]
    assert accounts[broken.backend_id].qos != ["paused"]


SHOWN = 987654321
"""A number that no UUID and no time of day has in it by chance."""


class Infinite(Relay):
    """A Waldur that shows a number which is more than any."""

    number = b"1e999"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        content = response.read()
        for shown in (b'"a number"', b'"%d.00"' % SHOWN, b"%d" % SHOWN):
            content = content.replace(shown, self.number)
        kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
        return httpx.Response(response.status_code, headers=kept, content=content)


@pytest.mark.parametrize("limited", ["resource", "person"])
@pytest.mark.parametrize(
    "number", [b'"1e999999"', b'"-1e999999"', b'"1e-999999"', b"1e308", b'"sNaN"', b"-1", b"[]"]
)
@pytest.mark.guarantee("security: Threat model")
def test_an_impossible_limit_of_one_resource_keeps_nobody_else_waiting(
    testbed: SimulatedSite, limited: str, number: bytes
) -> None:
    side = testbed.sandbox.customer
    theirs, ours = testbed.project(ada="ada01"), testbed.project(bob="bob01")
    orders = [testbed.order(theirs, "broken", cpu=1), testbed.order(ours, "honest", cpu=1)]
    testbed.cycle()
    broken, honest = (testbed.resource(order) for order in orders)
    if limited == "resource":
        side.edit(broken, limits={"cpu": SHOWN, "mem": SHOWN})
    else:
        side.set_user_limit(broken, "ada", "cpu", SHOWN)
    side.add_member(ours, testbed.person("carl", "carl01"))
    testbed.transport = type("Lying", (Infinite,), {"number": number})
    for follows in ("report", "waldur"):
        testbed.limits = follows
        assert len(report_text(testbed.sync(dry_run=True))) < 10_000
        testbed.sync()
    accounts = testbed.slurm.state.accounts
    assert "carl01" in accounts[honest.backend_id].members
    assert accounts[broken.backend_id].limits["cpu"] in (0, 60000)
    assert accounts[broken.backend_id].members["ada01"].limits == {}


def test_a_prepaid_term_of_ten_thousand_years_is_counted_and_one_that_ends_before_is_a_month() -> (
    None
):
    assert Term(date.min, date.max).months == 119_988
    assert Term(date.max, date.min).months == 1


@pytest.mark.parametrize("limit", ["0", "1e-400", "1e-999999", "-1"])
def test_a_limit_of_next_to_nothing_has_no_share(limit: str) -> None:
    consumption = Consumption(Decimal(limit), Decimal("1e300"))
    assert overview.ComponentUsage(component="cpu", of_limit=consumption).share is None


@pytest.mark.parametrize("attributes", [{}, {"old_limits": {}}], ids=["alone", "beside others"])
@pytest.mark.guarantee("security: Threat model")
def test_an_order_to_create_is_no_renewal_whatever_its_attributes_say(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    """Attributes are free text of the customer: they would multiply what was paid for."""
    forged = {"action": "renew", "new_end_date": "9999-12-31", **attributes}
    today = datetime.now(UTC).date()
    with a_simulated_site(tmp_path / "writer.lock") as site:
        side = site.sandbox.customer
        side.add_component("gres/gpu", "one", "GPU-hours", is_prepaid=True)
        site.components["gres/gpu"] = PREPAID
        limits: dict[str, Any] = {"cpu": 1, "gres/gpu": 10}
        order = side.place_create_order(
            site.project(ada="ada01"),
            "run",
            limits,
            forged,
            end_date=today.replace(year=today.year + 1),
        )
        site.cycle()
        assert site.state(order) == "done"
        site.sync()
        resource = site.resource(order)
        assert site.slurm.state.accounts[resource.backend_id].limits["gres/gpu"] == 10 * 12 * 60
        assert "renewed" not in side.current(resource).backend_metadata
        side.place_update_order(resource, {"cpu": 2, "gres/gpu": 10})
        site.cycle()
        assert site.slurm.state.accounts[resource.backend_id].limits["gres/gpu"] == 10 * 12 * 60


@pytest.mark.parametrize("limits", [{}, {"mem": 1}, {"cpu": None, "mem": 1}], ids=str)
@pytest.mark.guarantee("security: Threat model")
def test_an_order_without_a_limit_gets_nothing_unlimited_where_the_site_refuses_that(
    testbed: SimulatedSite, limits: dict[str, Any]
) -> None:
    """Waldur takes such orders from its API, and bills nothing for what was not ordered."""
    testbed.refuses_missing_limits = True
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    order = side.place_create_order(project, "run", limits)
    testbed.cycle()
    assert testbed.state(order) == "erred"
    assert '"cpu"' in side.current(order).error_message
    assert "a_run" not in str(testbed.slurm.state.accounts.keys())
    honest = side.place_create_order(project, "whole", {"cpu": 5, "mem": 1})
    testbed.cycle()
    resource = testbed.resource(honest)
    update = side.place_update_order(resource, {"mem": 2})
    testbed.cycle()
    assert (testbed.state(honest), testbed.state(update)) == ("done", "erred")
    end = side.place_terminate_order(resource)
    testbed.cycle()
    assert testbed.state(end) == "done"


@pytest.mark.guarantee("security: Threat model")
def test_an_order_without_a_limit_that_is_carried_out_is_named_in_plan_and_log(
    testbed: SimulatedSite,
) -> None:
    side, project = testbed.sandbox.customer, testbed.project(ada="ada01")
    order = side.place_create_order(project, "run", {"cpu": 5})
    remark = "\n    no limit: the order names none for mem\n"
    assert remark in report_text(testbed.cycle(dry_run=True))
    with capture_logs() as lines:
        testbed.cycle()
        testbed.cycle()
    assert testbed.state(order) == "done"
    (warning,) = (line for line in lines if line["event"] == "order without a limit carried out")
    assert warning["log_level"] == "warning"
    assert warning["account"] == testbed.resource(order).backend_id
    assert "mem" in warning["reason"]
    assert "safety.missing_limits: refuse" in warning["remedy"]
    whole = side.place_create_order(project, "whole", {"cpu": 5, "mem": 1})
    assert "no limit" not in report_text(testbed.cycle(dry_run=True))
    testbed.cycle()
    side.place_update_order(testbed.resource(whole), {"mem": 2})
    kept = "limit kept, but not billed any more: the order names none for cpu"
    assert kept in report_text(testbed.cycle(dry_run=True))
