"""Budgets of a simulated cluster, looked at pass by pass, and told of by channels that may fail."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness import KilledError, KillSwitch
from harness.testbed import SimulatedSite, a_simulated_site
from waldur_site_agent.config import Budgets
from waldur_site_agent.cycles.budget_notices import check_budgets
from waldur_site_agent.cycles.site import Site
from waldur_site_agent.model.budget_notices import Budget, BudgetNotice
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import TeamMember
from waldur_site_agent.planning.budget_notices import NOTED
from waldur_site_agent_sandbox import Order


@dataclass
class Heard:
    """Channels that remember what they were told, or fail."""

    notices: list[BudgetNotice] = field(default_factory=list)
    people: list[list[str]] = field(default_factory=list)
    published: list[list[Budget]] = field(default_factory=list)
    fails: bool = False

    def tell(self, notice: BudgetNotice, people: Sequence[TeamMember]) -> None:
        if self.fails:
            raise TemporaryError("the webhook of budgets answered HTTP 500")
        self.notices.append(notice)
        self.people.append([each.username for each in people])

    def publish(self, budgets: Sequence[Budget]) -> None:
        self.published.append([*budgets])

    @property
    def percents(self) -> list[int]:
        return [notice.percent for notice in self.notices]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    with a_simulated_site(tmp_path / "lock") as found:
        yield found


def ordered(site: SimulatedSite) -> Order:
    """A resource with a budget of 10 k-Hours, and a manager beside its members."""
    project = site.project(ada="ada01")
    site.sandbox.customer.add_member(project, site.person("eve", "eve01"), "manager")
    order = site.order(project, "Ocean", cpu=10)
    site.cycle()
    assert site.state(order) == "done"
    return order


def work(site: SimulatedSite, order: Order, hours: int) -> None:
    """Have a thousand cores busy in the account for some hours."""
    state, account = site.slurm.state, site.resource(order).backend_id
    begin = datetime.fromtimestamp(state.now or time.time(), UTC)
    end = begin + timedelta(hours=hours)
    site.slurm.run_job("ada01", account, {"cpu": 1000}, begin, end)
    state.now = int(end.timestamp()) + 1


@contextmanager
def looking(site: SimulatedSite, heard: Heard) -> Iterator[Site]:
    with site.agent() as opened:
        offering = opened.offering.model_copy(update={"budgets": Budgets()})
        yield replace(opened, offering=offering, budgets=heard)


def check(site: SimulatedSite, order: Order, heard: Heard) -> tuple[str, ...]:
    """One pass of a new agent; what went wrong."""
    with looking(site, heard) as opened:
        resource = opened.waldur.resource(site.resource(order).uuid)
        return check_budgets(opened, {resource.account: resource})[1]


@pytest.mark.guarantee("budget-notices")
def test_a_crossing_is_told_once_whatever_restarts(site: SimulatedSite) -> None:
    order, heard = ordered(site), Heard()
    assert check(site, order, heard) == ()
    work(site, order, hours=8)
    for _ in range(3):
        assert check(site, order, heard) == ()
    work(site, order, hours=2)
    for _ in range(2):
        check(site, order, heard)
    assert heard.percents == [80, 100]
    assert heard.people == [["eve"], ["eve"]]
    (budget,) = heard.published[-1]
    assert [budget.limit, budget.used] == [10, 10]
    assert budget.unit == "k-Hours"


@pytest.mark.guarantee("budget-notices")
def test_a_notice_that_could_not_be_given_is_given_later(site: SimulatedSite) -> None:
    order, heard = ordered(site), Heard(fails=True)
    work(site, order, hours=9)
    for _ in range(2):
        (trouble,) = check(site, order, heard)
        assert "budget notice not sent" in trouble
    assert NOTED not in site.resource(order).backend_metadata
    heard.fails = False
    for _ in range(2):
        assert check(site, order, heard) == ()
    assert heard.percents == [80]


@pytest.mark.guarantee("budget-notices")
@pytest.mark.parametrize("after_effect", [False, True])
def test_killed_at_any_request_no_notice_is_given_twice(
    site: SimulatedSite, after_effect: bool
) -> None:
    order = ordered(site)
    work(site, order, hours=9)
    before = dict(site.resource(order).backend_metadata)
    for number in range(1, 20):
        heard, kill_switch = Heard(), KillSwitch(at=number, after_effect=after_effect)
        site.transport = kill_switch.transport
        with suppress(KilledError):
            check(site, order, heard)
        site.transport = lambda inner: inner
        for _ in range(2):
            check(site, order, heard)
        assert len(heard.notices) <= 1
        if not kill_switch.dead:
            assert heard.percents == [80]
            return
        with site.agent() as agent:
            agent.waldur.set_backend_metadata(site.resource(order).uuid, before)
    pytest.fail("a pass should take fewer requests")


def test_metadata_that_another_pass_wrote_meanwhile_stay(site: SimulatedSite) -> None:
    order, heard = ordered(site), Heard()
    work(site, order, hours=9)
    with looking(site, heard) as opened:
        resource = opened.waldur.resource(site.resource(order).uuid)
        opened.waldur.set_backend_metadata(resource.uuid, {"agent_access": "paused"})
        check_budgets(opened, {resource.account: resource})
    assert site.resource(order).backend_metadata["agent_access"] == "paused"
    assert heard.percents == [80]


def test_a_pass_without_news_asks_one_command_and_no_request(site: SimulatedSite) -> None:
    order, heard = ordered(site), Heard()
    work(site, order, hours=9)
    check(site, order, heard)
    with looking(site, heard) as opened:
        resource = opened.waldur.resource(site.resource(order).uuid)
        requests, commands = opened.waldur.requests_made, site.slurm.commands_run.total()
        check_budgets(opened, {resource.account: resource})
        assert opened.waldur.requests_made == requests
        assert site.slurm.commands_run.total() == commands + 1
