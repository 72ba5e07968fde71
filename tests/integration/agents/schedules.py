"""Random schedules: customers and failures in an order that a seed gives, and what must be true."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import pg8000.native  # type: ignore[import-untyped]
import pymysql

from harness import eventually
from harness.several_agents import Agent, SeveralAgents
from waldur_site_agent.backends.database_session import DatabaseSession
from waldur_site_agent.config.database_url import DatabaseUrl
from waldur_site_agent_sandbox import Order, Project

_STEPS = 8
_LONGEST_PAUSE = 1.2
_PEOPLE = {"ada": "ada01", "bob": "bob01", "cyd": "cyd01"}


@dataclass
class Schedule:
    """Some agents, some customers, and what befalls them."""

    site: SeveralAgents
    seed: int
    agents: list[Agent] = field(default_factory=list)
    teams: dict[str, set[str]] = field(default_factory=dict)
    orders: list[tuple[Project, Order]] = field(default_factory=list)
    ended: list[Order] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """What happened, for whoever has to understand a failure."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311 - to be had again
        self.site.log.seconds_of_a_write = 0.03
        self.site.constants[f"{DatabaseSession.__module__}.SILENCE_SECONDS"] = 2.0
        self.projects = [self._project(slug) for slug in ("climate", "ocean")]

    def run(self) -> None:
        """Let it happen, then let everything heal, and look at the outcome."""
        self.agents = [self.site.start() for _ in range(3)]
        steps = {
            self._order: 4,
            self._change_team: 4,
            self._terminate: 1,
            self._kill: 2,
            self._freeze: 3,
            self._cut: 2,
            self._end_sessions: 1,
            self._heal: 1,
        }
        for _ in range(_STEPS):
            step = self.chance.choices(list(steps), list(steps.values()))[0]
            self.told.append(f"{time.monotonic():.2f} {step.__name__}")
            step()
            time.sleep(self.chance.uniform(0, _LONGEST_PAUSE))
        self._heal()
        try:
            self._look_at_the_outcome()
        except AssertionError as error:
            error.add_note(f"seed {self.seed} with {self.site.url.partition(':')[0]}: {self.told}")
            raise

    def _project(self, slug: str) -> Project:
        people = dict(list(_PEOPLE.items())[:2])
        project = self.site.testbed.project(slug, **people)
        self.site.testbed.person("cyd", _PEOPLE["cyd"])
        self.teams[project.uuid] = set(people.values())
        return project

    # what customers do

    def _order(self) -> None:
        project = self.chance.choice(self.projects)
        name = f"{project.slug}{len(self.orders)}"
        self.orders.append((project, self.site.testbed.order(project, name, cpu=10)))

    def _change_team(self) -> None:
        project = self.chance.choice(self.projects)
        name = self.chance.choice(sorted(_PEOPLE))
        side, team = self.site.testbed.sandbox.customer, self.teams[project.uuid]
        if _PEOPLE[name] in team:
            side.remove_member(project, name)
            team.remove(_PEOPLE[name])
        else:
            side.add_member(project, name)
            team.add(_PEOPLE[name])

    def _terminate(self) -> None:
        testbed = self.site.testbed
        open_ones = [
            (project, order)
            for project, order in self.orders
            if testbed.state(order) == "done" and testbed.resource(order).state == "OK"
        ]
        if open_ones:
            _, order = self.chance.choice(open_ones)
            resource = testbed.resource(order)
            self.ended.append(testbed.sandbox.customer.place_terminate_order(resource))

    # what happens to agents

    def _kill(self) -> None:
        agent = self.chance.choice(self.agents)
        self.agents.remove(agent)
        agent.kill()
        self.agents.append(self.site.start())

    def _freeze(self) -> None:
        self.chance.choice(self.agents).freeze()

    def _cut(self) -> None:
        self.chance.choice(self.agents).wire.cut()

    def _heal(self) -> None:
        for agent in self.agents:
            agent.thaw()
            agent.wire.mend()

    def _end_sessions(self) -> None:
        end_sessions(self.site.url, self.chance)

    # what must be true

    def _look_at_the_outcome(self) -> None:
        orders = [order for _, order in self.orders] + self.ended
        self.site.done(*orders)
        eventually(self._members_are_right, "everybody where they should be, and nobody else")
        overlapping = self.site.log.overlapping()
        assert overlapping == []
        eventually(lambda: len(self._completions()) == len(orders), "a note of every request")
        assert set(self._completions().values()) <= {1}
        for agent in self.agents:
            assert "Traceback" not in agent.service.text
            assert "s3cret" not in agent.service.text

    def _completions(self) -> Counter[str]:
        """How often each order was set to done."""
        return Counter(
            request.path
            for request in self.site.testbed.sandbox.requests.of("*orders_set_state_done")
            if request.status is not None and request.status < 300
        )

    def _members_are_right(self) -> bool:
        testbed = self.site.testbed
        gone = {testbed.resource(order).uuid for order in self.ended}
        return all(
            testbed.members(order) == self.teams[project.uuid]
            for project, order in self.orders
            if testbed.resource(order).uuid not in gone
        )


def end_sessions(url: str, chance: random.Random) -> None:
    """End one session of the agents, as an administrator does."""
    place = DatabaseUrl.parse(url)
    user, password, host, port = place.user, place.password, place.host, place.port
    if place.dialect == "postgresql":
        admin = pg8000.native.Connection(user, host, place.database, port, password)
        with suppress(pg8000.exceptions.Error):
            admin.run(
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
                "WHERE application_name LIKE '%(pid %' ORDER BY random() LIMIT 1) AS one"
            )
        admin.close()
        return
    login = pymysql.connect(user=user, password=password, host=host, port=port)
    with login as other, other.cursor() as cursor:
        cursor.execute("SELECT ID FROM information_schema.PROCESSLIST WHERE ID != CONNECTION_ID()")
        found = [number for (number,) in cursor.fetchall()]
        if found:  # on a busy machine all may have ended a moment ago
            with suppress(pymysql.Error):
                cursor.execute(f"KILL {int(chance.choice(found))}")
