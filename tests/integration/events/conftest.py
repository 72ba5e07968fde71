from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import Service, SimulatedSite, a_simulated_site, eventually
from integration.membership.conftest import Account, SlurmSite
from waldur_site_agent_sandbox import Project, Resource

AT_ONCE = {
    "waldur_site_agent.events.listener.SECONDS_BETWEEN_CATCH_UPS": 1.0,
    "waldur_site_agent.events.listener.LONGEST_PAUSE": 3.0,
    "waldur_site_agent.service.worker.SECONDS_FOR_A_PREDECESSOR_TO_STOP": 20.0,
}


class Associations(Account):
    """The associations of an account by one command: events are waited for by looking often."""

    def __init__(self, slurm: Any, name: str) -> None:
        found = (row.split("|") for row in slurm.associations(f"{name}|"))
        self.rows = {row[1]: row for row in found}
        self.jobs = []


class EventSite(SlurmSite):
    """A sandbox that publishes to a real broker, a real cluster, and the agent between them."""

    def __init__(
        self, slurm: Any, broker: Any, testbed: SimulatedSite, directory: Path, prefix: str
    ) -> None:
        super().__init__(slurm, testbed, directory, prefix)
        self.broker = broker
        self.vhost = testbed.sandbox.agent.uuid
        testbed.sandbox.attach_broker(
            broker.management_url,
            broker.admin,
            broker.admin_password,
            stomp_port=broker.stomp_port,
            mqtt_port=broker.mqtt_port,
        )
        self.site.constants = AT_ONCE
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the configuration of an offering that follows events."""
        self.site.write(
            **{
                "membership_sync_backend": "slurm",
                "stomp_enabled": True,
                "websocket_use_tls": False,
                "stomp_ws_port": self.broker.stomp_ws_port,
                "mqtt_ws_port": self.broker.mqtt_ws_port,
                "resource_import_enabled": True,
            }
            | changes
        )

    def open_projects(self, *slugs: str) -> list[tuple[Project, Resource]]:
        """Projects of ada and bob, each with a resource whose account is there."""
        projects = [self.project(slug) for slug in slugs]
        orders = [self.testbed.order(project, project.slug, cpu=10) for project in projects]
        done = self.site.run("-m", "event_process", "--once")
        assert done.code == 0, done.err
        return list(zip(projects, map(self.testbed.resource, orders), strict=True))

    @contextmanager
    def agent(self, *arguments: str) -> Iterator[Service]:
        """The agent as a service that listens and has done its first full pass."""
        with self.site.service("-m", "event_process", *arguments) as service:
            eventually(lambda: "listening to events" in service.text, "a subscription")
            self.settle()
            yield service

    def settle(self) -> None:
        """Wait until every message is acknowledged."""
        self.testbed.sandbox.events.settle()
        eventually(self.is_quiet, "every message acknowledged")

    def is_quiet(self) -> bool:
        """Whether no message waits anywhere, twice in a row."""
        if any(sum(each) for each in self.broker.waiting(self.vhost).values()):
            return False
        time.sleep(0.2)  # a message on its way is in no queue
        return not any(sum(each) for each in self.broker.waiting(self.vhost).values())

    def has(self, resource: Resource, *users: str) -> None:
        """Wait until an account has exactly these users."""
        eventually(
            lambda: self.account(resource).users == set(users), f"{users} in {resource.name}"
        )

    def account(self, resource: Resource) -> Account:
        """What the cluster says about an account; its jobs have no part in these tests."""
        return Associations(self.slurm, self.side.current(resource).backend_id)

    def done(self, order: Any) -> Resource:
        """Wait until an order is done; give its resource."""
        eventually(lambda: self.testbed.state(order) == "done", "the order")
        return self.testbed.resource(order)

    def project(self, slug: str = "climate") -> Project:
        return self.testbed.project(slug, ada=self.ada, bob=self.bob)

    def close(self) -> None:
        self.testbed.sandbox.detach_broker()
        vhosts = {each["name"] for each in self.broker.request("GET", "vhosts").json()}
        if self.vhost in vhosts:
            self.broker.delete_vhost(self.vhost)


@contextmanager
def an_event_testbed(
    slurm: Any, broker: Any, directory: Path, prefix: str, version: str = "8.1.3"
) -> Iterator[EventSite]:
    with a_simulated_site(directory / "lock", version) as testbed, testbed.served():
        event_site = EventSite(slurm, broker, testbed, directory, prefix)
        try:
            yield event_site
        finally:
            event_site.close()


@pytest.fixture
def event_site(
    real_slurm: Any, real_rabbitmq: Any, tmp_path: Path, prefix: str
) -> Iterator[EventSite]:
    with an_event_testbed(real_slurm, real_rabbitmq, tmp_path, prefix) as event_site:
        yield event_site


@pytest.fixture(scope="module")
def calm_testbed(
    real_slurm: Any, real_rabbitmq: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EventSite, Project, Resource, Service]]:
    """One site for tests that break nothing: a project, its resource, and a running agent."""
    directory, prefix = tmp_path_factory.mktemp("event_site"), f"v{os.getpid() % 10000}"
    with an_event_testbed(real_slurm, real_rabbitmq, directory, prefix) as event_site:
        ((project, resource),) = event_site.open_projects("climate")
        with event_site.agent() as service:
            yield event_site, project, resource, service
    real_slurm.clean(prefix)
