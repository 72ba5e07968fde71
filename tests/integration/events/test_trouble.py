"""Agents that are killed, brokers that break, messages that lie: the outcome arrives."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from harness import Service, eventually
from integration.events.conftest import Village
from waldur_site_agent.events.broker import Address, Subscription
from waldur_site_agent.events.stomp import StompTransport
from waldur_site_agent_sandbox import Order, Project, Resource

pytestmark = [pytest.mark.slurm, pytest.mark.rabbitmq]


class Storm:
    """Changes in Waldur without a pause, and what has to come of them."""

    def __init__(self, village: Village, seed: int) -> None:
        self.village, self.chance = village, random.Random(seed)  # noqa: S311 - a storm that can be had again
        self.projects: list[Project] = [village.project(f"storm{n}") for n in range(4)]
        house = village.house
        self.people = {"cyd": village.cyd, "dan": village.svc, "eve": village.crs}
        for name, username in self.people.items():
            house.person(name, username)
        self.teams: dict[str, set[str]] = {
            project.uuid: {village.ada, village.bob} for project in self.projects
        }
        self.orders: list[Order] = []
        self.creates: list[tuple[Project, Order]] = []

    def blow(self, changes: int) -> None:
        """Make so many changes."""
        for number in range(changes):
            if number % 8 == 0 and len(self.creates) < 6:
                project = self.chance.choice(self.projects)
                order = self.village.house.order(project, f"run {number}", cpu=10)
                self.orders.append(order)
                self.creates.append((project, order))
            else:
                self._change_a_role()

    def _change_a_role(self) -> None:
        side, project = self.village.side, self.chance.choice(self.projects)
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
        house = self.village.house
        if any(house.state(order) != "done" for order in self.orders):
            return False
        return all(
            self.village.account(house.resource(order)).users == self.teams[project.uuid]
            for project, order in self.creates
        )


def outlive(village: Village, storm: Storm, changes: int, kills: int) -> None:
    """Kill the agent again and again while changes pour in; then let one agent finish."""
    left, chance = changes, random.Random(changes)  # noqa: S311 - the same moments again
    for kill in range(kills):
        with village.site.service("-m", "event_process") as service:
            portion = left // (kills - kill)
            storm.blow(portion)
            left -= portion
            eventually(lambda s=service: "connected" in s.text, "a start")  # type: ignore[misc]  # a loop variable as default
            time.sleep(chance.uniform(0, 1.5))  # a moment that nobody chose
            service.send(signal.SIGKILL)
            service.process.wait()
    with village.site.service("-m", "event_process") as service:
        eventually(lambda: "listening to events" in service.text, "the last subscription")
        eventually(storm.has_passed, "the effect of every change")
        village.settle()
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        assert "Traceback" not in service.text
    assert village.house.sandbox.requests.count("*_erred") == 0
    assert len(village.slurm.accounts(f"{village.prefix}a_")) == len(storm.creates)


def test_an_agent_killed_again_and_again_while_events_pour_in_loses_none(village: Village) -> None:
    outlive(village, Storm(village, 1), changes=40, kills=4)


@pytest.mark.long
def test_an_agent_killed_fifty_times_while_five_hundred_events_pour_in_loses_none(
    village: Village,
) -> None:
    outlive(village, Storm(village, 2), changes=500, kills=50)


@pytest.fixture
def settled(village: Village) -> tuple[Project, Resource]:
    (pair,) = village.open_projects("climate")
    return pair


def joins(village: Village, project: Project, resource: Resource, name: str, user: str) -> None:
    """Let somebody join, and wait until it has taken effect."""
    village.join(project, name, user)
    eventually(lambda: user in village.account(resource).users, f"{name} in the account")


def test_whatever_breaks_at_the_broker_the_agent_listens_again(
    village: Village, settled: tuple[Project, Resource]
) -> None:
    project, resource = settled
    broker, side = village.broker, village.side
    with village.agent() as service:
        village.house.person("cyd", village.cyd)
        broker.kill()
        side.remove_member(project, "bob")  # the event is lost: nobody takes it
        broker.start()
        village.has(resource, village.ada)
        (queue,) = broker.waiting(village.vhost)
        broker.delete_queue(village.vhost, queue)
        side.add_member(project, "cyd")
        village.has(resource, village.ada, village.cyd)
        broker.delete_vhost(village.vhost)
        joins(village, project, resource, "dan", village.svc)
        (login,) = broker.logins(village.vhost)
        broker.change_password(login, "another")
        broker.cut_off(login)
        side.remove_member(project, "ada")
        village.has(resource, village.cyd, village.svc)
        broker.delete_user(login)
        joins(village, project, resource, "eve", village.crs)
        assert listens(service)
    assert "Traceback" not in service.text


def listens(service: Service) -> bool:
    return service.process.poll() is None and "listening to events" in service.text


Calm = tuple[Village, Project, Resource, Service]


def test_messages_that_mean_nothing_do_not_keep_those_that_do_from_taking_effect(
    calm_village: Calm,
) -> None:
    village, project, resource, service = calm_village
    events = village.house.sandbox.events
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
    joins(village, project, resource, "cyd", village.cyd)
    eventually(lambda: service.text.count("message not understood") >= 3, "warnings")
    assert "Traceback" not in service.text
    assert service.process.poll() is None


def test_events_before_their_change_is_visible_take_effect_all_the_same(
    calm_village: Calm,
) -> None:
    village, project, resource, _ = calm_village
    village.house.sandbox.events.lag_behind(1.0)
    joins(village, project, resource, "dan", village.svc)
    village.house.sandbox.events.lag_behind(0.0)


def test_lost_repeated_and_overtaking_events_end_in_the_same_state(calm_village: Calm) -> None:
    village, project, resource, _ = calm_village
    events, side = village.house.sandbox.events, village.side
    village.house.person("eve", village.crs)
    events.disturb("duplicate", times=None)
    events.hold()
    for _ in range(5):
        side.add_member(project, "eve")
        side.remove_member(project, "eve")
    side.add_member(project, "eve")
    events.release("shuffled")
    eventually(lambda: village.crs in village.account(resource).users, "eve in the account")
    events.calm()


def test_messages_that_another_agent_took_come_back_when_it_dies(calm_village: Calm) -> None:
    village, project, resource, _ = calm_village
    broker, side, house = village.broker, village.side, village.house
    rival_login = "rival"
    broker.register(village.vhost, rival_login, "secret")
    (queue,) = broker.waiting(village.vhost)
    address = Address(broker.host, broker.stomp_ws_port, broker.stomp_ws_path, tls=False)
    rival = StompTransport(address).connect(
        Subscription(village.vhost, rival_login, "secret", (queue,), declared=True)
    )
    try:
        house.person("fay", village.oper)
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
            village.oper in village.account(resource).users
            and village.ada not in village.account(resource).users
            and village.bob not in village.account(resource).users
        ),
        "the effect of every change",
    )


@pytest.mark.long
def test_an_agent_frozen_for_a_minute_goes_on_where_it_was(
    village: Village, settled: tuple[Project, Resource]
) -> None:
    project, resource = settled
    with village.agent() as service:
        service.send(signal.SIGSTOP)
        village.join(project, "cyd", village.cyd)
        time.sleep(60)
        service.send(signal.SIGCONT)
        eventually(lambda: village.cyd in village.account(resource).users, "cyd in the account")
        joins(village, project, resource, "dan", village.svc)


@pytest.mark.long
def test_a_broker_that_falls_silent_is_noticed_and_left(
    village: Village, settled: tuple[Project, Resource]
) -> None:
    project, resource = settled
    with village.agent() as service:
        with village.broker.frozen():
            eventually(lambda: "not listening to events" in service.text, "the end of the wait")
        joins(village, project, resource, "cyd", village.cyd)
