"""Tells agents what happened, keeps what was told, and makes trouble on the way on demand."""

import random
import threading
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal, get_args

from waldur_site_agent.sandbox.broker import (
    BrokerAddress,
    BrokerTroubleError,
    NoBroker,
    RabbitManagement,
)
from waldur_site_agent.sandbox.events import changes, senders
from waldur_site_agent.sandbox.events.occurrences import Destination, Occurrence
from waldur_site_agent.sandbox.events.outbox import Outbox
from waldur_site_agent.sandbox.events.recipients import (
    destinations,
    plain_payload,
    unified_payload,
)
from waldur_site_agent.sandbox.records import JsonObject
from waldur_site_agent.sandbox.store import Store, Transaction
from waldur_site_agent.sandbox.world import World

Disturbance = Literal["lose", "duplicate", "delay"]
"""
lose       the event is never sent
duplicate  it is sent twice
delay      it is sent ``seconds`` later, so that others overtake it
"""

Order = Literal["as it was", "reversed", "shuffled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that agents were told of."""

    object_type: str
    offering: str
    payload: JsonObject
    """In the newest form that the server knows; each destination has its own."""
    destinations: tuple[Destination, ...]
    """Messages that were meant to be sent, one for each queue."""
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    kind: Disturbance
    object_type: str
    times: int | None
    seconds: float


class EventBus:
    """Told of every change of the store. Without a broker attached, it only keeps a record."""

    def __init__(self, store: Store) -> None:
        self.published: list[Event] = []
        """What agents were told of, oldest first, whether or not it reached them."""
        self.failures: list[str] = []
        """Messages that the broker did not take, with the reason; they are not tried again."""
        self._store = store
        self._management: RabbitManagement | None = None
        self._outbox: Outbox | None = None
        self._trouble: list[_Trouble] = []
        self._held: list[Destination] | None = None
        self._numbers: Counter[str] = Counter()
        self._lock = threading.RLock()

    # The broker

    def attach(self, address: BrokerAddress) -> None:
        """Register and publish at a real broker from now on."""
        self.detach()
        with self._lock:
            self._management = RabbitManagement(address)
            self._store.broker = self._management
            self._outbox = Outbox(lambda message: self._send(address, message))

    def detach(self) -> None:
        """Leave the broker alone from now on; what waits to be sent is lost."""
        with self._lock:
            management, self._management = self._management, None
            outbox, self._outbox = self._outbox, None
            self._store.broker = NoBroker()
        if outbox is not None:
            outbox.close()
        if management is not None:
            management.close()

    def settle(self, timeout_seconds: float = 30.0) -> None:
        """Wait until everything is sent that is not held.

        Raises:
            TimeoutError: It took too long.
        """
        outbox = self._outbox
        if outbox is not None and not outbox.settle(timeout_seconds):
            raise TimeoutError(f"events are still not sent after {timeout_seconds} s")

    # What is told

    def notice(self, before: World, tx: Transaction) -> None:
        """Tell of a change of the world."""
        for what in changes.occurrences(before, tx):
            self.announce(what, tx)

    def announce(self, what: Occurrence, tx: Transaction) -> None:
        """Tell those who want to know; older servers know fewer kinds of events."""
        if what.object_type not in tx.generation.event_types:
            return
        if what.object_type == "resource" and tx.generation.reached(8):
            what = replace(what, payload={**what.payload, "sequence_number": self._count(what)})
        self._publish(what, tx)

    def publish(self, object_type: str, payload: JsonObject, offering: str | None = None) -> Event:
        """Tell of something that did not happen: any payload, to whoever listens.

        Nothing is added to the payload, and nothing is required of it. Without ``offering`` it goes
        to the agents of the first one.
        """
        tx = self._store.read()
        place = offering or next(iter(tx.world.offerings))
        what = Occurrence(object_type=object_type, offering=place, payload={})
        queues = tuple(replace(each, payload=payload) for each in destinations(tx, what))
        return self._record(what, payload, queues, tx)

    def of(self, object_type: str) -> list[Event]:
        """Give the published events of a kind."""
        return [each for each in list(self.published) if each.object_type == object_type]

    # Trouble

    def disturb(
        self,
        kind: Disturbance,
        *,
        object_type: str = "*",
        times: int | None = 1,
        seconds: float = 1.0,
    ) -> None:
        """Let something happen to the next events of a kind; without ``times``, to all of them.

        Raises:
            ValueError: There is no such disturbance.
        """
        if kind not in get_args(Disturbance):
            known = ", ".join(get_args(Disturbance))
            raise ValueError(f"{kind!r} is no disturbance; there are {known}")
        with self._lock:
            self._trouble.append(
                _Trouble(kind=kind, object_type=object_type, times=times, seconds=seconds)
            )

    def calm(self) -> None:
        """Let events go their way again; what is held is sent."""
        with self._lock:
            self._trouble.clear()
        self.release()

    def hold(self) -> None:
        """Let events pile up."""
        with self._lock:
            self._held = [] if self._held is None else self._held

    def release(self, order: Order = "as it was", seed: int = 0) -> None:
        """Send what has piled up, in this order, and from now on everything at once."""
        with self._lock:
            held, self._held = self._held or [], None
        if order == "reversed":
            held.reverse()
        elif order == "shuffled":
            random.Random(seed).shuffle(held)  # noqa: S311  # an order that can be had again
        for message in held:
            self._post(message)

    def lag_behind(self, seconds: float) -> None:
        """Show what people do in the portal only so much later to who reads over the API.

        Events are sent at once, so they arrive before a reader can see what they tell of: as on a
        server that sends them before its database has committed. A write of the agent's own shows
        everything.
        """
        self._store.commit_lag = seconds

    # Inside

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
            senders.send(address, message)
        except BrokerTroubleError as error:
            self.failures.append(str(error))
