"""Whoever can publish into the agent's queue: garbage, floods and frames that are none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from harness.patience import patience
from waldur_site_agent.events.broker import (
    MOST_WAITING,
    MOST_WAITING_BYTES,
    SECONDS_BETWEEN_WARNINGS,
    ConnectionLostError,
    Delivery,
    Mailbox,
    OccasionalWarning,
)
from waldur_site_agent.events.messages import Event, Ignored, OrderAnnounced, Unusable, read_message
from waldur_site_agent.events.pending import (
    MOST_HELD,
    MOST_PENDING,
    SECONDS_UNTIL_ALL,
    EventQueue,
    PendingScopes,
)
from waldur_site_agent.events.stomp import Decoder, FrameError, _heart_beats
from waldur_site_agent.model.backend import Everything, OrderScope
from waldur_site_agent.model.events import WaldurSnapshot

OFFERING = UUID(int=7)
QUEUE = f"subscription_{UUID(int=1).hex}_offering_{OFFERING.hex}_order"
NO_ORDER_THERE = WaldurSnapshot()
DEEP = b'{"a":' * 100_000
GARBAGE = [
    b"",
    b"\x00" * 100,
    b"\xff\xfe",
    b"[]",
    b"null",
    b"9" * 5000,
    DEEP,
    b"[" * 100_000,
    b'{"object_type": ["order"]}',
    b'{"object_type": "order", "order_uuid": 12}',
    b'{"object_type": "order", "order_uuid": "' + b"0" * 5000 + b'"}',
    b'{"object_type": "\\ud800\\u001b[2J"}',
    b'{"object_type": "order", "order_uuid": "' + b"9" * 32 + b'", "order_state": {"a": 1}}',
    b'{"object_type": "user_role", "granted": NaN, "project_uuid": Infinity}',
    b" " * (5 << 20),
]


class Acknowledging:
    def __init__(self) -> None:
        self.acknowledged: list[Delivery] = []

    def receive(self, timeout_seconds: float) -> Delivery | None:
        raise NotImplementedError

    def acknowledge(self, delivery: Delivery) -> None:
        self.acknowledged.append(delivery)

    def heard_seconds_ago(self) -> float:
        return 0.0

    def close(self) -> None:
        raise NotImplementedError


@pytest.fixture
def connection() -> Acknowledging:
    return Acknowledging()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def delivery(body: bytes, number: int = 0) -> Delivery:
    return Delivery(body, QUEUE, {}, redelivered=False, ack=str(number))


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:40]))
def test_garbage_is_a_message_that_cannot_be_used_and_no_defect(body: bytes) -> None:
    message = read_message(body, QUEUE, OFFERING)
    assert isinstance(message, Unusable | Ignored | Event)
    if isinstance(message, Unusable):
        assert len(message.reason) < 500


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["object_type", "order_uuid", "project_uuid", "offering_uuid", "x"]),
        inner | st.sampled_from(["order", "user_role", "resource", UUID(int=3).hex]),
    ),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_is_published_is_read_without_a_defect(body: bytes) -> None:
    read_message(body, QUEUE, OFFERING)


@pytest.mark.guarantee("security: Threat model")
def test_fifty_thousand_garbage_messages_are_acknowledged_with_a_few_warnings(
    connection: Acknowledging,
) -> None:
    clock = Clock()
    with capture_logs() as logged:
        queue = EventQueue(OFFERING, {"order"}, structlog.get_logger(), clock)
        for number in range(50_000):
            clock.now += 0.1
            queue.receive(delivery(b"garbage", number), connection)
    assert len(connection.acknowledged) == 50_000
    warnings = [entry for entry in logged if entry["log_level"] == "warning"]
    assert len(warnings) == -(-5000 // SECONDS_BETWEEN_WARNINGS)
    assert warnings[-1]["more_like_this"] == pytest.approx(6000, abs=2)


def test_a_first_warning_is_given_at_once_and_a_lone_one_later_has_no_count() -> None:
    clock = Clock()
    with capture_logs() as logged:
        warn = OccasionalWarning("odd", structlog.get_logger(), clock)
        warn(queue="a")
        clock.now = 2 * SECONDS_BETWEEN_WARNINGS
        warn(queue="b")
    assert [{**entry} for entry in logged] == [
        {"event": "odd", "log_level": "warning", "queue": name} for name in "ab"
    ]


@pytest.mark.guarantee("security: Threat model")
def test_a_flood_for_one_project_keeps_one_message_in_hand(connection: Acknowledging) -> None:
    queue = EventQueue(OFFERING, {"user_role"}, structlog.get_logger(), Clock())
    project = UUID(int=5).hex
    for number in range(20_000):
        body = {"object_type": "user_role", "project_uuid": project, "user_uuid": uuid4().hex,
                "role_name": "member", "granted": True}  # fmt: skip
        queue.receive(delivery(json.dumps(body).encode(), number), connection)
    assert len(connection.acknowledged) == 19_999


@pytest.mark.guarantee("security: Threat model")
def test_a_flood_for_twenty_thousand_projects_is_one_pass(
    connection: Acknowledging,
) -> None:
    queue = EventQueue(OFFERING, {"user_role"}, structlog.get_logger(), Clock())
    for number in range(20_000):
        body = {"object_type": "user_role", "project_uuid": uuid4().hex, "user_uuid": uuid4().hex,
                "role_name": "member", "granted": True}  # fmt: skip
        queue.receive(delivery(json.dumps(body).encode(), number), connection)
    batch = queue.take(0)
    assert batch is not None
    assert len(batch.entries) == 20_000
    assert queue.take(0) is None


@pytest.mark.guarantee("security: Threat model")
def test_changes_that_waldur_never_shows_do_not_fill_the_brokers_window() -> None:
    waiting = PendingScopes()
    in_hand: set[object] = set()
    for number in range(100):
        order = UUID(int=number + 1)
        announced = OrderAnnounced(order, "executing")
        waiting.add(OrderScope(order), 0.0, announcement=announced, ticket=number)
        in_hand.add(number)
        batch = waiting.take(0.0)
        for entry in batch.entries if batch else ():
            in_hand -= {*waiting.passed(entry, NO_ORDER_THERE, 0.0)}
    assert len(in_hand) == MOST_HELD
    assert len(waiting) == 100  # all of them are looked at again


@pytest.mark.guarantee("security: Threat model")
def test_a_flood_of_orders_that_nothing_holds_back_ends_in_one_full_pass(
    connection: Acknowledging,
) -> None:
    clock = Clock()
    queue = EventQueue(OFFERING, {"order"}, structlog.get_logger(), clock)
    with capture_logs() as logged:
        for number in range(MOST_PENDING + 20_000):
            body = {"object_type": "order", "order_uuid": uuid4().hex, "order_state": "done"}
            queue.receive(delivery(json.dumps(body).encode(), number), connection)
    assert len(connection.acknowledged) == 20_000
    assert [entry["waiting"] for entry in logged] == [MOST_PENDING]
    first = queue.take(0.0)
    assert first is not None
    assert len(first.scopes) == MOST_PENDING
    clock.now = SECONDS_UNTIL_ALL
    everything = queue.take(0.0)
    assert everything is not None
    assert everything.scopes == {Everything()}


@pytest.mark.parametrize(
    ("size", "most"), [(0, MOST_WAITING), (4 << 20, MOST_WAITING_BYTES // (4 << 20))]
)
def test_whoever_reads_from_the_network_waits_until_messages_are_taken(
    size: int, most: int
) -> None:
    mailbox, body, put = Mailbox(), b"x" * size, threading.Semaphore(0)

    def read() -> None:
        while mailbox.end is None:
            mailbox.put(body, QUEUE, {}, False, None)
            put.release()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for _ in range(most):
        assert put.acquire(timeout=patience())
    for _ in range(3):
        assert not put.acquire(blocking=False)  # one more is read for each that is taken
        assert mailbox.receive(0) is not None
        assert put.acquire(timeout=patience())
    mailbox.finish(ConnectionLostError("over"))
    reader.join(patience())
    assert not reader.is_alive()


BAD_FRAMES = [
    b"MESSAGE\ncontent-length:" + b"9" * 5000 + b"\n\nx\0",
    b"MESSAGE\n" + b"a:" * 5_000_000,
    b"\xff\xfe\xfd\n\n\0",
    b"GET / HTTP/1.1\r\n\r\n\0",
    b"MESSAGE\ncontent-length:2\n\nxyz\0",
]


@pytest.mark.parametrize("sent", BAD_FRAMES, ids=lambda sent: repr(sent[:30]))
def test_what_is_no_frame_ends_the_connection_and_not_the_thread(sent: bytes) -> None:
    with pytest.raises(FrameError):
        list(Decoder(1000).feed(sent))


@given(st.integers(1, 40), st.sampled_from([b"\n", b"\r\n"]))
def test_frames_are_the_same_however_they_are_cut(size: int, end: bytes) -> None:
    head = [b"MESSAGE", b"a:b\\cc", b"content-length:4"]
    sent = end + end.join([*head, b"", b"1\n\n2\0"]) + end + b"RECEIPT" + end * 2 + b"\0" + end
    decoder = Decoder(1000)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    first, second = [frame for piece in pieces for frame in decoder.feed(piece)]
    assert (first.command, first.headers["a"], first.body) == ("MESSAGE", "b:c", b"1\n\n2")
    assert (second.command, second.body) == ("RECEIPT", b"")


@pytest.mark.guarantee("security: Threat model")
def test_of_endless_headers_of_a_publisher_only_what_is_used_is_kept() -> None:
    headers = b"ack:7\nx:" + b"y" * (1 << 20) + b"\n" + b"ack:8\n" * (1 << 20)
    (frame,) = Decoder(1000).feed(b"MESSAGE\n" + headers + b"content-length:4\n\nb\0dy\0")
    assert frame.headers == {"ack": "7", "content-length": "4"}
    assert (frame.command, frame.body) == ("MESSAGE", b"b\0dy")


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_bytes_are_frames_or_a_frame_error(pieces: list[bytes]) -> None:
    decoder = Decoder(1000)
    try:
        for piece in pieces:
            list(decoder.feed(piece))
    except FrameError as error:
        str(error).encode(errors="strict" if str(error).isascii() else "replace")


@pytest.mark.parametrize(
    "promised",
    ["9" * 400 + ",0", "9" * 5000 + ",0", "9" * 18 + ",0", "0,0", "x", "", "-1,-1"],
    ids=lambda text: text[:12],
)
def test_heart_beats_that_never_come_are_as_good_as_none(promised: str) -> None:
    with pytest.raises(ConnectionLostError, match="no heart-beats"):
        _heart_beats("the broker", promised)


def test_a_broker_cannot_put_off_our_heart_beats_for_ever() -> None:
    assert _heart_beats("the broker", "10000," + "9" * 18) == (10.0, 3600.0)


def test_a_body_beyond_the_limit_is_counted_and_not_kept() -> None:
    def feed() -> Iterator[int]:
        decoder = Decoder(1000)
        list(decoder.feed(b"MESSAGE\ncontent-length:%d\n\n" % (64 << 20)))
        for _ in range(64):
            for frame in decoder.feed(b"x" * (1 << 20)):
                yield len(frame.body)
        for frame in decoder.feed(b"\0"):
            yield len(frame.body)

    assert list(feed()) == [0]
