"""What pages and status know of the last passes, and the usage of each day."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from harness import SimulatedSite
from waldur_site_agent.cycles.usage import report_usage
from waldur_site_agent.cycles.usage_by_day import days_of
from waldur_site_agent.cycles.usage_sending import UsageCycleReport
from waldur_site_agent.model.budget_notices import Budget
from waldur_site_agent.model.usage import BillingMonth
from waldur_site_agent.service.overview import Overview, age_text, large_budgets, waiting_in


def test_a_resource_is_known_with_members_budgets_and_days(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    testbed.sandbox.customer.edit(resource, created=month - timedelta(days=40))
    overview = Overview()
    overview.take(testbed.sync())
    seconds = (now - month).total_seconds()
    hours = Decimal(9) * 60000 * 60
    cpus = int(hours / int(seconds))
    testbed.slurm.run_job("ada01", resource.backend_id, {"cpu": cpus}, month, now)
    with testbed.agent() as site:
        object.__setattr__(site, "wants_days", True)
        report = report_usage(site)
        again = report_usage(site)
    overview.take(report)
    overview.take(again)
    found = overview.resource(str(UUID(str(resource.uuid))))
    assert found is not None
    view = found[1]
    assert view.members == ("ada01",)
    assert again.days is None
    cpu = next(each for each in view.usage if each.component == "cpu")
    assert Decimal("0.8") < (cpu.share or 0) <= Decimal("0.9")
    assert [day for day, _ in view.days] == [
        f"{now:%Y-%m-}{number:02d}" for number in range(1, now.day + 1)
    ]
    by_day = sum(amounts["cpu"] for _, amounts in view.days)
    assert cpu.used is not None
    assert abs(by_day - cpu.used) <= Decimal("0.005") * now.day
    large = large_budgets(report) or []
    assert [each["account"] for each in large] == [resource.backend_id]


def test_what_the_backend_counts_decides_about_a_budget() -> None:
    def budget(account: str, used: int) -> Budget:
        return Budget(
            resource=UUID(int=used),
            account=account,
            title=account,
            project="climate",
            ends_on=None,
            component="cpu",
            label="CPU",
            unit="k-Hours",
            limit=Decimal(10),
            used=Decimal(used),
        )

    report = UsageCycleReport(
        offering="Cluster", budgets=(budget("a_low", 7), budget("a_high", 8), budget("a_full", 12))
    )
    large = large_budgets(report) or []
    assert [(each["account"], each["percent"]) for each in large] == [
        ("a_full", 120.0),
        ("a_high", 80.0),
    ]


def test_a_page_shows_what_the_backend_counts_and_what_was_used_this_month(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), "Ocean", cpu=10)
    with testbed.agent() as site:
        report = report_usage(site)
    counted = Budget(
        resource=UUID(str(resource.uuid)),
        account=resource.backend_id,
        title="Ocean",
        project="climate",
        ends_on=None,
        component="cpu",
        label="CPU",
        unit="k-Hours",
        limit=Decimal(10),
        used=Decimal(25) / 3,
    )
    overview = Overview()
    overview.take(replace(report, budgets=(counted,)))
    ((_, (view,)),) = overview.offerings().items()
    cpu, mem = sorted(view.usage, key=lambda each: each.component)
    assert cpu.used == 0
    assert cpu.of_limit == counted
    assert mem.share is None
    large = large_budgets(replace(report, budgets=(counted,))) or []
    assert [(each["used"], each["limit"]) for each in large] == [("8.33", "10")]


def test_days_follow_the_clock_of_the_site() -> None:
    zone = ZoneInfo("Europe/Vienna")
    days = days_of(BillingMonth(2026, 3), datetime(2026, 4, 5, tzinfo=UTC), zone)
    hours = {(period.end.astimezone(UTC) - period.start.astimezone(UTC)) for _, period in days}
    assert len(days) == 31
    assert hours == {timedelta(hours=24), timedelta(hours=23)}


def test_what_waits_is_told(testbed: SimulatedSite) -> None:
    project = testbed.project(ada="ada01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    report = testbed.with_(unknown_to_the_system=frozenset({"bob01"})).sync()
    assert waiting_in(report) == [
        f"{resource.backend_id}: 1 member until the operating system knows them"
    ]


def test_ages_are_in_words() -> None:
    now = datetime(2026, 5, 3, 12, tzinfo=UTC)
    told = [age_text((now - timedelta(seconds=s)).isoformat(), now) for s in (5, 90, 7300, 90000)]
    assert told == ["5 s ago", "1 min ago", "2 h ago", "1 d ago"]
    assert age_text(None) == "never"
