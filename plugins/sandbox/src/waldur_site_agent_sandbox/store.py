"""The content of the sandbox and its store: atomic changes, past states, the request log."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar, overload

from pydantic import JsonValue, TypeAdapter, ValidationError

from waldur_site_agent_sandbox.broker import BrokerAdmin, NoBroker, Occurrence
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.records import (
    AgentIdentity,
    AgentLog,
    AgentProcessor,
    AgentService,
    BackendResource,
    BackendResourceRequest,
    ComponentUsage,
    Customer,
    EventConsumer,
    EventSubscription,
    Offering,
    OfferingUser,
    Order,
    PeriodicPolicy,
    PolicyMessage,
    PolicyResult,
    Project,
    ProjectAccount,
    Resource,
    Role,
    SubscriptionQueue,
    Task,
    User,
    UserLimit,
    UserUsage,
)

Record = (
    Customer
    | Project
    | User
    | Role
    | Offering
    | Resource
    | Order
    | OfferingUser
    | ProjectAccount
    | UserLimit
    | PeriodicPolicy
    | PolicyMessage
    | PolicyResult
    | Task
    | ComponentUsage
    | UserUsage
    | AgentIdentity
    | AgentService
    | AgentProcessor
    | AgentLog
    | EventSubscription
    | SubscriptionQueue
    | EventConsumer
    | BackendResourceRequest
    | BackendResource
)

R = TypeVar("R", bound=Record)

_TABLES: dict[type, str] = {
    Customer: "customers",
    Project: "projects",
    User: "users",
    Role: "roles",
    Offering: "offerings",
    Resource: "resources",
    Order: "orders",
    OfferingUser: "offering_users",
    ProjectAccount: "project_accounts",
    UserLimit: "user_limits",
    PeriodicPolicy: "periodic_policies",
    PolicyMessage: "policy_messages",
    PolicyResult: "policy_results",
    Task: "tasks",
    ComponentUsage: "component_usages",
    UserUsage: "user_usages",
    AgentIdentity: "agent_identities",
    AgentService: "agent_services",
    AgentProcessor: "agent_processors",
    AgentLog: "agent_logs",
    EventSubscription: "event_subscriptions",
    SubscriptionQueue: "subscription_queues",
    EventConsumer: "event_consumers",
    BackendResourceRequest: "backend_resource_requests",
    BackendResource: "backend_resources",
}


def name_of_table(kind: type) -> str:
    """Name a kind of record in the plural."""
    return _TABLES[kind].replace("_", " ")


FINAL_ORDER_STATES = frozenset({"done", "erred", "canceled", "rejected"})


@dataclass(slots=True)
class World:
    """Tables of frozen records, by UUID. A committed world never changes."""

    customers: dict[str, Customer] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    offerings: dict[str, Offering] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    offering_users: dict[str, OfferingUser] = field(default_factory=dict)
    project_accounts: dict[str, ProjectAccount] = field(default_factory=dict)
    user_limits: dict[str, UserLimit] = field(default_factory=dict)
    periodic_policies: dict[str, PeriodicPolicy] = field(default_factory=dict)
    policy_messages: dict[str, PolicyMessage] = field(default_factory=dict)
    policy_results: dict[str, PolicyResult] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    component_usages: dict[str, ComponentUsage] = field(default_factory=dict)
    user_usages: dict[str, UserUsage] = field(default_factory=dict)
    agent_identities: dict[str, AgentIdentity] = field(default_factory=dict)
    agent_services: dict[str, AgentService] = field(default_factory=dict)
    agent_processors: dict[str, AgentProcessor] = field(default_factory=dict)
    agent_logs: dict[str, AgentLog] = field(default_factory=dict)
    event_subscriptions: dict[str, EventSubscription] = field(default_factory=dict)
    subscription_queues: dict[str, SubscriptionQueue] = field(default_factory=dict)
    event_consumers: dict[str, EventConsumer] = field(default_factory=dict)
    backend_resource_requests: dict[str, BackendResourceRequest] = field(default_factory=dict)
    backend_resources: dict[str, BackendResource] = field(default_factory=dict)

    def copy(self) -> World:
        """Copy the tables; the records are shared."""
        return World(**{name: dict(getattr(self, name)) for name in _TABLES.values()})

    def table(self, kind: type[R]) -> dict[str, R]:
        """Return the table of one kind of record."""
        table: dict[str, R] = getattr(self, _TABLES[kind])
        return table

    def put(self, record: R) -> R:
        """Store a record under its UUID and return it."""
        self.table(type(record))[record.uuid] = record
        return record

    def remove(self, record: Record) -> None:
        """Remove a record."""
        del getattr(self, _TABLES[type(record)])[record.uuid]

    def current(self, record: R) -> R:
        """Return this world's version of a record.

        Raises:
            KeyError: It does not exist.
        """
        return self.table(type(record))[record.uuid]

    def active_roles(self, now: datetime) -> Iterator[Role]:
        """Roles of active users that have not expired."""
        for role in self.roles.values():
            expired = role.expiration_time is not None and role.expiration_time <= now
            if not expired and self.users[role.user].is_active:
                yield role

    def team(self, project: str, now: datetime) -> list[Role]:
        """Active roles in a project; owners of its organization are not among them."""
        return [
            role
            for role in self.active_roles(now)
            if role.scope_type == "project" and role.scope == project
        ]

    def orders_of(self, resource: str) -> list[Order]:
        """Orders for one resource, oldest first."""
        orders = (order for order in self.orders.values() if order.resource == resource)
        return sorted(orders, key=lambda order: order.created)

    def order_in_progress(self, resource: str) -> Order | None:
        """The order on a resource that has not reached a final state."""
        open_orders = (o for o in self.orders_of(resource) if o.state not in FINAL_ORDER_STATES)
        return next(open_orders, None)

    def offering_user(self, offering: str, user: str) -> OfferingUser | None:
        """A person's account name at an offering."""
        found = (
            account
            for account in self.offering_users.values()
            if account.offering == offering and account.user == user
        )
        return next(found, None)

    def user_limit(self, resource: str, account: str, component_type: str) -> UserLimit | None:
        """What one person may use of one component of a resource."""
        wanted = (resource, account, component_type)
        found = (
            limit
            for limit in self.user_limits.values()
            if (limit.resource, limit.account, limit.component_type) == wanted
        )
        return next(found, None)

    def policies_of(self, offering: str) -> list[PeriodicPolicy]:
        """The rules that set limits at an offering."""
        return [policy for policy in self.periodic_policies.values() if policy.offering == offering]

    def customer_of(self, project: str) -> Customer:
        """The organization that a project belongs to."""
        return self.customers[self.projects[project].customer]


_REMEMBERED_CHANGES = 200
_WORLD = TypeAdapter(World)


class Clock:
    """The server's time, which can be moved forward. Never returns the same time twice."""

    def __init__(self, source: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """``source`` replaces the system clock, for tests."""
        self._source = source
        self._ahead = timedelta()
        self._last = datetime.min.replace(tzinfo=UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the time in UTC; each call returns a later one, so that ``created`` is unique."""
        with self._lock:
            now = self._source() + self._ahead
            self._last = max(now, self._last + timedelta(microseconds=1))
            return self._last

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        with self._lock:
            self._ahead += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One read or change of the world, with its time and the release to follow."""

    world: World
    now: datetime
    generation: Generation
    broker: BrokerAdmin = field(default_factory=NoBroker)
    uuids: Callable[[], uuid.UUID] = uuid.uuid4

    def new_uuid(self) -> str:
        """Return a new UUID."""
        return self.uuids().hex


class Store:
    """The current world, past ones, and optionally a file that keeps it across restarts.

    Raises:
        ValueError: The file does not contain a sandbox of this release.
    """

    def __init__(
        self,
        generation: Generation,
        clock: Clock,
        file: Path | None = None,
        uuids: Callable[[], uuid.UUID] = uuid.uuid4,
        worlds: Sequence[World] = (),
    ) -> None:
        """``worlds`` is what another store has had, and what it has now."""
        self.generation = generation
        self.clock = clock
        self._uuids = uuids
        self.after_change: Callable[[], None] = lambda: None
        """Called after each change, outside the lock, by the thread that made it."""
        self.after_commit: Callable[[World, Transaction], None] = lambda _before, _tx: None
        """Called with the world before and after each change, before ``after_change``."""
        self.announce: Callable[[Occurrence, Transaction], None] = lambda _what, _tx: None
        """Publishes an event that is not a change."""
        self.broker: BrokerAdmin = NoBroker()
        """The broker for event registrations."""
        self.commit_lag = 0.0
        """Seconds until readers of the API see a change that was made in the portal."""
        self._unseen: list[tuple[datetime, World]] = []
        self._file = file
        self._lock = threading.RLock()
        self._past: deque[World] = deque(worlds[:-1], maxlen=_REMEMBERED_CHANGES)
        self._world = worlds[-1] if worlds else World()
        if file is not None and file.exists():
            self._world = _restored(file)

    @property
    def worlds(self) -> Sequence[World]:
        """The past worlds that are remembered, and the present one."""
        with self._lock:
            return (*self._past, self._world)

    def read(self, changes_ago: int = 0) -> Transaction:
        """Read the world as it is, or as it was some changes ago."""
        with self._lock:
            back = min(changes_ago, len(self._past))
            world = self._past[-back] if back else self._world
        return Transaction(world, self.clock.now(), self.generation, self.broker, self._uuids)

    def read_committed(self, changes_ago: int = 0) -> Transaction:
        """Read the world as the API shows it: without changes that are not committed yet."""
        with self._lock:
            tx = self.read(changes_ago)
            self._unseen = [(seen, world) for seen, world in self._unseen if seen > tx.now]
            return replace(tx, world=self._unseen[0][1]) if self._unseen and not changes_ago else tx

    @contextmanager
    def change(self, *, at_once: bool = False) -> Iterator[Transaction]:
        """Change the world atomically: at the end everything takes effect, on an exception nothing.

        A change made ``at_once`` also commits all earlier ones.
        """
        with self._lock:
            before = self._world
            draft = before.copy()
            tx = Transaction(draft, self.clock.now(), self.generation, self.broker, self._uuids)
            yield tx
            changed = draft != before
            if changed:
                self._commit(draft, tx.now, at_once=at_once)
        if changed:
            self.after_commit(before, tx)
        self.after_change()

    def _commit(self, draft: World, now: datetime, *, at_once: bool) -> None:
        self._past.append(self._world)
        if at_once or not self.commit_lag:
            self._unseen.clear()
        else:
            self._unseen.append((now + timedelta(seconds=self.commit_lag), self._world))
        self._world = draft
        self._save()

    def _save(self) -> None:
        if self._file is None:
            return
        draft = self._file.with_name(self._file.name + ".new")
        draft.touch(mode=0o600)
        draft.write_bytes(_WORLD.dump_json(self._world, indent=1))
        draft.replace(self._file)


def _restored(file: Path) -> World:
    try:
        return _WORLD.validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the beginning"
        raise ValueError(
            f"{file}: not the state of a sandbox of this release ({place}: {first['msg']}); "
            "remove the file to start over"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Its headers are not kept, so the token is not either."""

    method: str
    operation: str
    """The operationId, such as ``marketplace_orders_list``; empty for an unknown path."""
    path: str
    query: str
    status: int | None
    """``None`` where the connection was cut before anything happened."""
    body: JsonValue
    answered: bool
    """False if the client never saw the status."""
    user_agent: str
    time: datetime


class Journal(Sequence[Request]):
    """Requests in the order of completion. Thread-safe."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        """Add a request."""
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        """Remove all requests."""
        with self._lock:
            self._requests.clear()

    def of(self, operation: str) -> list[Request]:
        """Return the requests of an operation, which may contain ``*`` and ``?``."""
        return [each for each in self.snapshot() if fnmatchcase(each.operation, operation)]

    def count(self, operation: object = "*") -> int:
        """Count the requests of an operation, or all of them."""
        return len(self.of(str(operation)))

    def writes(self) -> list[Request]:
        """Return all requests but GET and HEAD."""
        return [each for each in self.snapshot() if each.method not in {"GET", "HEAD"}]

    def by_operation(self) -> Counter[str]:
        """Count the requests of each operation."""
        return Counter(each.operation for each in self.snapshot())

    def snapshot(self) -> list[Request]:
        """Return a copy."""
        with self._lock:
            return list(self._requests)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        return self.snapshot()[index]

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.snapshot())
