"""Agents that are killed, brokers that break, messages that lie: the outcome arrives."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from harness import Service, eventually
from integration.events.conftest import EventSite
from waldur_site_agent.events.broker import Address, Subscription
from waldur_site_agent.events.stomp import StompTransport
from waldur_site_agent_sandbox import Order, Project, Resource

pytestmark = [pytest.mark.slurm, pytest.mark.rabbitmq]


class Storm:
    """Changes in Waldur without a pause, and what has to come of them."""

    def __init__(self, event_site: EventSite, seed: int) -> None:
        self.event_site, self.chance = event_site, random.Random(seed)  # noqa: S311 - a storm that can be had again
        self.projects: list[Project] = [event_site.project(f"storm{n}") for n in range(4)]
        testbed = event_site.testbed
        self.people = {"cyd": event_site.cyd, "dan": event_site.svc, "eve": event_site.crs}
        for name, username in self.people.items():
            testbed.person(name, username)
        self.teams: dict[str, set[str]] = {
            project.uuid: {event_site.ada, event_site.bob} for project in self.projects
        }
        self.orders: list[Order] = []
        self.creates: list[tuple[Project, Order]] = []

    def blow(self, changes: int) -> None:
        """Make so many changes."""
        for number in range(changes):
            if number % 8 == 0 and len(self.creates) < 6:
                project = self.chance.choice(self.projects)
                order = self.event_site.testbed.order(project, f"run {number}", cpu=10)
                self.orders.append(order)
                self.creates.append((project, order))
            else:
                self._change_a_role()

    def _change_a_role(self) -> None:
        side, project = self.event_site.side, self.chance.choice(self.projects)
        name = self.chance.choice(sorted(self.people))
        username, team = self.people[name], self.teams[project.uuid]
        if username in team:
            side.remove_member(project, name)
            team.remove(username)
        else:
            side.add_member(project, name)
            team.add(username)

    def has_passed(self) -> bool:
        """Whether every change has taken effect."""
        testbed = self.event_site.testbed
        if any(testbed.state(order) != "done" for order in self.orders):
            return False
        return all(
            self.event_site.account(testbed.resource(order)).users == self.teams[project.uuid]
            for project, order in self.creates
        )


def outlive(event_site: EventSite, storm: Storm, changes: int, kills: int) -> None:
    """Kill the agent again and again while changes pour in; then let one agent finish."""
    left, chance = changes, random.Random(changes)  # noqa: S311 - the same moments again
    for kill in range(kills):
        with event_site.site.service("-m", "event_process") as service:
            portion = left // (kills - kill)
            storm.blow(portion)
            left -= portion
            eventually(lambda s=service: "connected" in s.text, "a start")  # type: ignore[misc]  # a loop variable as default
            time.sleep(chance.uniform(0, 1.5))  # a moment that nobody chose
            service.send(signal.SIGKILL)
            service.process.wait()
    with event_site.site.service("-m", "event_process") as service:
        eventually(lambda: "listening to events" in service.text, "the last subscription")
        eventually(storm.has_passed, "the effect of every change")
        event_site.settle()
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        assert "Traceback" not in service.text
    assert event_site.testbed.sandbox.requests.count("*_erred") == 0
    assert len(event_site.slurm.accounts(f"{event_site.prefix}a_")) == len(storm.creates)


@pytest.mark.guarantee("events: The guarantee")
@pytest.mark.guarantee("An event may be lost, repeated, late or out of order")
def test_an_agent_killed_again_and_again_while_events_pour_in_loses_none(
    event_site: EventSite,
) -> None:
    outlive(event_site, Storm(event_site, 1), changes=40, kills=4)


@pytest.mark.guarantee("events: The guarantee")
@pytest.mark.long
def test_an_agent_killed_fifty_times_while_five_hundred_events_pour_in_loses_none(
    event_site: EventSite,
) -> None:
    outlive(event_site, Storm(event_site, 2), changes=500, kills=50)


@pytest.fixture
def settled(event_site: EventSite) -> tuple[Project, Resource]:
    (pair,) = event_site.open_projects("climate")
    return pair


def joins(
    event_site: EventSite, project: Project, resource: Resource, name: str, user: str
) -> None:
    """Let somebody join, and wait until it has taken effect."""
    event_site.join(project, name, user)
    eventually(lambda: user in event_site.account(resource).users, f"{name} in the account")


@pytest.mark.guarantee("events: The guarantee")
def test_whatever_breaks_at_the_broker_the_agent_listens_again(
    event_site: EventSite, settled: tuple[Project, Resource]
) -> None:
    project, resource = settled
    broker, side = event_site.broker, event_site.side
    with event_site.agent() as service:
        event_site.testbed.person("cyd", event_site.cyd)
        broker.kill()
        side.remove_member(project, "bob")  # the event is lost: nobody takes it
        broker.start()
        event_site.has(resource, event_site.ada)
        (queue,) = broker.waiting(event_site.vhost)
        broker.delete_queue(event_site.vhost, queue)
        side.add_member(project, "cyd")
        event_site.has(resource, event_site.ada, event_site.cyd)
        broker.delete_vhost(event_site.vhost)
        joins(event_site, project, resource, "dan", event_site.svc)
        (login,) = broker.logins(event_site.vhost)
        broker.change_password(login, "another")
        broker.cut_off(login)
        side.remove_member(project, "ada")
        event_site.has(resource, event_site.cyd, event_site.svc)
        broker.delete_user(login)
        joins(event_site, project, resource, "eve", event_site.crs)
        assert listens(service)
    assert "Traceback" not in service.text


def listens(service: Service) -> bool:
    return service.process.poll() is None and "listening to events" in service.text


Calm = tuple[EventSite, Project, Resource, Service]


@pytest.mark.guarantee("events: The guarantee")
def test_messages_that_mean_nothing_do_not_keep_those_that_do_from_taking_effect(
    calm_testbed: Calm,
) -> None:
    event_site, project, resource, service = calm_testbed
    events = event_site.testbed.sandbox.events
    nonsense: list[Any] = [
        {},
        {"object_type": "order"},
        {"object_type": "order", "order_uuid": "x"},
        {"object_type": "order", "order_uuid": "1" * 32, "order_state": "pending provider"},
        {"object_type": "never heard of"},
        {"object_type": "user_role", "project_uuid": "2" * 32},
        {"object_type": "user_role", "filler": "x" * 3_000_000},
        {"object_type": "order", "offering_uuid": "0" * 32, "order_uuid": "1" * 32},
    ]
    for payload in nonsense:
        events.publish("order", payload)
    joins(event_site, project, resource, "cyd", event_site.cyd)
    eventually(lambda: "cannot parse message" in service.text, "a warning; the rest are counted")
    assert "Traceback" not in service.text
    assert service.process.poll() is None


@pytest.mark.guarantee("events: The guarantee")
@pytest.mark.guarantee("An event may be lost, repeated, late or out of order")
def test_events_before_their_change_is_visible_take_effect_all_the_same(
    calm_testbed: Calm,
) -> None:
    event_site, project, resource, _ = calm_testbed
    event_site.testbed.sandbox.events.lag_behind(1.0)
    joins(event_site, project, resource, "dan", event_site.svc)
    event_site.testbed.sandbox.events.lag_behind(0.0)


@pytest.mark.guarantee("events: The guarantee")
@pytest.mark.guarantee("An event may be lost, repeated, late or out of order")
def test_lost_repeated_and_overtaking_events_end_in_the_same_state(calm_testbed: Calm) -> None:
    event_site, project, resource, _ = calm_testbed
    events, side = event_site.testbed.sandbox.events, event_site.side
    event_site.testbed.person("eve", event_site.crs)
    events.disturb("duplicate", times=None)
    events.hold()
    for _ in range(5):
        side.add_member(project, "eve")
        side.remove_member(project, "eve")
    side.add_member(project, "eve")
    events.release("shuffled")
    eventually(lambda: event_site.crs in event_site.account(resource).users, "eve in the account")
    events.calm()


def test_messages_that_another_agent_took_come_back_when_it_dies(calm_testbed: Calm) -> None:
    event_site, project, resource, _ = calm_testbed
    broker, side, testbed = event_site.broker, event_site.side, event_site.testbed
    rival_login = "rival"
    broker.register(event_site.vhost, rival_login, "secret")
    (queue,) = broker.waiting(event_site.vhost)
    address = Address(broker.host, broker.stomp_ws_port, broker.stomp_ws_path, tls=False)
    rival = StompTransport(address).connect(
        Subscription(event_site.vhost, rival_login, "secret", (queue,), declared=True)
    )
    try:
        testbed.person("fay", event_site.oper)
        for slug in ("fay", "ada", "bob"):  # round robin: the rival gets some of them
            if slug == "fay":
                side.add_member(project, slug)
            else:
                side.remove_member(project, slug)
        eventually(lambda: rival.receive(0.2), "a message for the rival")
    finally:
        rival.close()
        broker.delete_user(rival_login)
    eventually(
        lambda: (
            event_site.oper in event_site.account(resource).users
            and event_site.ada not in event_site.account(resource).users
            and event_site.bob not in event_site.account(resource).users
        ),
        "the effect of every change",
    )


@pytest.mark.guarantee("events: The guarantee")
@pytest.mark.long
def test_an_agent_frozen_for_a_minute_goes_on_where_it_was(
    event_site: EventSite, settled: tuple[Project, Resource]
) -> None:
    project, resource = settled
    with event_site.agent() as service:
        service.send(signal.SIGSTOP)
        event_site.join(project, "cyd", event_site.cyd)
        time.sleep(60)
        service.send(signal.SIGCONT)
        eventually(
            lambda: event_site.cyd in event_site.account(resource).users, "cyd in the account"
        )
        joins(event_site, project, resource, "dan", event_site.svc)


@pytest.mark.guarantee("events: The guarantee")
@pytest.mark.long
def test_a_broker_that_falls_silent_is_noticed_and_left(
    event_site: EventSite, settled: tuple[Project, Resource]
) -> None:
    project, resource = settled
    with event_site.agent() as service:
        with event_site.broker.frozen():
            eventually(lambda: "not listening to events" in service.text, "the end of the wait")
        joins(event_site, project, resource, "cyd", event_site.cyd)
