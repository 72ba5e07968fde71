"""A Waldur in one object."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import uuid4

from waldur_site_agent.sandbox import customer_http, demo, server
from waldur_site_agent.sandbox.asgi import WaldurSurface
from waldur_site_agent.sandbox.broker import BrokerAddress
from waldur_site_agent.sandbox.customer import CustomerSide
from waldur_site_agent.sandbox.events import EventBus
from waldur_site_agent.sandbox.faults import Faults
from waldur_site_agent.sandbox.generations import Generation
from waldur_site_agent.sandbox.in_process import InProcessTransport
from waldur_site_agent.sandbox.journal import Journal
from waldur_site_agent.sandbox.sessions import Sessions
from waldur_site_agent.sandbox.store import Clock, Store
from waldur_site_agent.sandbox.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from starlette.applications import Starlette

    from waldur_site_agent.sandbox.demo import DemoWorld
    from waldur_site_agent.sandbox.records import Customer, Offering, User


class Sandbox:
    """An embedded Waldur that speaks as a server of ``server_version`` does.

    It begins with a provider, an offering with the limit components ``cpu`` and ``mem``, and a user
    for the agent; with ``state_file``, it begins where the last one with that file ended.
    """

    def __init__(
        self,
        server_version: str = "8.1.3",
        *,
        state_file: Path | None = None,
        token_lifetime: int | None = None,
        clock: Clock | None = None,
        uuids: Callable[[], UUID] = uuid4,
    ) -> None:
        """``clock`` and ``uuids`` make what happens repeatable, for tests."""
        self.server_version = server_version
        self.clock = clock or Clock()
        """The server's time; ``advance`` lets it pass."""
        self.requests = Journal()
        """What was asked through Waldur's API."""
        self.faults = Faults()
        """Trouble to come."""
        self._store = Store(Generation(server_version), self.clock, state_file, uuids)
        self._sessions = Sessions()
        self.worker = Worker(self._store)
        """What the server does by itself after it answered; pause it to see races."""
        self._store.after_change = self.worker.wake
        self.events = EventBus(self._store)
        """What agents are told of, and trouble on the way."""
        self._store.after_commit = self.events.notice
        self._store.announce = self.events.announce
        self.customer = CustomerSide(self._store, self._sessions)
        """What people do in the portal."""
        if not self.customer.world.offerings:
            demo.open_site(self.customer, token_lifetime)

    @property
    def offering(self) -> Offering:
        """The first offering there is."""
        return next(iter(self.customer.world.offerings.values()))

    @property
    def provider(self) -> Customer:
        """The organization that sells it."""
        return self.customer.world.customers[self.offering.customer]

    @property
    def agent(self) -> User:
        """The user that was made for the agent."""
        users = self.customer.world.users.values()
        return next(user for user in users if user.username == demo.AGENT_USERNAME)

    @property
    def token(self) -> str:
        """The token of that user."""
        return self.agent.token

    def staff(self) -> User:
        """Give a user of Waldur's staff, who may do everything; the first call makes one."""
        users = self.customer.world.users.values()
        found = next((user for user in users if user.is_staff and user.is_active), None)
        return found or self.customer.add_user("staff", "Waldur Staff", is_staff=True)

    def attach_broker(
        self,
        management_url: str,
        username: str,
        password: str,
        *,
        stomp_port: int,
        host: str = "127.0.0.1",
        mqtt_port: int | None = None,
    ) -> None:
        """Use a RabbitMQ, as its administrator, for registrations and events from now on.

        ``management_url`` is such as ``http://127.0.0.1:15672``; the STOMP and MQTT ports are those
        of plain TCP, at ``host``.
        """
        self.events.attach(
            BrokerAddress(
                management_url=management_url,
                username=username,
                password=password,
                host=host,
                stomp_port=stomp_port,
                mqtt_port=mqtt_port,
            )
        )

    def detach_broker(self) -> None:
        """Only keep a record of events from now on, and register nothing anywhere."""
        self.events.detach()

    def fill_demo(self) -> DemoWorld:
        """Make the demo's customers, projects, people and orders."""
        return demo.fill(self.customer)

    @cached_property
    def app(self) -> Starlette:
        """The ASGI application: Waldur's ``/api/``, and ``/sandbox/`` for the customer's side."""
        return self._surface.application(customer_http.routes(self))

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serve in a thread, at a free port; gives the API's address ``http://127.0.0.1:PORT/api/``."""
        self._surface.hurry(hurried=False)
        with server.served(self.app) as address:
            try:
                yield f"{address}api/"
            finally:
                self._surface.hurry()

    def transport(self) -> InProcessTransport:
        """Take requests of an ``httpx.Client`` for ``in_process.ADDRESS`` without a network."""
        return InProcessTransport(self.app, self.clock)

    @cached_property
    def _surface(self) -> WaldurSurface:
        return WaldurSurface(self._store, self._sessions, self.faults, self.requests)
