"""Events: changes in the sandbox, sent to agents over a message broker as Waldur sends them."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal, TypeVar, get_args

from pydantic import JsonValue

from waldur_site_agent_sandbox import broker, rules, states
from waldur_site_agent_sandbox.broker import (
    BrokerAddress,
    BrokerTroubleError,
    Destination,
    NoBroker,
    Occurrence,
    RabbitManagement,
)
from waldur_site_agent_sandbox.records import (
    EventSubscription,
    JsonObject,
    OfferingUser,
    Order,
    Project,
    ProjectAccount,
    Resource,
    Role,
    subscription_queue_name,
)
from waldur_site_agent_sandbox.store import Store, Transaction, World


class Outbox:
    """A thread that sends messages one at a time. ``send`` must not raise."""

    def __init__(self, send: Callable[[Destination], None]) -> None:
        self._send = send
        self._waiting: list[tuple[float, int, Destination]] = []
        self._number = itertools.count()
        self._sending = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="sandbox-events", daemon=True)
        self._thread.start()

    def put(self, message: Destination, delay_seconds: float = 0.0) -> None:
        """Queue a message, optionally with a delay; messages due together keep their order."""
        with self._changed:
            due = time.monotonic() + delay_seconds
            heapq.heappush(self._waiting, (due, next(self._number), message))
            self._changed.notify_all()

    def settle(self, timeout_seconds: float) -> bool:
        """Wait until everything is sent, including delayed messages; return whether it was."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._sending, timeout_seconds
            )

    def close(self) -> None:
        """Stop; unsent messages are lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while (message := self._next()) is not None:
            self._send(message)
            with self._changed:
                self._sending = False
                self._changed.notify_all()

    def _next(self) -> Destination | None:
        with self._changed:
            while not self._closed:
                due = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if due is not None and due <= 0:
                    self._sending = True
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(due)
            return None


_SCHEMA_VERSION = 1


def plain_payload(what: Occurrence) -> JsonObject:
    """Build the payload for a queue with one kind of event."""
    return {**what.payload, "offering_uuid": what.offering}


def unified_payload(what: Occurrence) -> JsonObject:
    """Build the payload for an agent's unified queue."""
    envelope: JsonObject = {"object_type": what.object_type, "schema_version": _SCHEMA_VERSION}
    return {**plain_payload(what), **envelope, **what.more}


def destinations(tx: Transaction, what: Occurrence) -> list[Destination]:
    """List the messages for all subscribers that are allowed to see an event.

    A user with a unified queue gets nothing in the older queues.
    """
    if what.object_type not in tx.generation.event_types:
        return []
    return [*_unified(tx, what), *_of_subscriptions(tx, what)]


def _unified(tx: Transaction, what: Occurrence) -> Iterator[Destination]:
    for consumer in tx.world.event_consumers.values():
        identity = tx.world.agent_identities[consumer.identity]
        wanted = not consumer.object_types or what.object_type in consumer.object_types
        if identity.offering == what.offering and wanted and _may_know(tx, consumer.user, what):
            yield Destination(
                vhost=consumer.user,
                queue=consumer.queue,
                made_by_server=True,
                topic=None,
                payload=unified_payload(what),
            )


def _of_subscriptions(tx: Transaction, what: Occurrence) -> Iterator[Destination]:
    unified_users = {row.user for row in tx.world.event_consumers.values()}
    made = {
        (row.subscription, row.offering, row.object_type)
        for row in tx.world.subscription_queues.values()
    }
    for row in tx.world.event_subscriptions.values():
        wish = (row.uuid, what.offering, what.object_type)
        if (
            row.user in unified_users
            or not _observes(row, what)
            or not _may_know(tx, row.user, what)
        ):
            continue
        if tx.generation.makes_queues and wish not in made:
            continue
        topic = f"subscription/{row.uuid}/offering/{what.offering}/{what.object_type}"
        yield Destination(
            vhost=row.user,
            queue=subscription_queue_name(*wish),
            made_by_server=tx.generation.makes_queues,
            topic=topic if tx.generation.publishes_over_mqtt else None,
            payload=plain_payload(what),
        )


def _observes(row: EventSubscription, what: Occurrence) -> bool:
    return any(_matches(each, what) for each in row.observable_objects)


def _matches(wish: JsonValue, what: Occurrence) -> bool:
    return isinstance(wish, dict) and wish.get("object_type") == what.object_type


def _may_know(tx: Transaction, user: str, what: Occurrence) -> bool:
    return rules.visibility_of(tx, tx.world.users[user]).as_provider(what.offering)


_OLD_ORDER_STATES = frozenset({"pending-provider", "pending-consumer", "done"})


def offerings_of(tx: Transaction, project: str) -> list[str]:
    """List the offerings whose agents get events about a project's members and accounts."""
    older = not tx.generation.tells_roles_of_live_resources
    found = (
        row.offering
        for row in tx.world.resources.values()
        if row.project == project and (row.state == "OK" if older else row.state != "Terminated")
    )
    return list(dict.fromkeys(found))


def of_order(tx: Transaction, old: Order | None, new: Order | None) -> Iterator[Occurrence]:
    """Announce an order's new state; older servers skip some states."""
    if new is None or (old is not None and old.state == new.state):
        return
    if tx.generation.tells_every_order_state or new.state in _OLD_ORDER_STATES:
        yield order(tx, new)


def order(tx: Transaction, row: Order) -> Occurrence:
    """Build the event for an order."""
    resource = tx.world.resources[row.resource]
    project = tx.world.projects[row.project]
    payload: JsonObject = {"order_uuid": row.uuid}
    if tx.generation.reached(7, 6, 5):
        payload["order_state"] = row.state
    return Occurrence(
        object_type="order",
        offering=row.offering,
        payload=payload,
        more={
            "order_type": row.type,
            "resource_uuid": resource.uuid,
            "resource_backend_id": resource.backend_id,
            "resource_name": resource.name,
            "project_uuid": project.uuid,
            "project_name": project.name,
            "attributes": row.attributes,
            "limits": row.limits,
        },
    )


def of_flags(tx: Transaction, old: Resource | None, new: Resource | None) -> Iterator[Occurrence]:
    """Announce changed flags of a resource: paused, downscaled, restricted access."""
    if old is None or new is None or _flags(old) == _flags(new):
        return
    yield resource(tx, new)


def resource(tx: Transaction, row: Resource) -> Occurrence:
    """Build the event for a resource."""
    project = tx.world.projects[row.project]
    return Occurrence(
        object_type="resource",
        offering=row.offering,
        payload={
            "resource_uuid": row.uuid,
            "resource_backend_id": row.backend_id,
            **_flags(row),
        },
        more={
            "resource_name": row.name,
            "resource_state": row.state,
            "project_uuid": project.uuid,
            "project_name": project.name,
            "limits": row.limits,
        },
    )


def _flags(row: Resource) -> JsonObject:
    return {
        "downscaled": row.downscaled,
        "restrict_member_access": row.restrict_member_access,
        "paused": row.paused,
    }


_WATCHED = (
    "username",
    "state",
    "is_restricted",
    "service_provider_comment",
    "service_provider_comment_url",
)


def of_offering_user(
    tx: Transaction, old: OfferingUser | None, new: OfferingUser | None
) -> Iterator[Occurrence]:
    """Announce an account that was created, changed or deleted, and separately a new username."""
    row = new or old
    if row is None:
        return
    if new is None:
        yield _of_account(row, {"action": "delete"})
        return
    if old is None:
        attributes: JsonObject = {"email": tx.world.users[row.user].email}
        yield _of_account(row, {**_state(tx, row), "action": "create", "attributes": attributes})
    else:
        changed: list[JsonValue] = [
            name for name in _WATCHED if getattr(old, name) != getattr(new, name)
        ]
        if not changed:
            return
        yield _of_account(row, {**_state(tx, row), "action": "update", "changed_fields": changed})
    if new.username and (old is None or old.username != new.username):
        yield _of_account(row, _username_set(tx, new))


def _of_account(row: OfferingUser, payload: JsonObject) -> Occurrence:
    identity: JsonObject = {
        "offering_user_uuid": row.uuid,
        "user_uuid": row.user,
        "username": row.username,
    }
    return Occurrence(
        object_type="offering_user", offering=row.offering, payload={**identity, **payload}
    )


def _state(tx: Transaction, row: OfferingUser) -> JsonObject:
    state: JsonObject = {"state": row.state}
    return state | ({"runtime_state": "Active"} if tx.generation.reached(8) else {})


def _username_set(tx: Transaction, row: OfferingUser) -> JsonObject:
    """Add the state as the number that the database uses."""
    known = row.state in states.STATES
    number = states.STATES.index(row.state) + 1 if known else 0
    payload: JsonObject = {"action": "username_set", "state": number}
    if tx.generation.reached(8, 1):
        projects = {
            role.scope
            for role in tx.world.active_roles(tx.now)
            if role.user == row.user and role.scope_type == "project"
        }
        payload["resource_backend_ids"] = [
            resource.backend_id
            for resource in tx.world.resources.values()
            if resource.offering == row.offering
            and resource.project in projects
            and resource.backend_id
        ]
    return payload


def of_project_account(
    tx: Transaction, old: ProjectAccount | None, new: ProjectAccount | None
) -> Iterator[Occurrence]:
    """Announce a project's account that got a username or was closed."""
    if new is None:
        return
    named = bool(new.username) and (old is None or old.username != new.username)
    closed = new.state == "Closed" and (old is None or old.state != "Closed")
    if not (named or closed):
        return
    project = tx.world.projects[new.project]
    for offering in offerings_of(tx, project.uuid):
        yield Occurrence(
            object_type=f"{new.kind}_account",
            offering=offering,
            payload={
                "account_uuid": new.uuid,
                "account_username": new.username,
                "scope_type": "project",
                "project_uuid": project.uuid,
                "project_name": project.name,
                "action": "delete" if closed else "create",
            },
        )


Disturbance = Literal["lose", "duplicate", "delay"]
"""
lose       the event is never sent
duplicate  it is sent twice
delay      it is sent ``seconds`` later, so that others overtake it
"""

ReleaseOrder = Literal["as it was", "reversed", "shuffled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One published event."""

    object_type: str
    offering: str
    payload: JsonObject
    """In the newest format that the server knows; each destination has its own."""
    destinations: tuple[Destination, ...]
    """The messages to send, one for each queue."""
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    kind: Disturbance
    object_type: str
    times: int | None
    seconds: float


class EventBus:
    """Publishes events for every change of the store; without a broker it only records them."""

    def __init__(self, store: Store) -> None:
        self.published: list[Event] = []
        """All events, oldest first, whether or not they reached an agent."""
        self.failures: list[str] = []
        """Messages that the broker did not accept, with the reason; they are not sent again."""
        self._store = store
        self._management: RabbitManagement | None = None
        self._outbox: Outbox | None = None
        self._trouble: list[_Trouble] = []
        self._held: list[Destination] | None = None
        self._numbers: Counter[str] = Counter()
        self._lock = threading.RLock()

    # The broker

    def attach(self, address: BrokerAddress) -> None:
        """Use a real broker for registrations and events."""
        self.detach()
        with self._lock:
            self._management = RabbitManagement(address)
            self._store.broker = self._management
            self._outbox = Outbox(lambda message: self._send(address, message))

    def detach(self) -> None:
        """Stop using the broker; unsent messages are lost."""
        with self._lock:
            management, self._management = self._management, None
            outbox, self._outbox = self._outbox, None
            self._store.broker = NoBroker()
        if outbox is not None:
            outbox.close()
        if management is not None:
            management.close()

    def settle(self, timeout_seconds: float = 30.0) -> None:
        """Wait until all events are sent, except held ones.

        Raises:
            TimeoutError: It took too long.
        """
        outbox = self._outbox
        if outbox is not None and not outbox.settle(timeout_seconds):
            raise TimeoutError(f"events are still not sent after {timeout_seconds} s")

    # Publishing

    def notice(self, before: World, tx: Transaction) -> None:
        """Publish the events for a change of the store."""
        for what in occurrences(before, tx):
            self.announce(what, tx)

    def announce(self, what: Occurrence, tx: Transaction) -> None:
        """Publish an event to its subscribers; older servers know fewer kinds."""
        if what.object_type not in tx.generation.event_types:
            return
        if what.object_type == "resource" and tx.generation.reached(8):
            what = replace(what, payload={**what.payload, "sequence_number": self._count(what)})
        self._publish(what, tx)

    def publish(self, object_type: str, payload: JsonObject, offering: str | None = None) -> Event:
        """Publish an arbitrary payload to the subscribers of a kind of event.

        Nothing is added to the payload, and nothing is required of it. Without ``offering`` it goes
        to the agents of the first one.
        """
        tx = self._store.read()
        place = offering or next(iter(tx.world.offerings))
        what = Occurrence(object_type=object_type, offering=place, payload={})
        queues = tuple(replace(each, payload=payload) for each in destinations(tx, what))
        return self._record(what, payload, queues, tx)

    def of(self, object_type: str) -> list[Event]:
        """Return the published events of a kind."""
        return [each for each in list(self.published) if each.object_type == object_type]

    # Disturbances

    def disturb(
        self,
        kind: Disturbance,
        *,
        object_type: str = "*",
        times: int | None = 1,
        seconds: float = 1.0,
    ) -> None:
        """Disturb the next ``times`` events of a kind, or all of them if it is None.

        Raises:
            ValueError: There is no such disturbance.
        """
        if kind not in get_args(Disturbance):
            known = ", ".join(get_args(Disturbance))
            raise ValueError(f"{kind!r} is not a disturbance; use one of {known}")
        with self._lock:
            self._trouble.append(
                _Trouble(kind=kind, object_type=object_type, times=times, seconds=seconds)
            )

    def calm(self) -> None:
        """End all disturbances and send held events."""
        with self._lock:
            self._trouble.clear()
        self.release()

    def hold(self) -> None:
        """Hold events back."""
        with self._lock:
            self._held = [] if self._held is None else self._held

    def release(self, order: ReleaseOrder = "as it was", seed: int = 0) -> None:
        """Send held events in this order, and new ones immediately."""
        with self._lock:
            held, self._held = self._held or [], None
        if order == "reversed":
            held.reverse()
        elif order == "shuffled":
            random.Random(seed).shuffle(held)  # noqa: S311  # an order that can be had again
        for message in held:
            self._post(message)

    def lag_behind(self, seconds: float) -> None:
        """Show changes made in the portal to readers of the API only after a delay.

        Events are sent at once, so they arrive before a reader can see what they tell of: as on a
        server that sends them before its database has committed. A write of the agent's own shows
        everything.
        """
        self._store.commit_lag = seconds

    # Delivery

    def _count(self, what: Occurrence) -> int:
        with self._lock:
            subject = str(what.payload.get("resource_uuid"))
            self._numbers[subject] += 1
            return self._numbers[subject]

    def _publish(self, what: Occurrence, tx: Transaction) -> None:
        unified = tx.generation.has_unified_queues
        payload = unified_payload(what) if unified else plain_payload(what)
        self._record(what, payload, tuple(destinations(tx, what)), tx)

    def _record(
        self,
        what: Occurrence,
        payload: JsonObject,
        queues: tuple[Destination, ...],
        tx: Transaction,
    ) -> Event:
        event = Event(
            object_type=what.object_type,
            offering=what.offering,
            payload=payload,
            destinations=queues,
            time=tx.now,
        )
        with self._lock:
            self.published.append(event)
            trouble = self._strike(what.object_type)
            copies = 0 if "lose" in trouble else 2 if "duplicate" in trouble else 1
            delay = trouble["delay"].seconds if "delay" in trouble else 0.0
            for message in queues * copies:
                if self._held is None:
                    self._post(message, delay)
                else:
                    self._held.append(message)
        return event

    def _strike(self, object_type: str) -> dict[Disturbance, _Trouble]:
        met: dict[Disturbance, _Trouble] = {}
        left: list[_Trouble] = []
        for each in self._trouble:
            if each.kind in met or not fnmatchcase(object_type, each.object_type):
                left.append(each)
                continue
            met[each.kind] = each
            if each.times is None:
                left.append(each)
            elif each.times > 1:
                left.append(replace(each, times=each.times - 1))
        self._trouble = left
        return met

    def _post(self, message: Destination, delay_seconds: float = 0.0) -> None:
        if self._outbox is not None:
            self._outbox.put(message, delay_seconds)

    def _send(self, address: BrokerAddress, message: Destination) -> None:
        try:
            broker.send(address, message)
        except BrokerTroubleError as error:
            self.failures.append(str(error))


T = TypeVar("T")


def occurrences(before: World, tx: Transaction) -> Iterator[Occurrence]:
    """List the events for the difference between ``before`` and the world of ``tx``."""
    after = tx.world
    for old_order, order in _differences(before.orders, after.orders):
        yield from of_order(tx, old_order, order)
    for old_resource, resource in _differences(before.resources, after.resources):
        yield from of_flags(tx, old_resource, resource)
    for old_project, project in _differences(before.projects, after.projects):
        yield from _of_project(tx, old_project, project)
    for old_role, role in _differences(before.roles, after.roles):
        yield from _of_role(tx, old_role, role)
    for old_account, account in _differences(before.offering_users, after.offering_users):
        yield from of_offering_user(tx, old_account, account)
    for old_own, own in _differences(before.project_accounts, after.project_accounts):
        yield from of_project_account(tx, old_own, own)
    tables = (before.backend_resource_requests, after.backend_resource_requests)
    for old_request, request in _differences(*tables):
        if old_request is None and request is not None:
            yield Occurrence(
                object_type="importable_resources",
                offering=request.offering,
                payload={"backend_resource_request_uuid": request.uuid},
            )


def _of_project(tx: Transaction, old: Project | None, new: Project | None) -> Iterator[Occurrence]:
    """Announce every OK resource of a project that has moved to another organization."""
    if old is None or new is None or old.customer == new.customer:
        return
    for row in tx.world.resources.values():
        if row.project == new.uuid and row.state == "OK":
            yield resource(tx, row)


def _differences(
    before: Mapping[str, T], after: Mapping[str, T]
) -> Iterator[tuple[T | None, T | None]]:
    """Yield added, removed and changed rows; records are frozen, so identity is compared."""
    if before == after:
        return
    for uuid, row in after.items():
        old = before.get(uuid)
        if old is not row:
            yield old, row
    for uuid, row in before.items():
        if uuid not in after:
            yield row, None


def _of_role(tx: Transaction, old: Role | None, new: Role | None) -> Iterator[Occurrence]:
    role = new or old
    if role is None or role.scope_type != "project" or (old is not None and new is not None):
        return
    person = tx.world.users[role.user]
    project = tx.world.projects[role.scope]
    for offering in offerings_of(tx, project.uuid):
        yield Occurrence(
            object_type="user_role",
            offering=offering,
            payload={
                "user_uuid": person.uuid,
                "user_username": person.username,
                "project_uuid": project.uuid,
                "project_name": project.name,
                "role_name": role.name,
                "granted": new is not None,
            },
            more={"user_email": person.email, "user_full_name": person.full_name},
        )
