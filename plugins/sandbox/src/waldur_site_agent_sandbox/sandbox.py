"""The ``Sandbox`` itself: its worker, its demo data and the routes of the customer's side."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from http import HTTPStatus
from pathlib import Path
from uuid import UUID, uuid4

from pydantic import ValidationError, validate_call
from pydantic_core import to_jsonable_python
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from waldur_site_agent_sandbox import records, server, states
from waldur_site_agent_sandbox.broker import BrokerAddress
from waldur_site_agent_sandbox.customer import CustomerSide
from waldur_site_agent_sandbox.events import EventBus
from waldur_site_agent_sandbox.faults import Faults
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.http import RefusedError
from waldur_site_agent_sandbox.identity_provider import introspection
from waldur_site_agent_sandbox.records import Customer, Offering, Order, Project, Task, User
from waldur_site_agent_sandbox.rules import Sessions
from waldur_site_agent_sandbox.server import InProcessTransport, WaldurApi
from waldur_site_agent_sandbox.store import Clock, Journal, Store, Transaction, World

_AGENT_USERNAME = "site-agent"
"""The username of the agent's user in Waldur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSite:
    """The service provider, its offering and the agent's user."""

    provider: Customer
    offering: Offering
    agent: User


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoWorld:
    """Two projects of one organization with five people, and an order for each project."""

    customer: Customer
    climate: Project
    physics: Project
    people: tuple[User, ...]
    orders: tuple[Order, ...]


class Worker:
    """Runs background tasks immediately, or, while paused, when ``run`` is called."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._busy = threading.Lock()
        self._paused = False

    def pause(self) -> None:
        """Stop running tasks, as if the server were busy."""
        self._paused = True

    def resume(self) -> None:
        """Run all waiting tasks, and new ones immediately."""
        self._paused = False
        self.run()

    @property
    def waiting(self) -> list[Task]:
        """Waiting tasks, oldest first."""
        return sorted(self._store.read().world.tasks.values(), key=lambda task: task.created)

    def wake(self) -> None:
        """Run waiting tasks unless paused."""
        if not self._paused:
            self.run()

    def run(self) -> int:
        """Run all waiting tasks, and start orders whose start date has come.

        Returns:
            The number of tasks.
        """
        done = 0
        # A task may be added while the last one is finishing, so check again.
        while (self.waiting or _due_orders(self._store.read())) and self._busy.acquire(
            blocking=False
        ):
            try:
                done += self._run_all()
            finally:
                self._busy.release()
        return done

    def _run_all(self) -> int:
        done = 0
        if _due_orders(self._store.read()):
            with self._store.change() as tx:
                _start_due_orders(tx)
        while tasks := self.waiting:
            with self._store.change() as tx:
                _carry_out(tx, tasks[0])
            done += 1
        return done


def _due_orders(tx: Transaction) -> list[str]:
    today = tx.now.date()
    return [
        order.uuid
        for order in tx.world.orders.values()
        if order.state == "pending-start-date"
        and order.start_date is not None
        and order.start_date <= today
    ]


def _start_due_orders(tx: Transaction) -> None:
    for uuid in _due_orders(tx):
        states.start(tx, tx.world.orders[uuid])


def _carry_out(tx: Transaction, task: Task) -> None:
    if task.uuid not in tx.world.tasks:
        return
    tx.world.remove(task)
    if task.kind == "process_order" and task.subject in tx.world.orders:
        states.process(tx, tx.world.orders[task.subject])
    elif task.kind == "name_members" and task.subject in tx.world.resources:
        states.name_members(tx, tx.world.resources[task.subject])


class Sandbox:
    """An embedded Waldur that behaves like release ``server_version``.

    It starts with a provider, an offering with the limit components ``cpu`` and ``mem``, and a user
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
        worlds: Sequence[World] = (),
    ) -> None:
        """``clock`` and ``uuids`` make runs reproducible; ``worlds`` are past ones and the last."""
        self.server_version = server_version
        self.clock = clock or Clock()
        """The server's time; ``advance`` moves it forward."""
        self.requests = Journal()
        """All requests to Waldur's API."""
        self.faults = Faults()
        """Faults that are still to happen."""
        self._store = Store(Generation(server_version), self.clock, state_file, uuids, worlds)
        self._sessions = Sessions()
        self._turn = threading.Lock()
        self.worker = Worker(self._store)
        """Runs background tasks; pause it to provoke races."""
        self._store.after_change = self.worker.wake
        self.events = EventBus(self._store)
        """Events to agents, and how to disturb them."""
        self._store.after_commit = self.events.notice
        self._store.announce = self.events.announce
        self.customer = CustomerSide(self._store, self._sessions)
        """What people do in the portal."""
        if not self.customer.world.offerings:
            _open_site(self.customer, token_lifetime)

    @property
    def offering(self) -> Offering:
        """The first offering."""
        return next(iter(self.customer.world.offerings.values()))

    @property
    def provider(self) -> Customer:
        """The service provider of that offering."""
        return self.customer.world.customers[self.offering.customer]

    @property
    def agent(self) -> User:
        """The agent's user."""
        users = self.customer.world.users.values()
        return next(user for user in users if user.username == _AGENT_USERNAME)

    @property
    def token(self) -> str:
        """The token of that user."""
        return self.agent.token

    def staff(self) -> User:
        """Return a staff user, who has all permissions; the first call creates one."""
        users = self.customer.world.users.values()
        found = next((user for user in users if user.is_staff and user.is_active), None)
        return found or self.customer.add_user("staff", "Waldur Staff", is_staff=True)

    def copy(self) -> Sandbox:
        """Return another sandbox that begins as this one is now, with its past.

        Faults, logged requests, events and the broker are not taken along.
        """
        return Sandbox(self.server_version, clock=copy.copy(self.clock), worlds=self._store.worlds)

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
        """Use a RabbitMQ as its administrator for registrations and events.

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
        """Stop using the broker; events are only recorded."""
        self.events.detach()

    def trust(self, introspection_url: str, client_id: str, client_secret: str) -> None:
        """Accept access tokens (``Bearer``) of an identity provider, which is asked for each.

        The user is the one with the username that the provider names.
        """
        self._sessions.introspect = introspection(introspection_url, client_id, client_secret)

    def fill_demo(self) -> DemoWorld:
        """Create the demo's customers, projects, people and orders."""
        return _fill_demo(self.customer)

    @cached_property
    def app(self) -> Starlette:
        """The ASGI application: Waldur's ``/api/``, and ``/sandbox/`` for the customer's side."""
        return self._api.application([_customers_side(self)])

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serve in a thread on a free port; yields the URL ``http://127.0.0.1:PORT/api/``."""
        self._api.skip_latency(skip=False)
        with server.served(self.app) as address:
            try:
                yield f"{address}api/"
            finally:
                self._api.skip_latency()

    def transport(self) -> InProcessTransport:
        """Return a transport for an ``httpx.Client`` with the base URL ``server.ADDRESS``."""
        return InProcessTransport(self.app, self.clock, self._turn)

    @cached_property
    def _api(self) -> WaldurApi:
        return WaldurApi(self._store, self._sessions, self.faults, self.requests)


def _open_site(customer: CustomerSide, token_lifetime: int | None = None) -> ProviderSite:
    """Create a provider, an offering of type Marketplace.Slurm and the agent's user."""
    provider = customer.add_customer("Example Computing Centre")
    offering = customer.add_offering("Example Cluster", provider)
    customer.add_component("cpu", "limit", "k-Hours", offering, "CPU", unit_factor=60000)
    customer.add_component("mem", "limit", "GB-hours", offering, "RAM", unit_factor=61440)
    agent = customer.add_user(_AGENT_USERNAME, "Site Agent", token_lifetime=token_lifetime)
    customer.add_customer_role(provider, agent)
    return ProviderSite(provider=provider, offering=customer.current(offering), agent=agent)


def _fill_demo(customer: CustomerSide) -> DemoWorld:
    """Create the demo data, with a GPU component, two projects, five people and two orders."""
    customer.add_component("gres/gpu", "usage", "GPU-hours", name="GPU", unit_factor=60)
    university = customer.add_customer("University of Example", "uni")
    climate = customer.add_project("Climate model", university, "climate")
    physics = customer.add_project("Plasma physics", university, "physics")
    names = {
        "ada": "Ada Lovelace",
        "grace": "Grace Hopper",
        "alan": "Alan Turing",
        "emmy": "Emmy Noether",
        "lise": "Lise Meitner",
    }
    people = tuple(
        customer.add_user(username, full_name, f"{username}@example.org")
        for username, full_name in names.items()
    )
    for person in people:
        customer.set_account(person)
    for person in people[:3]:
        customer.add_member(climate, person, "admin" if person is people[0] else "member")
    for person in people[2:]:
        customer.add_member(physics, person, "admin" if person is people[-1] else "member")
    orders = (
        customer.place_create_order(climate, "Ocean runs", {"cpu": 600, "mem": 2000}),
        customer.place_create_order(physics, "Tokamak edge", {"cpu": 120, "mem": 480}),
    )
    return DemoWorld(
        customer=university, climate=climate, physics=physics, people=people, orders=orders
    )


Endpoint = Callable[[Request], Awaitable[Response]]
_PYTHON_ONLY = {"current", "edit", "world"}


def _customers_side(sandbox: Sandbox) -> Route:
    """One route for all; its endpoints are made for the first request: most sandboxes get none."""
    endpoints = cache(lambda: _endpoints(sandbox))

    async def endpoint(request: Request) -> Response:
        name = request.path_params["name"].removesuffix("/")
        method = "GET" if request.method == "HEAD" else request.method
        if found := endpoints().get((method, name)):
            return await found(request)
        known = {each for _, each in endpoints()}
        raise HTTPException(
            HTTPStatus.METHOD_NOT_ALLOWED if name in known else HTTPStatus.NOT_FOUND
        )

    return Route("/sandbox/{name:path}", endpoint, methods=["GET", "POST"])


def _endpoints(sandbox: Sandbox) -> Mapping[tuple[str, str], Endpoint]:
    """The endpoints of the customer's side, by method and name."""
    actions: dict[str, Callable[..., object]] = {
        name: method
        for name, method in inspect.getmembers(sandbox.customer, inspect.ismethod)
        if not name.startswith("_") and name not in _PYTHON_ONLY
    }
    actions |= {
        "run_worker": sandbox.worker.run,
        "pause_worker": sandbox.worker.pause,
        "resume_worker": sandbox.worker.resume,
        "add_fault": sandbox.faults.add,
        "clear_faults": sandbox.faults.clear,
        "clear_requests": sandbox.requests.clear,
        "advance_clock": sandbox.clock.advance,
        "publish_event": sandbox.events.publish,
        "disturb_events": sandbox.events.disturb,
        "calm_events": sandbox.events.calm,
        "hold_events": sandbox.events.hold,
        "release_events": sandbox.events.release,
        "lag_behind_events": sandbox.events.lag_behind,
    }
    views: dict[str, Callable[[], object]] = {
        "": lambda: _overview(list(views), actions),
        "world": lambda: sandbox.customer.world,
        "orders": lambda: list(sandbox.customer.world.orders.values()),
        "resources": lambda: list(sandbox.customer.world.resources.values()),
        "requests": sandbox.requests.snapshot,
        "faults": lambda: sandbox.faults.pending,
        "tasks": lambda: sandbox.worker.waiting,
        "events": lambda: list(sandbox.events.published),
    }
    endpoints = {("GET", name): _view(view) for name, view in views.items()}
    return endpoints | {("POST", name): _action(action) for name, action in actions.items()}


def _view(view: Callable[[], object]) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse(_without_tokens(view()))

    return endpoint


def _action(action: Callable[..., object]) -> Endpoint:
    # On the first request only: building all of them takes 40 ms, and most sandboxes get none.
    checked = cache(lambda: validate_call(action))

    async def endpoint(request: Request) -> Response:
        try:
            arguments = await request.json() if await request.body() else {}
            return JSONResponse(_without_tokens(checked()(**arguments)))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return _refusal(HTTPStatus.BAD_REQUEST, problems)
        except RefusedError as refusal:
            return _refusal(refusal.status, refusal.body)
        except (LookupError, ValueError, TypeError) as error:
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))

    return endpoint


def _refusal(status: int, reason: object) -> Response:
    return JSONResponse({"refused": to_jsonable_python(reason)}, int(status))


def _overview(
    views: Iterable[str], actions: Mapping[str, Callable[..., object]]
) -> dict[str, object]:
    return {
        "about": "the customer's side of the sandbox; POST a JSON object of arguments",
        "look": [f"/sandbox/{name}/" for name in views if name],
        "actions": {
            f"/sandbox/{name}/": {
                "does": inspect.getdoc(action),
                "arguments": str(inspect.signature(action)).replace(f"{records.__name__}.", ""),
            }
            for name, action in sorted(actions.items())
        },
    }


def _without_tokens(value: object) -> object:
    """Convert to JSON without tokens, which are printed once, at the start."""
    plain: object = to_jsonable_python(value)
    return _redacted(plain)


def _redacted(plain: object) -> object:
    if isinstance(plain, dict):
        return {key: "***" if key == "token" else _redacted(each) for key, each in plain.items()}
    return [_redacted(each) for each in plain] if isinstance(plain, list) else plain
