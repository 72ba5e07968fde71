"""A backend that is away for a moment in the middle of a pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from harness.testbed import SimulatedSite
from waldur_site_agent.backends import Outcome, Result
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent.cycles.membership import sync_membership
from waldur_site_agent.cycles.site import NoJournal
from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.planning.plan import Step
from waldur_site_agent_slurm.simulator import Outage


def refused(argv: Sequence[str]) -> CommandResult:
    return CommandResult(
        argv=tuple(argv),
        exit_code=1,
        stdout="",
        stderr="sacctmgr: error: slurm_persist_conn_open_without_init: failed to open persistent "
        "connection to host:localhost:6819: Connection refused\n"
        "sacctmgr: error: Sending PersistInit msg: Connection refused\n",
    )


@dataclass
class Recorded(NoJournal):
    """A journal that keeps the outcomes of actions."""

    outcomes: list[Outcome]

    def record(self, step: Step, outcome: Outcome) -> None:  # noqa: ARG002 - as the journal has it
        self.outcomes.append(outcome)


@dataclass
class EveryNth:
    """A slurmdbd that refuses every ``n``-th connection."""

    inner: Runner
    n: int
    commands: list[int] = field(default_factory=lambda: [0])

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        self.commands[0] += 1
        if self.commands[0] % self.n == 0:
            return refused(argv)
        return self.inner.run(argv, timeout)


def test_orders_are_done_in_one_pass_although_every_fifteenth_command_is_refused(
    testbed: SimulatedSite,
) -> None:
    orders = [testbed.order(testbed.project(f"p{n}", **{f"u{n}": f"u{n}"})) for n in range(24)]
    commands = [0]
    site = testbed.with_(retries=True, runner=lambda inner: EveryNth(inner, 15, commands))
    site.cycle()
    assert {testbed.state(order) for order in orders} == {"done"}
    for number, order in enumerate(orders):
        assert testbed.members(order) == {f"u{number}"}
    assert commands[0] > 15, "nothing was ever refused"
    assert testbed.sleeps


def test_a_database_that_goes_away_during_many_orders_is_one_line_that_names_them(
    testbed: SimulatedSite,
) -> None:
    for number in range(24):
        testbed.order(testbed.project(f"p{number}", ada="ada01"))
    with capture_logs() as lines:
        testbed.with_(runner=lambda inner: EveryNth(inner, 40, [0])).cycle()
    (line,) = [line for line in lines if line["log_level"] in ("warning", "error")]
    assert line["event"] == "order deferred to the next pass"
    assert "Connection refused" in line["reason"]
    assert line["count"] == len(testbed.sandbox.customer.world.orders) - sum(
        order.state == "done" for order in testbed.sandbox.customer.world.orders.values()
    )


@pytest.mark.parametrize("after", range(9))
def test_a_database_that_stays_away_is_given_a_minute_and_then_the_next_cycle(
    testbed: SimulatedSite, after: int
) -> None:
    order = testbed.order(testbed.project(ada="ada01"))
    site = testbed.with_(retries=True)
    with testbed.slurm.outage(Outage.SLURMDBD_REFUSED, after_commands=after):
        with suppress(TemporaryError):
            site.cycle()
        assert testbed.state(order) != "erred"
        assert sum(testbed.sleeps) <= 60 * 2
    testbed.sleeps.clear()
    site.cycle()
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01"}
    assert not testbed.sleeps


def test_who_may_not_change_the_database_is_not_kept_waiting(testbed: SimulatedSite) -> None:
    testbed.order(testbed.project(ada="ada01"))
    with testbed.slurm.outage(Outage.NO_PERMISSION):
        testbed.with_(retries=True).cycle()
    assert not testbed.sleeps


def test_what_landed_before_a_blip_counts_as_done_and_is_not_written_again(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.add_member(project, testbed.person("bob", "bob01"))
    target = f"account={resource.backend_id}"
    lost = [True]

    @dataclass
    class LostAnswer:
        inner: Runner

        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            result = self.inner.run(argv, timeout)
            if {"add", target} <= {*argv} and lost[0]:
                lost[0] = False
                return refused(argv)
            return result

    recorded: list[Outcome] = []
    with testbed.with_(retries=True, runner=LostAnswer).agent() as site:
        report = sync_membership(replace(site, journal=Recorded(recorded)))
    assert testbed.members_of(resource) == {"ada01", "bob01"}
    assert not report.failures
    adds = [c for c in testbed.slurm.history if {"add", "name=bob01", target} <= {*c}]
    assert len(adds) == 1
    assert [outcome.result for outcome in recorded] == [Result.DONE]


def test_what_a_try_has_written_is_recorded_although_the_pass_gives_up(
    testbed: SimulatedSite,
) -> None:
    """One of two accounts gets its member in the first try, then the database stays away."""
    projects = [testbed.project(slug, ada="ada01") for slug in ("one", "two")]
    first, second = (testbed.settled(project) for project in projects)
    for project, name in zip(projects, ("bob", "cyd"), strict=True):
        testbed.sandbox.customer.add_member(project, testbed.person(name, f"{name}01"))
    target = f"account={first.backend_id}"

    @dataclass
    class AwayForTheOther:
        inner: Runner

        def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
            others = f"account={second.backend_id}" in argv and "add" in argv
            return refused(argv) if others else self.inner.run(argv, timeout)

    recorded: list[Outcome] = []
    with testbed.with_(retries=True, runner=AwayForTheOther).agent() as site:
        sync_membership(replace(site, journal=Recorded(recorded)))
    assert testbed.members_of(first) == {"ada01", "bob01"}
    assert testbed.members_of(second) == {"ada01"}
    adds = [c for c in testbed.slurm.history if {"add", "name=bob01", target} <= {*c}]
    assert len(adds) == 1
    results = {outcome.action.resource: outcome.result for outcome in recorded}  # type: ignore[union-attr]  # additions
    assert results == {first.backend_id: Result.DONE, second.backend_id: Result.FAILED}
