"""The thread that listens: endless, watched, and harmless to whoever is at the other end."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
import structlog
import structlog.testing

from harness import eventually, patience
from waldur_site_agent.events import listener as listening
from waldur_site_agent.events.broker import (
    Connection,
    ConnectionLostError,
    Delivery,
    LoginRefusedError,
    Subscription,
)
from waldur_site_agent.events.listener import (
    HUNG_AFTER_SECONDS,
    SILENT_AFTER_SECONDS,
    ConnectionStatus,
    Listener,
    Watchdog,
    longest_pause,
)
from waldur_site_agent.events.pending import EventQueue
from waldur_site_agent.model.backend import Everything, ProjectScope
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.model.events import WaldurSnapshot
from waldur_site_agent.waldur import AbsentOperationError

OFFERING, PROJECT = uuid4(), uuid4()
LOG = structlog.get_logger()
SUBSCRIPTION = Subscription("vhost", "login", "password", ("queue",), declared=True)


class FakeConnection:
    def __init__(self) -> None:
        self.incoming: queue.Queue[Delivery | SiteAgentError] = queue.Queue()
        self.acknowledged: list[object] = []
        self.closed = False

    def receive(self, timeout_seconds: float) -> Delivery | None:
        if self.closed:
            raise ConnectionLostError("closed")
        try:
            found = self.incoming.get(timeout=min(timeout_seconds, 0.02))
        except queue.Empty:
            return None
        if isinstance(found, SiteAgentError):
            raise found
        return found

    def acknowledge(self, delivery: Delivery) -> None:
        if self.closed:
            raise ConnectionLostError("closed")
        self.acknowledged.append(delivery.ack)

    def close(self) -> None:
        self.closed = True

    def heard_seconds_ago(self) -> float:
        return 0.5


@dataclass
class FakeBroker:
    """Answers each try to connect with what was prepared, then with connections."""

    prepared: list[SiteAgentError | Exception] = field(default_factory=list)
    connections: list[FakeConnection] = field(default_factory=list)
    registrations: list[SiteAgentError | None] = field(default_factory=list)

    def connect(self, subscription: Subscription) -> Connection:
        assert subscription is SUBSCRIPTION
        if self.prepared:
            raise self.prepared.pop(0)
        self.connections.append(FakeConnection())
        return self.connections[-1]

    def subscribe(self, after: SiteAgentError | None = None) -> Subscription:
        self.registrations.append(after)
        return SUBSCRIPTION


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(listening, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(listening, "SECONDS_BETWEEN_CATCH_UPS", 0.0)


@pytest.fixture
def event_queue() -> EventQueue:
    return EventQueue(OFFERING, ["user_role"], LOG)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def listener(broker: FakeBroker, event_queue: EventQueue) -> Iterator[Listener]:
    listener = Listener(broker, broker, event_queue, LOG)
    yield listener
    listener.stop()


def role_change(number: int, about: object = PROJECT) -> Delivery:
    payload = {
        "object_type": "user_role",
        "offering_uuid": OFFERING.hex,
        "project_uuid": str(about),
    }
    return Delivery(json.dumps(payload).encode(), "queue", {}, redelivered=False, ack=number)


def test_every_new_subscription_asks_for_a_full_pass(
    listener: Listener, broker: FakeBroker, event_queue: EventQueue
) -> None:
    listener.start()
    for number in range(3):
        batch = event_queue.take(10)
        assert batch is not None
        assert batch.scopes == {Everything()}
        event_queue.passed(batch.entries, WaldurSnapshot())
        eventually(lambda n=number: listener.status.connections == n + 1, "the connection")  # type: ignore[misc]  # a loop variable as default
        broker.connections[-1].incoming.put(ConnectionLostError("cut"))


def test_it_goes_on_for_ever_whatever_goes_wrong(listener: Listener, broker: FakeBroker) -> None:
    broker.prepared = [
        *(ConnectionLostError("no route") for _ in range(20)),
        LoginRefusedError("password"),
        ZeroDivisionError("a defect"),
        *(ConnectionLostError("no route") for _ in range(20)),
    ]
    listener.start()
    eventually(lambda: broker.connections, "a connection after all")
    assert listener.is_alive


def test_a_refused_login_is_registered_again_at_once(
    listener: Listener, broker: FakeBroker
) -> None:
    refused = LoginRefusedError("password")
    broker.prepared = [ConnectionLostError("no route"), refused]
    listener.start()
    eventually(lambda: broker.connections, "a connection")
    assert broker.registrations == [None, refused]


def test_a_message_is_acknowledged_after_the_pass_that_covers_it(
    listener: Listener, broker: FakeBroker, event_queue: EventQueue
) -> None:
    listener.start()
    eventually(lambda: broker.connections, "a connection")
    (connection,) = broker.connections
    for number in range(100):
        connection.incoming.put(role_change(number))
    eventually(lambda: len(connection.acknowledged) == 99, "merged messages")
    batch = event_queue.take(10)
    assert batch is not None
    assert batch.scopes == {Everything(), ProjectScope(PROJECT)}
    assert 99 not in connection.acknowledged
    event_queue.passed(batch.entries, WaldurSnapshot())
    assert connection.acknowledged == list(range(100))
    assert event_queue.counts == {("user_role", "waiting"): 1, ("user_role", "merged"): 99}


def test_what_means_nothing_here_is_acknowledged_and_counted(
    listener: Listener, broker: FakeBroker, event_queue: EventQueue
) -> None:
    listener.start()
    eventually(lambda: broker.connections, "a connection")
    (connection,) = broker.connections
    foreign = json.dumps({"object_type": "user_role", "offering_uuid": uuid4().hex}).encode()
    unknown = json.dumps({"object_type": "news", "offering_uuid": OFFERING.hex}).encode()
    for number, body in enumerate([foreign, unknown, b"garbage"]):
        connection.incoming.put(Delivery(body, "queue", {}, redelivered=False, ack=number))
    eventually(lambda: connection.acknowledged == [0, 1, 2], "acknowledgements")
    assert event_queue.counts == {
        ("user_role", "foreign"): 1,
        ("other", "ignored"): 1,
        ("other", "unusable"): 1,
    }


def test_a_pass_that_ends_after_its_connection_does_no_harm(
    listener: Listener, broker: FakeBroker, event_queue: EventQueue
) -> None:
    listener.start()
    eventually(lambda: broker.connections, "a connection")
    broker.connections[0].incoming.put(role_change(1))
    eventually(lambda: event_queue.counts, "the message")
    batch = event_queue.take(10)
    assert batch is not None
    listener.drop_connection()
    event_queue.passed(batch.entries, WaldurSnapshot())
    eventually(lambda: len(broker.connections) == 2, "another connection")
    assert broker.connections[0].acknowledged == []


def test_a_connection_that_breaks_again_and_again_does_not_put_the_full_pass_off(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SECONDS_BETWEEN_CATCH_UPS", 30.0)
    now = [1000.0]
    event_queue = EventQueue(OFFERING, ["user_role"], LOG, clock=lambda: now[0])
    listener = Listener(broker, broker, event_queue, LOG, clock=lambda: now[0])
    listener.start()
    passes = 0
    for number in range(1, 31):
        eventually(lambda n=number: listener.status.connections == n, "the connection")  # type: ignore[misc]  # a loop variable as default
        passes += event_queue.take(0) is not None
        now[0] += 10
        broker.connections[-1].incoming.put(ConnectionLostError("cut"))
    eventually(lambda: listener.status.connections == 31, "the last connection")
    assert 10 <= passes <= 11
    event_queue.take(0)
    broker.connections[-1].incoming.put(ConnectionLostError("cut"))
    eventually(lambda: listener.status.connections == 32, "one that stays")
    now[0] += 30
    assert event_queue.take(0) is not None
    listener.stop()


def test_hours_without_a_broker_are_a_warning_now_and_then(broker: FakeBroker) -> None:
    now = [0.0]
    event_queue = EventQueue(OFFERING, ["user_role"], LOG)
    with structlog.testing.capture_logs() as logged:
        listener = Listener(
            broker, broker, event_queue, structlog.get_logger(), clock=lambda: now[0]
        )
        broker.prepared = [ConnectionLostError("no route") for _ in range(40)]
        listener.start()
        eventually(lambda: broker.connections, "a connection after all")
        broker.connections[-1].incoming.put(ConnectionLostError("no route"))
        eventually(lambda: len(broker.connections) == 2, "another one")
        listener.stop()
    tries = [each["log_level"] for each in logged if "will retry" in each["event"]]
    assert tries == ["warning", "warning"]


def test_a_server_without_events_is_asked_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # the real pauses
    tries = (1, 2, 4, 7, 11, 1000)
    absent = AbsentOperationError("HTTP 404")
    assert [longest_pause(number, absent) for number in tries] == [1, 2, 8, 64, 900, 900]
    lost = ConnectionLostError("no route")
    assert [longest_pause(number, lost) for number in tries] == [1, 2, 8, 60, 60, 60]


def test_a_stop_while_it_registers_is_no_defect(
    broker: FakeBroker, event_queue: EventQueue
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def register(_after: SiteAgentError | None = None) -> Subscription:
        began.set()
        go_on.wait(patience())
        raise RuntimeError("the client is closed")

    broker.subscribe = register  # type: ignore[method-assign,assignment]
    with structlog.testing.capture_logs() as logged:
        listener = Listener(broker, broker, event_queue, structlog.get_logger())
        listener.start()
        assert began.wait(patience())
        listener.stop()
        go_on.set()
        eventually(lambda: not listener.is_alive, "the end of the thread")
    assert logged == []


def test_a_thread_that_was_given_up_does_not_listen_after_all(
    broker: FakeBroker, event_queue: EventQueue
) -> None:
    listener = Listener(broker, broker, event_queue, LOG)
    connect, began, go_on = broker.connect, threading.Event(), threading.Event()

    def hang(subscription: Subscription) -> Connection:
        broker.connect = connect  # type: ignore[method-assign]
        began.set()
        go_on.wait(patience())
        return connect(subscription)

    broker.connect = hang  # type: ignore[method-assign]
    listener.start()
    assert began.wait(patience())
    listener.stop()
    listener.start()
    eventually(lambda: listener.status.connections == 1, "the connection of the new thread")
    go_on.set()
    eventually(lambda: len(broker.connections) == 2, "the late connection of the old one")
    eventually(lambda: broker.connections[1].closed, "its end")
    assert listener.status.connected_since is not None
    listener.stop()


@dataclass
class FakeListening:
    is_alive: bool = True
    silent: float | None = 0.0
    calls: list[str] = field(default_factory=list)

    @property
    def status(self) -> ConnectionStatus:
        return ConnectionStatus(heard_seconds_ago=self.silent)

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def drop_connection(self) -> None:
        self.calls.append("drop")


def test_a_dead_thread_is_started_again() -> None:
    found = FakeListening(is_alive=False)
    Watchdog(found, lambda: None, LOG).look()
    assert found.calls == ["start"]


def test_a_silent_connection_is_replaced_and_a_thread_that_hangs_in_it_given_up() -> None:
    found = FakeListening(silent=SILENT_AFTER_SECONDS - 1)
    watchdog = Watchdog(found, lambda: None, LOG)
    watchdog.look()
    assert found.calls == []
    found.silent = SILENT_AFTER_SECONDS
    watchdog.look()
    assert found.calls == ["drop"]
    watchdog.look()
    assert found.calls == ["drop", "stop", "start"]


def test_nothing_is_started_again_once_the_watch_has_ended() -> None:
    found = FakeListening(silent=SILENT_AFTER_SECONDS)
    watchdog = Watchdog(found, lambda: None, LOG)
    watchdog.look()
    found.stop = watchdog.stop  # type: ignore[method-assign]
    watchdog.look()
    assert found.calls == ["drop"]


def test_a_pass_that_does_not_move_is_noticed_and_one_that_does_is_not() -> None:
    now, progress = [0.0], [1]
    watchdog = Watchdog(FakeListening(), lambda: progress[0], LOG, clock=lambda: now[0])
    for _ in range(20):
        watchdog.look()
        now[0] += HUNG_AFTER_SECONDS - 1
        progress[0] += 1
    assert not watchdog.hung
    watchdog.look()
    now[0] += HUNG_AFTER_SECONDS
    watchdog.look()
    assert watchdog.hung
    progress[0] += 1
    watchdog.look()
    assert not watchdog.hung


def test_the_queue_wakes_the_worker_at_once(event_queue: EventQueue) -> None:
    found: list[object] = []
    waiter = threading.Thread(target=lambda: found.append(event_queue.take(30)))
    waiter.start()
    event_queue.want(ProjectScope(PROJECT))
    waiter.join(patience())
    assert not waiter.is_alive()
    assert found != [None]
